"""The figures in the benchmarks' README are those of the results that are kept."""

import json
import re
import statistics
from typing import Any

import pytest

from benchmarks import ROOT, records
from benchmarks.__main__ import COMMANDS, make_parser
from benchmarks.harness import compare
from benchmarks.render import summary

README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


def result(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def table(head: str) -> list[list[str]]:
    """Return the cells of the table that starts with a head."""
    lines = README.split(head)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_ladder_is_that_of_the_result() -> None:
    (name,) = re.findall(r"from \[`results/(.*?)\.json`\]", README)
    assert summary.section(result(name), name) in README


def test_the_table_of_tokenizers_is_that_of_the_result() -> None:
    found = result("tokenizers")
    rows = table("| tokenizer | vocabulary | width |")
    for cells, (kind, each) in zip(rows, found["results"].items(), strict=True):
        bits, ratio = each["bits"], each["characters_per_token"]
        read = statistics.median(each["tokens"]) * ratio / 1e6
        assert cells == [
            kind, f"{each['vocab_size']:,}", str(each["n_embd"]), f"{ratio:.2f}",
            f"{read:.1f} million",
            f"{statistics.median(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})",
        ]  # fmt: skip
        assert abs(each["params"] - 3.5e6) < 0.1e6
        assert len(bits) == 3
    assert (found["options"]["seconds"], found["options"]["corpus"]) == (60, "shakespeare")


def test_the_table_of_the_speedrun_is_that_of_the_records() -> None:
    assert f"\n\n{records.table(records.read(records.PATH))}\n\n" in README


def test_every_command_is_shown_and_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "load", str)  # OLD.json is only a name.
    lines = re.findall(r"^python -m benchmarks (.*?)(?: +#.*)?$", README, re.MULTILINE)
    assert {line.split()[0] for line in lines} == set(COMMANDS)
    for line in lines:
        make_parser().parse_args(line.split())
