"""Every command runs in a folder of its own, with a text and, if asked for, a trained run in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import train_tiny
from helpers.tiny_run import TEXT

from tinygpt_np.training import metrics


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """Train without plots, which take most of the time."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(metrics, "plot_losses", lambda run: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder with a text in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that is trained once per process."""
    place = tmp_path_factory.mktemp("trained")
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(place)
        train_tiny()
    return place / "runs" / "cpu"


@pytest.fixture
def run(folder: Path, trained: Path) -> Path:
    """Return a copy of that run, runs/cpu in the working folder."""
    return Path(shutil.copytree(trained, folder / "runs" / "cpu"))
