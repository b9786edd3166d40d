"""Every operation in every backend, at random sizes and with random memory layouts."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np import backend as backends
from tinygpt_np.gradcheck.cases import VARIANTS, case, check_operation

# The checks of tinygpt gradcheck, at fixed sizes and four layouts, are the everyday ones.
pytestmark = pytest.mark.slow


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def strided(array: np.ndarray) -> np.ndarray:
    """Return the values as every second element of an array that is NaN or huge elsewhere."""
    poison: Any = np.nan if np.issubdtype(array.dtype, np.floating) else 1 << 40
    larger = np.full([2 * size + 2 for size in array.shape], poison, array.dtype)
    view = larger[(..., *(slice(1, 1 + 2 * size, 2) for size in array.shape))]
    view[...] = array
    return view


def unaligned(array: np.ndarray) -> np.ndarray:
    """Return a copy that starts at an odd address."""
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    copy = raw[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


# The simplest first, because Hypothesis ends there if the layout does not matter.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": lambda array: array.copy(),
    "read-only": read_only,
    "Fortran": lambda array: array.copy(order="F"),
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "strided": strided,
    "unaligned": unaligned,
}


@st.composite
def points(draw: st.DrawFn, name: str, backend: str) -> dict[str, Any]:
    """Draw the arguments of check_operation; sizes from 1 to 9, or to 4."""
    # The other backends are float32 only.
    dtypes = ("float64", "float32") if backend == "numpy" else ("float32",)
    # Few seeds, with none of which a single element is where GELU is only rounding.
    dtype, seed = draw(st.sampled_from(dtypes)), draw(st.integers(0, 9))
    letters = VARIANTS[name].letters
    # Every element is checked, and four sizes make many.
    most = 9 if len(letters) < 4 else 4
    sizes = {letter: draw(st.integers(1, most)) for letter in letters}
    # Two sizes are equal in about half of the calls, because some bugs show only there.
    one, other = draw(st.sampled_from([*itertools.combinations_with_replacement(letters, 2)]))
    sizes[other] = sizes[one]
    return {"dtype": dtype, "backend": backend, "seed": seed, "sizes": sizes}


@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("name", VARIANTS)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.data())
def test_gradients_are_right_at_all_sizes_and_in_all_layouts(
    name: str, backend: str, data: st.DataObject
) -> None:
    point = data.draw(points(name, backend))
    for report in check_operation(name, **point):
        assert report.ok, report
    chosen = case(name, point["seed"], point["sizes"])
    check = chosen.check(dtype=point["dtype"], backend=backend)
    module = getattr(backends.load(backend), chosen.operation)
    names = [each for each in ("backward", "backward_steps") if hasattr(module, each)]

    def results(lay_out: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        args = check.args | {each: lay_out(check.args[each]) for each in chosen.arrays}
        found = {"the output": check.forward(**args)[0]}
        for backward in names:
            gradients = check.gradients(getattr(module, backward), args, lay_out(check.doutput))
            found |= {f"d{argument} of {backward}": each for argument, each in gradients.items()}
        return found

    expected = results(LAYOUTS["contiguous"])
    found = results(lambda array: LAYOUTS[data.draw(st.sampled_from([*LAYOUTS]))](array))
    for what, array in found.items():
        # Another layout may change the order of summing at most 81 terms of order one; a value
        # read from a wrong place changes the result by order one.
        size = max(1.0, float(np.abs(expected[what]).max()))
        atol = 100 * size * float(np.finfo(point["dtype"]).eps)
        np.testing.assert_allclose(array, expected[what], rtol=0, atol=atol, err_msg=what)
