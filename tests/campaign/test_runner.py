"""The runner of the campaign finds what commands must not do: each is planted, and found."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from campaign import runner
from campaign.case import Case, Kind, Outcome, Process, contains, either, harmless, refused
from campaign.family import Family

COMMAND = ["sample", "bad.txt"]
REFUSED = refused("a bad text", COMMAND, "bad.txt")
Verdict = Callable[..., str]


def nothing(command: list[str]) -> Outcome:
    """Return the outcome of the command on the undamaged input."""
    return Outcome(0, "right\n", "", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bad.txt").write_text("bad")
    return tmp_path


@pytest.fixture
def verdict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Return the verdict on a case, where a function stands for the command."""

    def verdict_on(planted: Callable[[], object], case: Case = REFUSED) -> str:
        def main(arguments: list[str]) -> None:
            planted()

        monkeypatch.setattr("tinygpt_np.cli.main", main)
        return runner.judge(case, runner.run(case, folder), nothing)

    return verdict_on


def stop(message: str = "tinygpt: bad.txt is bad", code: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def test_a_refusal_by_name_is_right(verdict: Verdict) -> None:
    assert verdict(stop) == ""


def test_a_traceback_is_found(verdict: Verdict) -> None:
    assert "Traceback" in verdict(lambda: 1 + "x")  # type: ignore[operator]


def test_a_traceback_that_is_printed_is_found(verdict: Verdict) -> None:
    assert "Traceback" in verdict(
        lambda: stop("tinygpt: Traceback (most recent call last): bad.txt")
    )


def test_a_hang_is_found(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LIMIT", 0.1)
    assert verdict(lambda: time.sleep(30)) == "it hangs"


def test_a_hang_that_catches_every_exception_is_found(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LIMIT", 0.1)

    def stubborn() -> None:
        try:
            time.sleep(30)
        except Exception:
            stop()

    assert verdict(stubborn) == "it hangs"


def test_a_hang_in_its_own_process_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LIMIT", 0.5)
    monkeypatch.setattr(runner, "COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    case = Case("", COMMAND, REFUSED.expected, process=Process())
    assert runner.judge(case, runner.run(case, folder), nothing) == "it hangs"


def test_a_silent_acceptance_is_found(verdict: Verdict) -> None:
    assert verdict(lambda: print("right")) == "it is accepted silently"


def test_a_changed_input_is_found(verdict: Verdict, folder: Path) -> None:
    def change() -> None:
        (folder / "bad.txt").write_text("Bad")
        stop()

    assert verdict(change) == "it changes bad.txt"


def test_an_input_that_is_removed_is_found(verdict: Verdict, folder: Path) -> None:
    def remove() -> None:
        (folder / "bad.txt").unlink()
        stop()

    assert verdict(remove) == "it changes bad.txt"


def test_an_input_that_is_changed_in_place_by_an_accepted_command_is_found(
    verdict: Verdict, folder: Path
) -> None:
    def change() -> None:
        (folder / "bad.txt").write_text("Bad")
        print("right")

    assert verdict(change, harmless("", COMMAND)) == "it changes bad.txt"


@pytest.mark.parametrize("name", [".writing-out", "out"])
def test_files_that_are_left_after_a_refusal_are_found(
    verdict: Verdict, folder: Path, name: str
) -> None:
    def leave() -> None:
        (folder / name).mkdir()
        stop()

    assert name in verdict(leave)


def test_a_temporary_file_that_is_left_is_found(verdict: Verdict) -> None:
    def leave() -> None:
        Path(os.environ["TMPDIR"], "spooled").write_text("x")
        stop()

    assert verdict(leave) == "it leaves (temporary) spooled"


@pytest.mark.parametrize(
    "message", ["tinygpt: no", "tinygpt: line 1\nline 2\nbad.txt", "bad.txt", ""]
)
def test_a_message_that_does_not_say_what_is_wrong_is_found(verdict: Verdict, message: str) -> None:
    assert verdict(lambda: stop(message))


@pytest.mark.parametrize("text", ["\x1b[31m", "x" * 5000, "<class 'int'>", "NoneType"])
def test_a_message_that_shows_the_inside_is_found(verdict: Verdict, text: str) -> None:
    assert verdict(lambda: stop(f"tinygpt: bad.txt {text}"))


def test_a_warning_is_found(verdict: Verdict) -> None:
    def warn() -> None:
        warnings.warn("invalid value", RuntimeWarning, stacklevel=1)
        stop()

    assert "Warning" in verdict(warn)


def test_what_native_code_prints_is_found(verdict: Verdict) -> None:
    def shout() -> None:
        os.write(2, b"libfoo: bad.txt\n")
        stop()

    assert verdict(shout) == "it exits with 1 without a message"


def test_another_exit_code_is_found(verdict: Verdict) -> None:
    assert verdict(lambda: stop(code=3)) == "it exits with 3"


def test_a_harmless_input_that_is_refused_is_found(verdict: Verdict) -> None:
    assert verdict(stop, harmless("", COMMAND)) == "it is harmless, but refused"


def test_a_harmless_input_that_changes_the_output_is_found(verdict: Verdict) -> None:
    assert verdict(lambda: print("right"), harmless("", COMMAND)) == ""
    assert "something else" in verdict(lambda: print("wrong"), harmless("", COMMAND))
    assert "should print" in verdict(lambda: print("x"), harmless("", COMMAND, contains("y")))


def test_where_either_is_right_the_message_must_still_name_the_input(verdict: Verdict) -> None:
    case = either("", COMMAND, "nothing says", "bad.txt", check=contains("right"))
    assert verdict(stop, case) == ""
    assert verdict(lambda: print("right"), case) == ""
    assert verdict(lambda: stop("tinygpt: no"), case)
    assert verdict(lambda: print("wrong"), case)


def test_a_case_is_the_same_each_time_and_no_other_is_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campaign.family.CASES", 20)

    def build(folder: Path) -> None:
        (folder / "bad.txt").write_text("to be or not to be")

    def damage(rng: Random, folder: Path) -> Case:
        (folder / "bad.txt").write_text(str(rng.randrange(30)))  # Draws some of them twice.
        return REFUSED

    kinds: list[Kind] = [damage]
    module = SimpleNamespace(__name__="campaign.planted", KINDS=kinds, build=build)
    found: list[list[str]] = []
    for attempt in range(2):
        family = Family(cast(ModuleType, module))
        contents: list[str] = []
        for number in range(20):
            folder = family.copy_to(tmp_path / f"{attempt} {number}")
            family.case(number, folder)
            contents.append((folder / "bad.txt").read_text())
        found.append(contents)
    assert found[0] == found[1]
    assert len(set(found[0])) == 20
