"""Fixtures: the pages of a study on disk, and a page in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.optional import needs
from helpers.study_targets import BACKWARD, FORWARD, edited, sheet, studied_target

from tinygpt_np.study.render import site
from tinygpt_np.study.render.page import Json, page_data
from tinygpt_np.study.render.questions import questions

CHROMIUM = Path("/usr/bin/chromium")
LOCAL = ("file://", "data:,")


@pytest.fixture(scope="session")
def pages() -> list[Json]:
    names = ("embedding", "softmax", "attention")
    operations = [
        page_data(studied_target(name), questions(studied_target(name).truth)) for name in names
    ]
    lacking = sheet(FORWARD + edited(BACKWARD, ("    dz += db * a\n", "")))
    return [*operations, page_data(studied_target("block"), []), page_data(lacking, [])]


@pytest.fixture(scope="session")
def folder(pages: list[Json], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "pages"
    site.write_files(path, pages)
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
    """Yield an empty page; it must not print to the console or request external files."""
    context = browser.new_context(**getattr(request, "param", {}))
    context.set_default_timeout(5000)
    page, problems = context.new_page(), list[str]()

    def check_request(request: Any) -> None:
        if not request.url.startswith(LOCAL):
            problems.append(request.url)

    def check_console(message: Any) -> None:
        problems.append(getattr(message, "text", None) or str(message))

    page.on("request", check_request)
    page.on("console", check_console)
    page.on("pageerror", check_console)
    yield page
    context.close()
    assert problems == []
