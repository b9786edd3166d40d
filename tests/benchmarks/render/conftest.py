"""Fixtures: a page in a real browser."""

from helpers.browser import browser, page

__all__ = ["browser", "page"]
