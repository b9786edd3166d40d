"""Writing from a GPT-2 checkpoint: the same text on both sides; the bound reads all weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.optional import needs

from benchmarks import pretrained
from benchmarks.contest import Contest
from benchmarks.worker import named
from tinygpt_np.compiled.simd.vectors import LANES
from tinygpt_np.model.gpt import GPT

SMALL = replace(pretrained.CONFIG, vocab_size=90, block_size=40, n_layer=2, n_head=2, n_embd=16)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "CONFIG", SMALL)
    monkeypatch.setattr(pretrained, "TEXTS", {"text": (5, 7), "first": (9, 1)})


def contests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Contest]:
    """What would be run, with the checkpoint still there."""
    found: list[Any] = []

    def run(*arguments: Any) -> bool:
        found.extend(arguments)
        model = GPT.from_pretrained(arguments[1][0].about["folder"])
        assert model.config == SMALL
        model.save_pretrained(tmp_path / "kept")
        return True

    monkeypatch.setattr(pretrained, "run", run)
    assert pretrained.measure(2, 3, True, None)
    assert found[0] == "pretrained"
    return found[1]


def test_sides_write_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("transformers")
    for contest in contests(tmp_path, monkeypatch):
        made: list[list[float]] = []
        for side in contest.sides[:2]:
            job = named(side.build)(**side.options | {"folder": str(tmp_path / "kept")})
            made.append(job.agreement(job.step()))
        assert made[0] == made[1]
        assert len(made[0]) == contest.tokens


def test_the_bound_is_measured_beside_texts_and_not_beside_a_first_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, first = contests(tmp_path, monkeypatch)
    assert [side.name for side in text.sides] == ["ours", "transformers", pretrained.BOUND]
    assert [side.name for side in first.sides] == ["ours", "transformers"]
    assert {contest.rounds for contest in (text, first)} == {3}


def test_without_transformers_we_are_alone() -> None:
    found = pretrained.contests(Path("x"), 1, None, peer=False)
    assert [side.name for side in found[0].sides] == ["ours", pretrained.BOUND]
    assert found[0].rounds == pretrained.ROUNDS


def test_reading_reads_every_number_once_for_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(values: np.ndarray, total: np.ndarray) -> None:
        before(values, total)
        assert total.sum() == values.size  # Ones, all of them.
        sizes.append(values.size)

    before = pretrained.read
    monkeypatch.setattr(pretrained, "read", watched)
    pretrained.read_weights("", 5, 3, 2).step()
    assert len(sizes) == 3 * 2
    weights = sum(param.size for param in GPT(SMALL).params.values())
    assert weights - 8 * LANES < sum(sizes) / 3 <= weights


def test_the_flops_are_those_of_the_products() -> None:
    params = GPT(SMALL).params
    blocks = sum(p.size for n, p in params.items() if p.ndim == 2 and n.startswith("h."))
    head = params["wte.weight"].size
    assert pretrained.flops(5, 7) == 2 * (11 * blocks + 7 * head)
