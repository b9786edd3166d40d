"""The runner of the campaign finds everything that commands must not do."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import runner
from campaign.damage import nothing
from campaign.faults import Damage, Fault, Outcome, either, harmless, prints, refused

COMMAND = ("sample", "bad.txt")
REFUSED, HARMLESS = refused(nothing, (COMMAND,), "bad.txt"), harmless(nothing, (COMMAND,))
EITHER = either(nothing, (COMMAND,), "bad.txt", check=prints("right"))
Verdict = Callable[..., str]


@pytest.fixture
def verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Return the verdict on a function in place of the command."""
    (tmp_path / "bad.txt").write_text("bad")

    def verdict_on(main: Callable[[], object], fault: Fault = REFUSED) -> str:
        monkeypatch.setattr("tinygpt_np.cli.main", lambda _: main())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        outcome = runner.run(COMMAND, tmp_path)
        return runner.verdict(fault, Damage(""), outcome, lambda: Outcome(0, "right\n", "", 0.0))

    return verdict_on


def stop(message: str = "tinygpt: bad.txt is bad", code: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def catch_everything() -> None:
    try:
        time.sleep(30)
    except Exception:
        stop()


def test_right_outcomes_are_right(verdict: Verdict) -> None:
    assert verdict(stop) == ""
    assert verdict(lambda: print("right"), HARMLESS) == ""
    assert verdict(stop, EITHER) == ""
    assert verdict(lambda: print("right"), EITHER) == ""


@pytest.mark.parametrize("sleep", [lambda: time.sleep(30), catch_everything])
def test_a_hang_is_found(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, sleep: Callable[[], None]
) -> None:
    monkeypatch.setattr(runner, "LIMIT", 0.1)
    assert verdict(sleep) == "it hangs"


def crash() -> None:
    raise TypeError("1 + x")


def warn() -> None:
    warnings.warn("invalid value", RuntimeWarning, stacklevel=1)
    stop()


def shout() -> None:
    os.write(2, b"libfoo: bad.txt\n")
    stop()


def change() -> None:
    Path("bad.txt").write_text("Bad")
    stop()


def leave(path: Path) -> Callable[[], None]:
    def main() -> None:
        path.mkdir()
        stop()

    return main


def leave_temporary() -> None:
    Path(os.environ["TMPDIR"], "spooled").write_text("x")
    stop()


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (crash, "Traceback"),
        (lambda: stop("tinygpt: Traceback (most recent call last): bad.txt"), "Traceback"),
        (warn, "Warning"),
        (shout, "it exits with 1 without a message"),
        (lambda: stop(code=3), "it exits with 3"),
        (lambda: print("right"), "it is accepted silently"),
        (change, "it changes bad.txt"),
        (leave(Path(".writing-out")), "it leaves .writing-out"),
        (leave(Path("out")), "it is refused, and leaves out"),
        (leave_temporary, "it leaves (temporary) spooled"),
        (lambda: stop("tinygpt: no"), "names none of bad.txt"),
        (lambda: stop("tinygpt: line 1\nline 2\nbad.txt"), "longer than 2 lines"),
        (lambda: stop("bad.txt"), "without a message"),
        (lambda: stop("tinygpt: bad.txt \x1b[31m"), "control character"),
        (lambda: stop("tinygpt: bad.txt " + "x" * 5000), "5018 characters"),
        (lambda: stop("tinygpt: bad.txt <class 'int'>"), "<class"),
    ],
)
def test_a_wrong_refusal_is_found(
    verdict: Verdict, main: Callable[[], None], expected: str
) -> None:
    assert expected in verdict(main)


def change_and_accept() -> None:
    Path("bad.txt").write_text("Bad")
    print("right")


@pytest.mark.parametrize(
    ("fault", "main", "expected"),
    [
        (HARMLESS, stop, "it is harmless, but refused"),
        (HARMLESS, lambda: print("wrong"), "prints something else"),
        (HARMLESS, change_and_accept, "it changes bad.txt"),
        (EITHER, lambda: print("wrong"), "it should print right"),
        (EITHER, lambda: stop("tinygpt: no"), "names none of bad.txt"),
    ],
)
def test_a_wrong_acceptance_is_found(
    verdict: Verdict, fault: Fault, main: Callable[[], None], expected: str
) -> None:
    assert expected in verdict(main, fault)
