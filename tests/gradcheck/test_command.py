"""`tinygpt gradcheck`: what it shows, its exit status, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt_np import cli, ops
from tinygpt_np.gradcheck import detectors, progress, suite


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def run(*arguments: str) -> int:
    try:
        cli.main(["gradcheck", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "NAMES", ("linear", "softmax"))


@pytest.mark.usefixtures("few")
def test_the_suite_has_a_line_for_each_heading_and_shows_a_wrong_gradient_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    for heading in ("linear, generic values", "linear, sizes of 1", "softmax, generic values"):
        assert re.search(rf"^{heading}  .* complex step .*× +ok", out, re.MULTILINE), heading
    assert re.search(r"\d+ results in \d+ checks, all correct; \d+\.\d s", out)
    right = ops.linear.backward

    def backward(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = right(dy, saved)
        return dx, 2 * dweight, dbias

    monkeypatch.setattr(ops.linear, "backward", backward)
    assert run("--seed", "3") == 1
    out = capsys.readouterr().out
    assert "weight: off by 1 of its norm" in out
    assert "likely cause: too large by a factor of 2" in out
    assert "seed=3 reproduces it" in out
    assert re.search(r"checks, \d+ wrong", out)
    assert run("linear", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["complete"], found["reports"][0]["ok"]) == (False, True, False)


def test_an_oracle_can_be_chosen_and_json_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("linear", "--method", "taylor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["complete"]) == (True, True)
    rows = [(row["name"], row["oracle"]) for row in found["reports"][0]["rows"]]
    assert rows == [(name, "Taylor slope") for name in ("x", "weight", "bias")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nonsense", "NAME must be one of embedding, linear, .*gpt, step, not nonsense"),
        ("nonsense --mutants", "bugs are planted in one of .*gpt, not in nonsense"),
        ("--mutants --method taylor", "leave out --method"),
        ("--html page.html", "it goes with --mutants"),
        ("--libraries", "it goes with --mutants"),
        ("--mutants --html none/page.html", "none/page.html cannot be made"),
    ],
)
def test_bad_input_is_a_line_of_explanation(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments.split()) == 1
    found = " ".join(capsys.readouterr().err.split())
    assert re.fullmatch(f"tinygpt: .*{message}.*", found), found


@pytest.mark.usefixtures("few")
def test_ctrl_c_shows_what_was_checked_and_claims_nothing_of_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Interrupt the command after the first report, and after a right backward and a mutant.
    for module, number in ((suite, 1), (detectors, 2)):

        def first(*arguments: Any, every: Any = module.run, number: int = number) -> Any:
            results = every(*arguments)
            for _ in range(number):
                yield next(results)
            results.close()
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "run", first)
    assert run() == 130
    out = capsys.readouterr().out
    assert "3 results in 1 check, all correct" in out
    assert out.rstrip().endswith("stopped; the rest was not checked")
    assert run("--json") == 130
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["complete"], len(found["reports"])) == (None, False, 1)
    assert run("embedding", "--mutants", "--html", "page.html") == 130
    out = capsys.readouterr().out
    assert "stopped after 1 mutant;" in out
    assert "The run was interrupted" in (folder / "page.html").read_text(encoding="utf-8")


def test_planted_bugs_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    assert run("embedding", "--mutants", "--html", "page.html") == 0
    out, shown = capsys.readouterr()
    assert "planting bugs: embedding.backward, 9 of about 9 done, about 0 s left" in shown
    assert "8 mutants: 5 bugs" in out
    assert "every bug was detected" in out
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "dweight[ids] += drows" in page
    # A page that exists is not overwritten.
    assert run("embedding", "--mutants", "--html", "page.html") == 1
    assert "page.html exists already" in capsys.readouterr().err
    assert (folder / "page.html").read_text(encoding="utf-8") == page


def test_a_wrong_matrix_makes_the_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detectors, "run", lambda *_: (each for each in ()))  # pyright: ignore
    key = ("embedding", "a", "b", "c")
    monkeypatch.setattr("tinygpt_np.gradcheck.matrix.EQUIVALENT", {key: ""})
    assert run("embedding", "--mutants") == 1
    assert "wrong: embedding.a: b → c: listed as changing nothing, but" in capsys.readouterr().out
    monkeypatch.setattr("tinygpt_np.gradcheck.matrix.EQUIVALENT", {})
    assert run("embedding", "--mutants", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["complete"], found["mutants"]) == (True, True, [])
