"""The pages of a study, opened from disk in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.optional import needs

from tinygpt_np.study import book, bugs, targets
from tinygpt_np.study.page import Json
from tinygpt_np.study.page import page as page_of
from tinygpt_np.study.sheet import study

CHROMIUM = Path("/usr/bin/chromium")
HERE = ("file://", "data:,")


@pytest.fixture(scope="session")
def pages() -> list[Json]:
    planted = {name: list(bugs.bugs(name)) for name in ("softmax", "embedding")}
    names = ("softmax", "embedding", "block")
    return [page_of(study(targets.named(name)), planted.get(name, [])) for name in names]


@pytest.fixture(scope="session")
def folder(pages: list[Json], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "pages"
    book.write(path, pages)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = needs("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that must not complain, nor ask for anything from elsewhere."""
    context = browser.new_context(**getattr(request, "param", {}))
    context.set_default_timeout(5000)
    page, complaints = context.new_page(), list[str]()

    def look_at(request: Any) -> None:
        if not request.url.startswith(HERE):
            complaints.append(request.url)

    def note(message: Any) -> None:
        complaints.append(getattr(message, "text", None) or str(message))

    page.on("request", look_at)
    page.on("console", note)
    page.on("pageerror", note)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "180")
    return tmp_path
