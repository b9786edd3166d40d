"""Notebooks: the cell that installs the package, and the files."""

import json
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers.optional import needs

from tinygpt_np.learn import cells
from tinygpt_np.learn.cells import Cell
from tinygpt_np.storage.files import FileError

COMMIT = "0123456789abcdef"
VCS = {"vcs_info": {"vcs": "git", "commit_id": COMMIT}, "url": "https://example.org/x.git"}
CELLS = [Cell("markdown", "# Title"), Cell("code", "x = 1")]


def installed_from(monkeypatch: pytest.MonkeyPatch, origin: object) -> None:
    """Let the package seem installed from there. None: no file says from where."""
    text = None if origin is None else json.dumps(origin)
    found = Mock(return_value=Mock(read_text=Mock(return_value=text)))
    monkeypatch.setattr(metadata, "distribution", found)


def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the first cell where the package is missing; return what it passes to pip."""
    monkeypatch.setattr(util, "find_spec", Mock(return_value=None))
    run = Mock()
    monkeypatch.setattr(subprocess, "run", run)
    exec(cells.install_cell(), {})
    ((command,), options) = run.call_args
    assert command[:5] == [sys.executable, "-m", "pip", "install", "--quiet"]
    assert options == {"check": True}
    return command[5:]


def test_a_package_that_came_from_a_repository_is_installed_from_the_same_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = f"tinygpt-np[learn] @ git+https://example.org/x.git@{COMMIT}"
    installed_from(monkeypatch, VCS)
    assert installs(monkeypatch) == [source]
    installed_from(monkeypatch, VCS | {"subdirectory": "sub"})
    assert installs(monkeypatch) == [f"{source}#subdirectory=sub"]


@pytest.mark.parametrize("origin", [None, {"url": "file:///home/x", "dir_info": {}}])
def test_any_other_package_is_installed_by_its_name(
    monkeypatch: pytest.MonkeyPatch, origin: object
) -> None:
    installed_from(monkeypatch, origin)
    assert installs(monkeypatch) == ["tinygpt-np[learn]"]


def test_a_package_that_is_not_installed_at_all_is_installed_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = metadata.PackageNotFoundError("tinygpt-np")
    monkeypatch.setattr(metadata, "distribution", Mock(side_effect=missing))
    assert installs(monkeypatch) == ["tinygpt-np[learn]"]


def test_the_first_cell_installs_nothing_where_the_package_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=AssertionError))
    exec(cells.install_cell(), {})


def test_a_notebook_is_valid_and_the_same_cells_make_the_same_file(tmp_path: Path) -> None:
    nbformat = needs("nbformat")
    first, second = tmp_path / "new" / "a.ipynb", tmp_path / "new" / "b.ipynb"
    cells.write_notebooks({first: CELLS, second: CELLS})
    book: Any = nbformat.read(first, as_version=4)
    nbformat.validate(book)
    assert [(cell.cell_type, cell.source) for cell in book.cells] == CELLS
    assert first.read_bytes() == second.read_bytes()


def test_no_notebook_is_written_if_one_of_them_exists(tmp_path: Path) -> None:
    needs("nbformat")
    first, second = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    second.write_text("mine")
    with pytest.raises(FileError, match=r"b\.ipynb exists already"):
        cells.write_notebooks({first: CELLS, second: CELLS})
    assert second.read_text() == "mine"
    assert not first.exists()
