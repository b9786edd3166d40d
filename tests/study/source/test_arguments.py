"""Tests of drawing arguments from descriptions."""

import re
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.tree import leaves
from tinygpt_np.study.source.arguments import draw_arguments
from tinygpt_np.study.source.parse import StudyError


def drawn(text: str, docstring: str = "", seed: int = 0, defaults: str = "") -> dict[str, Any]:
    """Draw the arguments called a to f of a function with a docstring."""
    names = [name for name in "abcdef" if re.search(rf"\b{name}\b", f"{text} {docstring}")]
    module: dict[str, Any] = {}
    exec(f"def forward({', '.join(names)}{defaults}): pass", module)
    module["forward"].__doc__ = docstring
    return draw_arguments([module["forward"]], "own.py", text, seed)[0]


def shapes(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: np.shape(leaf) for name, leaf in leaves(arguments).items()}


def test_each_letter_has_one_size_and_all_sizes_differ() -> None:
    found = shapes(drawn("a (N, C), b (C, 4H), c (Q, 3), d (..., 2E), e (), f (F, HH, WW, H, W)"))
    N, C = found["a"]
    four_h, (Q, three), (*_, two_e) = found["b"][1], found["c"], found["d"]
    F, HH, WW, H, W = found["f"]
    assert (found["b"][0], four_h, three, found["e"]) == (C, 4 * H, 3, ())
    assert len({N, C, H, Q, F, W, two_e // 2}) == 7
    assert HH < H
    assert WW < W


@pytest.mark.parametrize("seed", range(20))
def test_one_id_repeats_and_one_does_not_occur(seed: int) -> None:
    found = drawn("a (N,) integers in [0, V), b (V, C), c (B, T) integers in [0, 4)", seed=seed)
    for ids, end in ((found["a"], len(found["b"])), (found["c"], 4)):
        assert ids.min() >= 0
        assert ids.max() < end
        counts = np.bincount(ids.ravel(), minlength=end)
        assert counts.max() >= 2
        assert counts.min() == 0


def test_targets_are_ignored_where_this_is_allowed() -> None:
    found = drawn("a (N,) integers in [0, V) or -1, b (N,) integers in [0, V)")
    assert 0 < (found["a"] == -1).sum() < len(found["a"])
    assert (found["b"] >= 0).all()


def test_masks_ranges_constants_and_dicts_are_drawn_as_described() -> None:
    found = drawn("a (N, T) booleans, b (N,) in (0, 1), c {d (N,), g {f (N, C)}}, d 'train', f 2.5")
    assert found["a"].dtype == bool
    assert 0 < found["a"].mean() < 1
    assert 0 < found["b"].min() < found["b"].max() < 1
    assert (found["d"], found["f"]) == ("train", 2.5)
    nested = {name: shape for name, shape in shapes(found).items() if name.startswith("c")}
    assert nested == {"c['d']": (6,), "c['g']['f']": (6, 8)}


# The docstring, and the arguments that it describes.
STYLES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "ops": ("a (N, C), b (C,) or None -> out (N, C)", {"a": (6, 8), "b": (8,)}),
    "numpydoc": (
        "Do.\n\nParameters\n----------\na : ndarray of shape (N, C)\n    Data.\nb : array (C,)\n"
        "\nReturns\n-------\nout : ndarray (V, V)",
        {"a": (6, 8), "b": (8,)},
    ),
    "Google": ("Do.\n\nArgs:\n    a (np.ndarray): data, shape (N, C)\n    b (array, (C, K)): b",
               {"a": (6, 8), "b": (8, 7)}),
    "a list": (
        "Inputs:\n- a: Input data, of shape (N, C, H, W)\n- b: Filters of\n  shape (F, C, 3, 3)\n"
        "Returns a tuple of:\n- out: Output (N, F, H, W)",
        {"a": (6, 8, 4, 9), "b": (10, 8, 3, 3)},
    ),
    "in words": (
        "a -- data, array of shape (size of input, number of examples)\nb -- (size of input, 1)",
        {"a": (9, 10), "b": (9, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_of_many_styles_are_read(style: str) -> None:
    docstring, expected = STYLES[style]
    assert shapes(drawn("", docstring)) == expected


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("- a: Vector of labels, of shape (N,) where\n  0 <= a[i] < V", 11),
        ("a : ndarray of shape (N, T)\n    Integers in [0, V)", 11),
        ("a (np.ndarray): ids of shape (N, T) in the range [0, 4 - 1]", 4),
    ],
)
def test_integers_are_recognized_in_docstrings(text: str, end: int) -> None:
    found = drawn("", text)["a"]
    assert found.dtype.kind == "i"
    assert found.max() < end
    ignoring = drawn("", f"{text}; -1 is ignored")["a"]
    assert (ignoring == -1).any()


def test_args_complete_and_replace_the_docstring() -> None:
    found = shapes(drawn("b (C,), c 3", "a (N, C), b (K,)", defaults=", d=4"))
    assert found == {"a": (6, 8), "b": (8,), "c": (), "d": ()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is no description of an argument"),
        ("a (N, C", "'a (N, C' is no description"),
        ("a of shape (N, C)", "'a of shape (N, C)' is no description"),
        ("a (N,), a (N,)", "a is described twice"),
        ("a (N,), x (N,)", "there is no argument x"),
        ("", "not described: a"),
    ],
)
def test_what_is_not_described_is_refused(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        drawn(text, "a is not described here")
