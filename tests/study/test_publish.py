"""tinygpt study --html, as a person uses it."""

import multiprocessing
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from cli.running import error_of, said
from own_layer import FORWARD, WRONG, WRONG_LINE, written

from tinygpt_np import cli
from tinygpt_np.compiled.waiting import StuckError, Workers
from tinygpt_np.study import book, publish, targets

pytestmark = pytest.mark.usefixtures("workplace")


def test_pages_are_written_to_a_new_folder(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "study", "linear", "--html", "pages")
    assert out.split() == ["written", "pages/linear.html"]
    assert "dproduct" in (workplace / "pages" / "linear.html").read_text(encoding="utf-8")


def test_pages_of_a_wrong_layer_are_written_and_exit_with_1(workplace: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", written(workplace, FORWARD + WRONG), "--html", "pages"])
    assert stop.value.code == 1
    assert len(list((workplace / "pages").glob("*.html"))) == 2


@pytest.mark.parametrize(
    "line",
    [
        "dx = dxhat * np.nan", "dx = dxhat / 0", "dx = dxhat.sum(axis=0)", "dx = None",
        "dx = dxhat @ dxhat", "dxhat = dxhat * 1e300 * 1e300; dx = dxhat",
    ],
)  # fmt: skip
def test_a_page_can_be_written_however_wrong_it_is(workplace: Path, line: str) -> None:
    text = FORWARD + WRONG.replace(WRONG_LINE, line)
    with pytest.raises(SystemExit) as stop, np.errstate(all="ignore"):
        cli.main(["study", written(workplace, text), "--html", "pages"])
    assert stop.value.code == 1
    assert len(list((workplace / "pages").glob("*.html"))) == 2


def test_pages_never_overwrite_anything(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "pages").mkdir()
    (workplace / "pages" / "notes.txt").write_text("mine", encoding="utf-8")
    message = error_of(capsys, "study", "linear", "--html", "pages")
    assert "pages is not empty" in message
    assert [path.name for path in (workplace / "pages").iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr("tinygpt_np.study.publish.pages", None)
    assert "cannot be made" in error_of(capsys, "study", "linear", "--html", "file/pages")


def test_work_that_is_stopped_leaves_no_empty_folder(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*anything: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(book, "write", stop)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "linear", "--html", "pages"])
    assert stopped.value.code == 130
    assert not (workplace / "pages").exists()


def test_several_pages_are_worked_out_in_processes_and_stand_in_order(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "NAMES", ("linear", "bigram"))
    assert said(capsys, "study", "--all", "--html", "pages").split() == [
        "written",
        "pages/index.html",
    ]
    index = (workplace / "pages" / "index.html").read_text(encoding="utf-8")
    assert index.index("linear.html") < index.index("bigram.html")


def test_the_bugs_planted_in_an_operation_are_on_its_page() -> None:
    assert len(publish.page_of(("dropout", None, 0))["bugs"]) > 5
    assert publish.page_of(("bigram", None, 0))["bugs"] == []


def test_a_worker_that_is_killed_ends_a_study() -> None:
    workers, pages = Workers(), Mock()
    workers.pids = {0}  # That of no process.
    pages.next.side_effect = multiprocessing.TimeoutError
    with pytest.raises(StuckError, match="a worker process has been killed"):
        publish.next_page(pages, workers)
