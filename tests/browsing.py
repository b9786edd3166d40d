"""What the tests in a browser do again and again."""

from pathlib import Path
from typing import Any

Page = Any


def open_from_disk(page: Page, folder: Path, name: str = "softmax") -> None:
    page.goto((folder / f"{name}.html").as_uri())


def texts(page: Page, selector: str) -> list[str]:
    """The text of what a selector finds."""
    return [" ".join(text.split()) for text in page.locator(selector).all_text_contents()]


def focused(page: Page) -> Any:
    return page.evaluate("document.activeElement.dataset.name")


def plant(page: Page, after: str) -> None:
    page.click("text=Break it")
    page.select_option("#bug", label=after)
