"""A learner's function is judged with its forward, and nothing that it does is a traceback."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cells import code_cells, defined, run_cell, written

import tinygpt_np as tg
from tinygpt_np.learn import sandbox
from tinygpt_np.learn.course import find
from tinygpt_np.learn.folder import PROGRESS, read_progress

SOFTMAX = written("softmax")
RETURN = "    return dx\n"


def names_after(*cells: str) -> dict[str, Any]:
    """Return the global names after some cells have run."""
    names: dict[str, Any] = {}
    for cell in cells:
        run_cell(cell, names)
    return names


@pytest.mark.parametrize("name", ["softmax", "linear", "block", "gpt"])
def test_an_exercise_is_solved_by_the_lines_of_the_source(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", 120.0)  # The machine may be busy.
    result = tg.learn.check(defined(name, written(name)))
    assert result.ok, result


def test_the_comment_that_is_nearest_above_a_function_names_its_exercise() -> None:
    both = f"{written('exp')}\n\n{SOFTMAX}".replace("def backward", "def first", 1)
    names = names_after(code_cells("softmax")[1], both)
    assert names["backward"].__code__.co_firstlineno > 10
    assert tg.learn.check(names["backward"]).ok
    verdict = tg.learn.check(names["first"]).verdict
    assert verdict is not None
    assert verdict.exercise.name == "exp"


def test_a_given_name_is_the_exercise_whatever_the_comment_says() -> None:
    backward = defined("softmax", SOFTMAX.replace("exercise: softmax", "exercise: exp"))
    assert tg.learn.check(backward, "softmax").ok


@pytest.mark.parametrize(
    ("backward", "name", "message"),
    [
        (tg.ops.softmax.backward, None, r"^the exercise is not known: write `# exercise: NAME`"),
        (tg.ops.softmax.backward, "sofmax", r"^there is no exercise sofmax; did you mean softmax"),
        (tg.ops.softmax.backward, "training", r"^training is checked in a terminal: tinygpt learn"),
        (np.exp, "softmax", r"^the source of .* is not known"),
        (3, "softmax", r"^the source of int is not known"),
    ],
)
def test_what_cannot_be_judged_is_said_in_a_sentence(
    backward: Any, name: str | None, message: str
) -> None:
    result = tg.learn.check(backward, name)
    assert not result.ok
    assert result.verdict is None
    assert re.match(message, result.problem)
    assert len(str(result).splitlines()) == 1


def test_in_a_bug_hunt_the_comment_in_the_cell_names_the_line() -> None:
    hunt, cell = find("bug_03"), code_cells("bug_03")[2]
    assert hunt.bug is not None
    assert hunt.bug.after in cell
    result = tg.learn.check(defined("bug_03", cell))
    assert result.verdict is not None
    assert not result.ok
    assert result.verdict.note in str(result)
    marked = cell.replace(hunt.bug.after, f"{hunt.bug.after}  # bug")
    assert "Line 7 is the wrong one" in str(tg.learn.check(defined("bug_03", marked)))
    assert tg.learn.check(defined("bug_03", marked.replace(hunt.bug.after, hunt.bug.before))).ok


def test_the_forward_of_the_cells_is_used_and_without_one_that_of_the_exercise() -> None:
    setup = code_cells("softmax")[1]
    other = setup.replace("return probs, (probs, total)", "return probs, (probs, exps, total)")
    body = SOFTMAX.replace("probs, total = saved", "probs, exps, total = saved")
    body = body.replace("    exps = probs * total  # (..., V)\n", "")
    assert tg.learn.check(names_after(other, body)["backward"]).ok
    assert tg.learn.check(names_after("import numpy as np", SOFTMAX)["backward"]).ok
    assert tg.learn.check(names_after("import numpy as np\nforward = 3", SOFTMAX)["backward"]).ok


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("probs = exps / total", "probs = exps * total", "forward was changed, and its output"),
        ("def forward(x)", "def forward(x, y)", "forward must take the arguments forward(x)"),
    ],
)
def test_a_forward_that_is_another_one_is_named(before: str, after: str, message: str) -> None:
    changed = code_cells("softmax")[1].replace(before, after)
    result = tg.learn.check(names_after(changed, SOFTMAX)["backward"])
    assert result.verdict is not None
    assert result.verdict.problem.startswith(message)


BAD = [
    "    return",
    "    return None",
    "    return dx[0]",
    "    return dx * np.nan",
    "    return 'dx'",
    "    return {'x': dx}, 1",
    "    return dx + missing",
    "    raise KeyError('dx')",
    "    return backward(dprobs, saved)",
    "    return np.ones(3) @ dx",
    "    exit()",
    "    import os; os._exit(1)",
    "    return (yield dx)",
    "    dprobs *= 2\n    return dx",
    "    return dprobs",
    "    pass",
]


@pytest.mark.parametrize("end", BAD)
def test_no_code_ends_in_a_traceback(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", 3.0)
    result = tg.learn.check(defined("softmax", SOFTMAX.replace(RETURN, f"{end}\n")))
    assert not result.ok
    assert "Traceback" not in str(result)
    assert result.problem or (result.verdict and (result.verdict.problem or result.verdict.mistake))
    assert "<div" in result._repr_html_()  # pyright: ignore[reportPrivateUsage]


def test_an_endless_loop_ends_at_the_limit_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", 1.0)
    loop = "    while True:\n        dx = dx + 0\n"
    cell = SOFTMAX.replace(RETURN, f"{loop}{RETURN}")
    verdict = tg.learn.check(defined("softmax", cell)).verdict
    assert verdict is not None
    assert "was still running after 1 s; does a loop never end?" in verdict.problem
    start = next(n for n, line in enumerate(cell.splitlines(), 1) if "while" in line)
    assert verdict.line in (start, start + 1)


def test_a_verdict_is_recorded_in_the_folder_of_the_course(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "learn").mkdir()
    path = tmp_path / "learn" / PROGRESS
    path.write_text('{"version": 1, "exercises": {}}')
    for folder, name in ((tmp_path, "softmax"), (tmp_path / "learn", "exp")):
        monkeypatch.chdir(folder)
        assert tg.learn.check(defined(name, written(name))).ok
        assert read_progress(tmp_path / "learn")[name].done


def test_the_first_verdict_is_recorded_next_to_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "learn").mkdir()
    (tmp_path / "learn" / "softmax.ipynb").touch()
    monkeypatch.chdir(tmp_path / "learn")
    assert tg.learn.check(defined("softmax", SOFTMAX)).ok
    assert [*read_progress(Path())] == ["softmax"]


def test_without_a_course_in_this_folder_nothing_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learn").mkdir()
    (tmp_path / PROGRESS).write_text(json.dumps({"of": "another program"}))
    result = tg.learn.check(defined("softmax", SOFTMAX))
    assert (result.ok, result.problem) == (True, "")
    assert [*(tmp_path / "learn").iterdir()] == []


def test_a_verdict_that_cannot_be_recorded_is_shown_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learn").mkdir()
    (tmp_path / "learn" / PROGRESS).write_text("[]")
    result = tg.learn.check(defined("softmax", SOFTMAX))
    assert result.ok
    assert "not recorded: learn/progress.json is not a file of tinygpt learn" in str(result)
