"""Helpers for tests in a browser."""

from pathlib import Path
from typing import Any

Page = Any


def open_page(page: Page, folder: Path, name: str = "softmax") -> None:
    """Open a page from disk."""
    page.goto((folder / f"{name}.html").as_uri())


def texts(page: Page, selector: str) -> list[str]:
    """Return the texts of the elements that a selector finds."""
    return [" ".join(text.split()) for text in page.locator(selector).all_text_contents()]


def focused_name(page: Page) -> Any:
    """Return the variable name that has the focus."""
    return page.evaluate("document.activeElement.dataset.name")
