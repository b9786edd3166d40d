"""Checking the files of a folder: what a learner's code does, hints, watching, grading."""

import os
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers.learners import solved

from tinygpt_np.learn import checks, sandbox
from tinygpt_np.learn.checks import WatchError, as_data, judged, next_hint, solution
from tinygpt_np.learn.course import find
from tinygpt_np.learn.folder import FOLDER, changed_progress, read_progress
from tinygpt_np.storage.files import FileError

SOFTMAX = find("softmax")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / FOLDER / SOFTMAX.file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_endless_loop_ends_in_a_message_that_names_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = solved("softmax").replace(
        "    return dx\n", "    while True:\n        dx = dx\n    return dx\n"
    )
    write(folder, text)
    monkeypatch.setattr(sandbox, "LIMIT", 0.5)
    found = judged(SOFTMAX)
    number = text[: text.index("while")].count("\n") + 1
    assert found.line in (number, number + 1)
    assert "was still running after 0.5 s" in found.problem
    assert not found.ok


def test_what_a_learner_prints_is_kept_and_shown_once(folder: Path) -> None:
    write(
        folder,
        solved("softmax").replace("    return dx\n", '    print("dx", dx.shape)\n    return dx\n'),
    )
    found = judged(SOFTMAX)
    assert found.ok
    assert found.printed.startswith("dx (2, 3, 11)\n")


def test_a_byte_order_mark_is_no_mistake_and_another_encoding_is_named(folder: Path) -> None:
    write(folder, "\ufeff" + solved("softmax"))
    assert judged(SOFTMAX).ok
    write(folder, b"# \xff\n")
    with pytest.raises(FileError, match="not UTF-8 text, at byte 2"):
        judged(SOFTMAX)


def test_a_syntax_error_names_its_line_and_is_recorded_as_no_line_right(folder: Path) -> None:
    write(folder, solved("softmax").replace("dx = dshifted", "dx = = dshifted"))
    found = checks.check(SOFTMAX)
    assert (found.line, found.ok) == (44, False)
    assert "not valid Python" in found.problem
    assert read_progress()["softmax"].right == 0


def test_what_was_solved_once_stays_done(folder: Path) -> None:
    write(folder, solved("softmax"))
    checks.check(SOFTMAX)
    done = read_progress()["softmax"].done
    write(folder, solved("softmax", but=(0,)))
    checks.check(SOFTMAX)
    assert read_progress()["softmax"].done == done
    assert read_progress()["softmax"].right == 4


def test_a_hint_is_for_the_first_line_that_is_open_or_wrong(folder: Path) -> None:
    write(folder, solved("softmax", but=(1, 3)))
    first = next_hint(judged(SOFTMAX))
    assert first is not None
    assert first.line.text.startswith("dtotal")
    write(folder, solved("softmax", but=(3,)))
    second = next_hint(judged(SOFTMAX))
    assert second is not None
    assert (second.line.text[:8], second.number) == ("dshifted", 1)
    write(folder, solved("softmax"))
    assert next_hint(judged(SOFTMAX)) is None


def test_the_remedy_of_a_mistake_is_a_part_of_the_third_hint_only(folder: Path) -> None:
    write(folder, solved("softmax").replace("dexps += dtotal", "dexps -= dtotal"))
    verdict = judged(SOFTMAX)
    assert verdict.mistake is not None
    assert verdict.mistake.kind == "the sign is wrong"
    remedy = f"Likely cause: {verdict.mistake.cause}."
    texts = [hint.text for _ in range(4) if (hint := next_hint(verdict))]
    assert [remedy in text for text in texts] == [False, False, True, False]


def test_a_solution_is_in_the_style_of_the_file_and_counts_all_its_lines(folder: Path) -> None:
    text = solution(SOFTMAX)
    assert text.startswith("def backward(dprobs, saved):\n")
    assert "dtotal = -(dprobs * probs / total)" in text
    assert read_progress()["softmax"].solutions == 5


def test_saved_files_are_yielded_while_they_are_watched(folder: Path) -> None:
    pytest.importorskip("watchfiles")
    path = write(folder, "first")
    found = checks.edited()

    def save() -> None:
        time.sleep(0.5)
        path.write_text("second")
        (path.parent / "notes.txt").write_text("not an exercise")

    thread = threading.Thread(target=save)
    thread.start()
    assert next(found) == SOFTMAX
    thread.join()


def test_without_watchfiles_the_command_that_installs_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(WatchError, match=r"pip install 'tinygpt-np\[learn\]'"):
        checks.edited()


def test_grades_have_hints_and_solutions_shown(folder: Path) -> None:
    write(folder, solved("softmax", but=(1,)))
    next_hint(judged(SOFTMAX))
    entry = as_data([judged(SOFTMAX)])["exercises"][0]
    assert (entry["hints"], entry["solutions"], entry["right"], entry["asked"]) == (1, 0, 4, 5)
    assert [each["status"] for each in entry["lines"]].count("open") == 1


def test_progress_is_unchanged_if_a_change_fails(folder: Path) -> None:
    write(folder, solved("softmax"))
    checks.check(SOFTMAX)
    before = read_progress()
    with pytest.raises(KeyError):
        empty_and_fail()
    assert read_progress() == before


def empty_and_fail() -> None:
    with changed_progress() as progress:
        progress.clear()
        raise KeyError


def test_a_named_pipe_is_no_file_and_is_not_waited_for(folder: Path) -> None:
    path = write(folder, "")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileError, match=r"softmax\.py is not a file"):
        judged(SOFTMAX)


def test_a_verdict_is_shown_although_it_cannot_be_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, solved("softmax"))
    monkeypatch.setattr(checks, "record", Mock(side_effect=OSError(30, "Read-only file system")))
    found = checks.check(SOFTMAX)
    assert found.ok
    assert found.note == "The progress is not recorded: Read-only file system."


def test_the_line_of_an_endless_loop_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        folder,
        solved("softmax").replace("    return dx\n", "    while True: pass\n    return dx\n"),
    )
    monkeypatch.setattr(sandbox, "LIMIT", 0.5)
    found = judged(SOFTMAX)
    assert found.line > 0
    assert found.problem.startswith("was still running")
