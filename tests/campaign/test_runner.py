"""The runner of the campaign finds everything that commands must not do."""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import runner
from campaign.runner import Fault, Outcome

REFUSED, SAME = Fault([]), Fault([], refused=False, accepted=True)
EITHER = Fault([], accepted=True, prints="right")


def stop(message: str = "tinygpt: bad.txt is bad", code: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def change() -> None:
    Path("bad.txt").write_text("Bad")
    print("right")


@pytest.mark.parametrize(
    ("action", "fault", "found"),
    [
        (stop, REFUSED, ""),
        (lambda: print("right"), SAME, ""),
        (lambda: time.sleep(30), REFUSED, "it hangs"),
        (lambda: int("x"), REFUSED, "Traceback"),
        (lambda: warnings.warn("bad.txt", RuntimeWarning, 1), EITHER, "Warning"),
        (lambda: (os.write(2, b"libfoo: bad.txt\n"), stop()), REFUSED, "without a message"),
        (lambda: stop(code=3), REFUSED, "it exits with 3"),
        (lambda: Path(".writing-out").mkdir(), EITHER, "it leaves .writing-out"),
        (lambda: tempfile.mkstemp(prefix="x"), EITHER, "it leaves tmp/x"),
        (lambda: (Path("out").mkdir(), stop()), REFUSED, "it is refused, but makes or changes out"),
        (lambda: (change(), stop()), REFUSED, "it is refused, but makes or changes bad.txt"),
        (lambda: stop("tinygpt: no"), EITHER, "names none of bad.txt"),
        (lambda: stop("tinygpt: line 1\nline 2\nbad.txt"), REFUSED, "longer than 2 lines"),
        (lambda: stop("tinygpt: bad.txt \x1b[31m"), REFUSED, "control character"),
        (lambda: print("right"), REFUSED, "it is accepted silently"),
        (stop, SAME, "it is harmless, but refused"),
        (lambda: print("wrong"), SAME, "prints something else"),
        (lambda: print("wrong"), EITHER, "it should print 'right'"),
        (change, SAME, "it changes bad.txt"),
    ],
)
def test_what_is_wrong_is_found(
    action: Callable[[], object],
    fault: Fault,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.txt").write_text("bad")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(runner, "LIMIT", 0.5)
    monkeypatch.setattr("tinygpt_np.cli.main", lambda _: action())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    outcome = runner.run(["sample"], tmp_path, capfd)
    right = Outcome(0, "right\n", "", {}, [])
    problem = next(runner.problems(outcome, fault, ["bad.txt"], lambda: right), "")
    assert found in problem
    assert bool(found) == bool(problem)
