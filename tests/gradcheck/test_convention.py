"""The form of a pair of functions is told from what they return and take."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck import CheckError
from tinygpt_np.gradcheck.convention import Convention, convention

A, B, LOSS = np.ones(2), np.ones(3), np.float64(1)
SAVED = {"a": 1}


def taking(parameters: str) -> Callable[..., Any]:
    return eval(f"lambda {parameters}: 0")


# The result of forward, its arguments, those of backward, whether both are methods; then the form.
FORMS: list[tuple[Any, str, str | None, bool, tuple[bool, tuple[str, ...]]]] = [
    ((A, SAVED), "x", "dout, saved", False, (True, ("upstream", "saved"))),
    ((A, B), "x", "dout, saved", False, (True, ("upstream", "saved"))),
    ((A, SAVED), "x", "dout, saved, eps=1", False, (True, ("upstream", "saved"))),
    ((A, SAVED), "x", None, False, (True, ("upstream", "saved"))),
    # Several outputs
    (((A, B), SAVED), "x", "dout, saved", False, (True, ("upstream", "saved"))),
    (((A, B), SAVED), "x", "da, db, saved", False, (True, ("each", "saved"))),
    ((A, B, SAVED), "x", "dout, saved", False, (True, ("upstream", "saved"))),
    ((A, B, SAVED), "x", "da, db, saved", False, (True, ("each", "saved"))),
    (({"a": A, "b": B}, SAVED), "x", "da, db, saved", False, (True, ("each", "saved"))),
    # Saved values are kept elsewhere
    (A, "x", "dout", False, (False, ("upstream",))),
    (A, "xw", "dout, scale=1", True, (False, ("upstream",))),
    ((A, B), "x", "dout", False, (False, ("upstream",))),
    ((A, B), "x", "da, db", True, (False, ("each",))),
    ((A, B), "x", "da, cache", True, (True, ("upstream", "saved"))),
    ([A, B], "x", "da, db", False, (False, ("each",))),
    (A, "xw", "dout, x, w", False, (False, ("upstream", "args"))),
    # A scalar
    (LOSS, "x", "x", False, (False, ("args",))),
    (LOSS, "xy", "x, y", True, (False, ("args",))),
    (LOSS, "xy", "", True, (False, ())),
    (LOSS, "xy", "dout=1", True, (False, ("upstream",))),
    (LOSS, "x", "dout", True, (False, ("upstream",))),
    (LOSS, "xy", "dout, x, y", False, (False, ("upstream", "args"))),
]


@pytest.mark.parametrize(("returned", "names", "takes", "are_methods", "form"), FORMS)
def test_every_form_is_told_from_the_signature(
    returned: Any,
    names: str,
    takes: str | None,
    are_methods: bool,
    form: tuple[bool, tuple[str, ...]],
) -> None:
    backward = None if takes is None else taking(takes)
    assert convention(returned, backward, names, are_methods=are_methods) == Convention(*form)


def test_a_scalar_function_and_its_gradient_may_be_universal_functions() -> None:
    assert convention(LOSS, np.cos, "x") == Convention(False, ("args",))


def test_outputs_and_arguments_follow_the_form() -> None:
    each = Convention(True, ("each", "saved"))
    assert each.outputs((A, B, SAVED)) == (A, B)
    assert each.arguments({"a": 1, "b": 2}, (A, B, SAVED)) == [1, 2, SAVED]
    assert Convention(True, ("upstream", "saved")).outputs((A, SAVED)) is A
    assert Convention(False, ("upstream", "args")).arguments(3, A, [4, 5]) == [3, 4, 5]


def test_a_backward_that_fits_no_form_is_refused() -> None:
    for takes in ("", "dout", "a, b, c, d"):
        with pytest.raises(CheckError, match=rf"what forward saved, not \({takes}\)"):
            convention((A, SAVED), taking(takes), "x")
    with pytest.raises(CheckError, match=r"scalar, not \(2,\), or .* not \(da, db, saved\)"):
        convention(A, taking("da, db, saved"), "x")
    with pytest.raises(CheckError, match=r"scalar, not \(2,\), or its backward must take dout"):
        convention(A)
