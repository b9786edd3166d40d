"""Files and folders are written atomically by several processes, even if they are killed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt_np.storage import files
from tinygpt_np.storage.files import FileError

SECONDS = 60
CONTENTS = {"train.bin": b"12345678", "meta.json": b"{}"}


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


# Two writers, interleaved


def test_a_second_writer_of_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "out") as temporary:
        (temporary / "train.bin").write_bytes(b"first")
        with pytest.raises(FileError, match="out is being written by another process"):
            files.write_folder(tmp_path / "out", CONTENTS)
        assert temporary.is_dir()
        assert not files.clean(tmp_path, "another")
    assert written(tmp_path / "out") == {"train.bin": b"first"}
    assert names(tmp_path) == ["out"]


APPEAR: dict[str, Callable[[Path], object]] = {
    "an empty folder": Path.mkdir,
    "a dangling link": lambda out: out.symlink_to("nowhere"),
    "another writer": lambda out: files.write_folder(out, CONTENTS),
}


@pytest.mark.parametrize("what", APPEAR)
def test_a_path_that_appears_while_a_folder_is_written_is_not_replaced(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if both writers checked before either began.
    monkeypatch.setattr(files, "clean", lambda *_: False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    out = tmp_path / "out"
    with pytest.raises(FileError, match="out exists already"), files.new_folder(out):
        APPEAR[what](out)
    assert names(tmp_path) == ["out"]
    assert not out.is_dir() or written(out) in ({}, CONTENTS)


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_replaces_one_and_needs_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path, sync = tmp_path / "my.model", files.sync_file
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    files.create_file(path, b"ours")
    assert written(tmp_path) == {"my.model": b"ours"}
    with pytest.raises(FileError, match=r"my\.model exists already"):
        files.create_file(path, b"again")
    path.unlink()

    def appear(temporary: Path) -> None:
        sync(temporary)
        path.write_bytes(b"theirs")

    monkeypatch.setattr(files, "sync_file", appear)
    with pytest.raises(FileError, match=r"my\.model exists already"):
        files.create_file(path, b"ours")
    assert written(tmp_path) == {"my.model": b"theirs"}


def test_two_writers_of_a_file_do_not_share_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sync = tmp_path / "loss.svg", files.sync_file

    def interleave(temporary: Path) -> None:
        monkeypatch.setattr(files, "sync_file", sync)
        files.write_file(path, b"second")
        assert temporary.read_bytes() == b"the first one"
        sync(temporary)

    monkeypatch.setattr(files, "sync_file", interleave)
    files.write_file(path, b"the first one")
    assert written(tmp_path) == {"loss.svg": b"the first one"}


def test_every_file_is_on_disk_before_it_or_its_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def record(path: Path, *target: Path) -> None:
        done.append("renamed" if target else path.name.rpartition("-")[2])

    monkeypatch.setattr(files, "sync_file", record)
    monkeypatch.setattr(Path, "rename", record)
    monkeypatch.setattr(Path, "replace", record)
    files.write_folder(tmp_path / "out", CONTENTS)
    assert sorted(done[:2]) == ["meta.json", "train.bin"]
    files.write_file(tmp_path / "loss.svg", b"")
    assert done[2:] == ["renamed", "loss.svg", "renamed"]


# Leftovers of a killed process

KILLED = """
import os, sys
from pathlib import Path
from tinygpt_np.storage import files
os.fsync = lambda descriptor: os._exit(9)
if sys.argv[1] == "folder":
    files.write_folder(Path("out"), {"train.bin": b"12345678"})
files.write_file(Path("out"), b"12345678")
"""


def kill_while_writing(folder: Path, kind: str) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, kind], cwd=folder, timeout=SECONDS)
    assert result.returncode == 9
    (leftover,) = names(folder)
    assert leftover.startswith(files.TEMPORARY)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, kind: str) -> None:
    kill_while_writing(tmp_path, kind)
    if kind == "folder":
        files.write_folder(tmp_path / "out", CONTENTS)
    else:
        files.write_file(tmp_path / "out", b"whole")
    assert names(tmp_path) == ["out"]


def test_a_temporary_folder_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process cleans up before the writer has locked its folder.
    locked, cleaned = files.locked, list[Path]()

    def clean_first(path: Path) -> Any:
        if not cleaned:
            cleaned.append(path)
            path.rmdir()
        return locked(path)

    monkeypatch.setattr(files, "locked", clean_first)
    files.write_folder(tmp_path / "out", CONTENTS)
    assert cleaned
    assert written(tmp_path / "out") == CONTENTS


def test_writing_works_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_while_writing(tmp_path, "folder")
    monkeypatch.setattr(files, "fcntl", None)
    files.write_folder(tmp_path / "out", CONTENTS)
    assert written(tmp_path / "out") == CONTENTS
    assert len(names(tmp_path)) == 2


def test_a_folder_in_use_stays_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_folder(tmp_path / "old", CONTENTS)
    with monkeypatch.context() as busy:
        busy.setattr(Path, "rename", refuse)
        files.remove_folder(tmp_path / "old")
    assert written(tmp_path / "old") == CONTENTS
    files.remove_folder(tmp_path / "old")
    assert names(tmp_path) == []
