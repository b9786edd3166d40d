"""Parse HTML pages for tests."""

from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """The words of a page, its open tags, the URLs it loads, and the labels of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.open = list[str](), list[str]()
        self.loaded, self.labels = list[str](), list[str]()
        self.feed(text)

    @property
    def text(self) -> str:
        """The words, separated by single spaces."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag; those without an end are not noted."""
        if tag not in ("img", "input", "meta"):
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag loads and how it is labelled."""
        values = {name: value or "" for name, value in attrs}
        links = [values[name] for name in ("src", "href") if name in values]
        self.loaded += [link for link in links if not link.startswith("#")]
        if values.get("role") == "img":
            self.labels.append(values["aria-label"])

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.words.append(data)


def html_of(result: Any) -> str:
    """Return what a notebook shows of a result."""
    return result._repr_html_()
