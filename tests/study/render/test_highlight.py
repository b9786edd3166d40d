"""Tests of source lines as HTML, with the names that a page highlights."""

import re
from html import unescape

import pytest

from tinygpt_np.study.render.highlight import highlight

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
