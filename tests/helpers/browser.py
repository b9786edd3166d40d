"""Helpers for tests in a browser, and its fixtures, which a conftest.py imports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.optional import needs

CHROMIUM = Path("/usr/bin/chromium")
LOCAL = ("file://", "data:")

Page = Any

# Find the visible text with the lowest contrast to its background.
CONTRASTS = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255, 255];
  };
  const worst = {ratio: 21};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !element.getClientRects().length || element.closest("svg, script")) continue;
    const [a, b] = [rgba(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) Object.assign(worst, {ratio, text: element.textContent.slice(0, 40)});
  }
  return worst;
}"""


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


def open_page(page: Page, folder: Path, name: str = "softmax") -> None:
    """Open a page from disk."""
    page.goto((folder / f"{name}.html").as_uri())


def texts(page: Page, selector: str) -> list[str]:
    """Return the texts of the elements that a selector finds."""
    return [" ".join(text.split()) for text in page.locator(selector).all_text_contents()]


def focused_name(page: Page) -> Any:
    """Return the variable name that has the focus."""
    return page.evaluate("document.activeElement.dataset.name")


def lowest_contrast(page: Page) -> Any:
    """Return the text with the lowest contrast to its background, and the ratio."""
    return page.evaluate(CONTRASTS)
