"""The learner's folder: nothing is overwritten, and progress is written whole or not at all."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tinygpt_np.learn import folder
from tinygpt_np.learn.course import course, find
from tinygpt_np.learn.folder import Record, changed_progress, read_progress, record, start
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.lines import JudgedLine
from tinygpt_np.learn.skeleton import skeleton
from tinygpt_np.storage import files
from tinygpt_np.storage.files import FileError

SOFTMAX = find("softmax")
SOLVED = Verdict(SOFTMAX)
OPEN = Verdict(SOFTMAX, (JudgedLine(1, "dx = ...", "open"),))


def test_a_record_is_read_back(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == {}
    written = record(OPEN, tmp_path / "new")
    assert written == read_progress(tmp_path / "new") == {"softmax": Record(right=4, asked=5)}


def test_what_was_solved_once_stays_done(tmp_path: Path) -> None:
    done = record(SOLVED, tmp_path)["softmax"].done
    assert done
    assert record(OPEN, tmp_path)["softmax"] == Record(right=4, asked=5, done=done)
    assert record(SOLVED, tmp_path)["softmax"].done == done


def test_hints_and_solutions_survive_a_check(tmp_path: Path) -> None:
    with changed_progress(tmp_path) as progress:
        progress["softmax"] = Record(hints={"dexps": 3}, solutions=1)
    found = record(OPEN, tmp_path)["softmax"]
    assert (found.hints, found.solutions) == ({"dexps": 3}, 1)


GOOD = {"version": 1, "exercises": {"softmax": {"right": 1, "asked": 5}}}
DAMAGED = {
    "empty": "",
    "half": json.dumps(GOOD)[:-9],
    "a list": "[]",
    "newer": json.dumps(GOOD | {"version": 2}),
    "no version": json.dumps({"exercises": {}}),
    "exercises is a list": json.dumps(GOOD | {"exercises": []}),
    "a record is a number": json.dumps(GOOD | {"exercises": {"softmax": 1}}),
    "an unknown field": json.dumps(GOOD | {"exercises": {"softmax": {"wrong": 1}}}),
    "a text for a number": json.dumps(GOOD | {"exercises": {"softmax": {"right": "1"}}}),
    "a truth for a number": json.dumps(GOOD | {"exercises": {"softmax": {"right": True}}}),
    "a negative number": json.dumps(GOOD | {"exercises": {"softmax": {"right": -1}}}),
    "hints is a list": json.dumps(GOOD | {"exercises": {"softmax": {"hints": []}}}),
    "a hint is a text": json.dumps(GOOD | {"exercises": {"softmax": {"hints": {"dx": "1"}}}}),
    "done is a number": json.dumps(GOOD | {"exercises": {"softmax": {"done": 1}}}),
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    for change in (lambda: read_progress(tmp_path), lambda: record(SOLVED, tmp_path)):
        with pytest.raises(FileError) as raised:
            change()
        assert str(raised.value) == (
            f"{path} is not a file of tinygpt learn (version 1); move it away to go on"
        )
    assert path.read_text() == text


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="is not a file of tinygpt learn"):
        read_progress(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "progress.json").mkdir()
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        read_progress(tmp_path)


def test_the_record_of_an_exercise_of_another_version_of_the_course_is_kept(tmp_path: Path) -> None:
    with changed_progress(tmp_path) as progress:
        progress["gone"] = Record(done="2020-01-01T00:00:00")
    assert record(SOLVED, tmp_path)["gone"].done


def test_a_write_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(OPEN, tmp_path)
    before = (tmp_path / "progress.json").read_bytes()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(FileError, match="the disk is full"):
        record(SOLVED, tmp_path)
    assert (tmp_path / "progress.json").read_bytes() == before
    assert not list(tmp_path.glob(".writing*"))


def test_an_exception_while_progress_changes_writes_nothing(tmp_path: Path) -> None:
    change = changed_progress(tmp_path)
    change.__enter__()["softmax"] = Record(right=1)
    assert not change.__exit__(KeyError, KeyError(), None)
    assert read_progress(tmp_path) == {}


def test_no_record_is_lost_if_several_are_written_at_once(tmp_path: Path) -> None:
    exercises = course()[:8]
    verdicts = [Verdict(each) for each in exercises]
    threads = [threading.Thread(target=record, args=(each, tmp_path)) for each in verdicts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*read_progress(tmp_path)} == {each.name for each in exercises}


@pytest.mark.parametrize("content", ["mine", ""])
def test_start_never_overwrites(tmp_path: Path, content: str) -> None:
    path = start(SOFTMAX, tmp_path / "learn")
    assert path.read_text(encoding="utf-8") == skeleton(SOFTMAX)
    path.write_text(content)
    with pytest.raises(FileError, match=r"softmax\.py exists already"):
        start(SOFTMAX, tmp_path / "learn")
    assert path.read_text() == content


def test_start_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "softmax.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(FileError, match="exists already"):
        start(SOFTMAX, tmp_path)
    assert not (tmp_path / "elsewhere.py").exists()


def test_reset_keeps_the_file_under_another_name(tmp_path: Path) -> None:
    path = start(SOFTMAX, tmp_path)
    for n, content in enumerate(("mine", "mine too")):
        path.write_text(content)
        kept = folder.reset(SOFTMAX, tmp_path)
        assert path.read_text(encoding="utf-8") == skeleton(SOFTMAX)
        assert kept == tmp_path / f"softmax.py.old{n or ''}"
        assert kept.read_text() == content
    assert (tmp_path / "softmax.py.old").read_text() == "mine"


def test_reset_writes_no_file_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="tinygpt learn start softmax writes it"):
        folder.reset(SOFTMAX, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_itself_is_no_place_for_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder.PROGRESS).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="go to the one that contains it"):
        folder.check_place()


def test_the_file_edited_last_is_the_one_to_check(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="begin with tinygpt learn start"):
        folder.last_edited(tmp_path)
    for n, name in enumerate(("gelu", "softmax", "linear")):
        os.utime(start(find(name), tmp_path), (n, n))
    (tmp_path / "notes.py").write_text("")
    assert folder.last_edited(tmp_path).name == "linear"
    os.utime(tmp_path / "softmax.py", (9, 9))
    assert folder.last_edited(tmp_path).name == "softmax"
    assert [each.name for each in folder.started(tmp_path)] == ["linear", "gelu", "softmax"]


def test_the_next_exercise_is_the_first_that_is_not_done_and_not_on_the_side() -> None:
    done = {each.name: replace(Record(), done="now") for each in course()}
    assert folder.next_exercise(done) is None
    assert folder.next_exercise({}) is course()[0]
    assert folder.next_exercise(done | {"gpt": Record(), "relu": Record()}) == find("gpt")
    assert folder.next_exercise(done | {"relu": Record()}) is None
