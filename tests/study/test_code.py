"""A source line as HTML: its colours, and the names that a page can light."""

import re
from html import unescape

import pytest

from tinygpt_np.study.code import DARK, LIGHT, code, rules

# Of study.css. How it is read on a tint, test_browser.py looks at.
PAPER = {LIGHT: "#ffffff", DARK: "#14171a"}


def names(html: str) -> list[tuple[str, str]]:
    """The marked names of a line, each with the key of its value."""
    found = re.findall(r'data-name="([^"]*)"(?: data-value="([^"]*)")?', html)
    return [(name, key) for name, key in found]


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_a_name_left_of_the_sign_stands_for_what_the_line_sets() -> None:
    html = code("x, block = f(x)", sets={"x": "x@9", "block": ""}, reads={"x": "x@7"})
    assert names(html) == [("x", "x@9"), ("block", ""), ("x", "x@7")]


def test_a_name_added_to_stands_for_what_it_then_is() -> None:
    html = code("dx += dmean", sets={"dx": "x"}, reads={"dx": "old", "dmean": "mean@0"})
    assert names(html) == [("dx", "x"), ("dmean", "mean@0")]


def test_a_method_is_no_name() -> None:
    html = code("mean = x.mean(axis=-1)", {"mean": "mean@0"}, {"mean": "m", "x": "x"})
    assert names(html) == [("mean", "mean@0"), ("x", "x")]


def test_the_name_of_an_argument_in_a_call_is_no_name() -> None:
    assert names(code("y = f(axis = axis)", {"y": ""}, {"axis": "a"})) == [("y", ""), ("axis", "a")]


def test_a_name_that_is_not_of_the_function_is_not_marked() -> None:
    assert names(code("y = np.exp(x)", {"y": ""}, {"x": "x"})) == [("y", ""), ("x", "x")]


def test_a_comparison_assigns_nothing() -> None:
    assert names(code("return a == b", {"a": "set"}, {"a": "read"})) == [("a", "read")]


def test_a_letter_of_two_bytes_moves_no_name() -> None:
    html = code("μ = a", sets={"μ": "μ@0", "a": "wrong"}, reads={"a": "a"})
    assert names(html) == [("μ", "μ@0"), ("a", "a")]


@pytest.mark.parametrize(
    "line",
    [
        'y = "<b>" + x[1:] & 3',
        "for layer in range(3): …",
        "def forward(x, weight)",
        'qkv = f(*self.affine(f"{h}.ln_1"))',
        "",
    ],
)
def test_the_text_of_a_line_stays_what_it_is(line: str) -> None:
    assert text(code(line)) == line


def test_what_stands_in_quotes_cannot_become_an_element() -> None:
    assert "<b>" not in code('x = "<b>"')


@pytest.mark.parametrize("style", [LIGHT, DARK])
def test_every_colour_of_the_code_can_be_read_on_its_paper(style: str) -> None:
    for rule in rules(style):
        # White space is not seen.
        if "Whitespace" not in rule:
            for color in re.findall(r"(?<!-)color: (#\w+)", rule):
                assert contrast(color, PAPER[style]) >= 4.5, rule


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
