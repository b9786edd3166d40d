"""Tests of source lines as HTML: their colours, and the names that a page highlights."""

import re
from html import unescape

import pytest

from tinygpt_np.study.render.highlight import DARK, LIGHT, highlight, rules

# The backgrounds in study.css. test_browser.py checks the contrast on coloured backgrounds.
PAPER = {LIGHT: "#ffffff", DARK: "#14171a"}
# A line, the keys of the names that it sets and reads, and the names that are marked.
NAMES: list[tuple[str, dict[str, str], dict[str, str], list[tuple[str, str]]]] = [
    (
        "x, block = f(x)", {"x": "x@9", "block": ""}, {"x": "x@7"},
        [("x", "x@9"), ("block", ""), ("x", "x@7")],
    ),
    ("dx += dm", {"dx": "x"}, {"dx": "old", "dm": "m@0"}, [("dx", "x"), ("dm", "m@0")]),
    ("mean = x.mean()", {"mean": "m@0"}, {"mean": "m", "x": "x"}, [("mean", "m@0"), ("x", "x")]),
    ("y = f(axis = axis)", {"y": ""}, {"axis": "a"}, [("y", ""), ("axis", "a")]),
    ("return a == b", {"a": "set"}, {"a": "read"}, [("a", "read")]),
    ("μ = a", {"μ": "μ@0", "a": "wrong"}, {"a": "a"}, [("μ", "μ@0"), ("a", "a")]),
    ('y = "<b>" + x[1:] & 3', {}, {}, []),
    ("for layer in range(3): …", {}, {}, []),
    ('qkv = f(*self.affine(f"{h}.ln_1"))', {}, {}, []),
    ("", {}, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sets", "reads", "marked"), NAMES)
def test_a_variable_has_the_key_of_the_value_that_the_line_sets_or_reads(
    line: str, sets: dict[str, str], reads: dict[str, str], marked: list[tuple[str, str]]
) -> None:
    html = highlight(line, sets, reads)
    assert re.findall(r'data-name="([^"]*)"(?: data-value="([^"]*)")?', html) == marked
    assert "<b>" not in html
    assert unescape(re.sub(r"<[^>]*>", "", html)) == line


@pytest.mark.parametrize("style", [LIGHT, DARK])
def test_every_colour_of_the_code_has_enough_contrast(style: str) -> None:
    for rule in rules(style):
        # White space is invisible.
        if "Whitespace" not in rule:
            for color in re.findall(r"(?<!-)color: (#\w+)", rule):
                assert contrast(color, PAPER[style]) >= 4.5, rule


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as defined by WCAG 2, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
