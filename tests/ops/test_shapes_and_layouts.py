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

steady = settings(deadline=None, derandomize=True, max_examples=30)

everywhere = pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, id=f"{name}-{backend}")
        for name in VARIANTS
        for backend in backends.BACKENDS
    ],
)


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def within(array: np.ndarray, step: int) -> np.ndarray:
    """Return the values as every step-th element of an array that is NaN or huge elsewhere."""
    poison: Any = np.nan if np.issubdtype(array.dtype, np.floating) else 1 << 40
    larger = np.full([step * size + 2 for size in array.shape], poison, array.dtype)
    view = larger[(..., *(slice(1, 1 + step * size, step) for size in array.shape))]
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
    "slice": lambda array: within(array, 1),
    "strided": lambda array: within(array, 2),
    "unaligned": unaligned,
}


def check_layouts(
    name: str,
    layouts: dict[str, str],
    *,
    dtype: str = "float64",
    backend: str = "numpy",
    seed: int = 0,
    sizes: dict[str, int] | None = None,
) -> None:
    """Assert that output and gradients are the same as for contiguous arguments.

    layouts: by argument name, and "dout" for the upstream gradient; the others are contiguous.
    """
    chosen = case(name, seed, sizes)
    check = chosen.check(dtype=dtype, backend=backend)
    module = getattr(backends.load(backend), chosen.operation)
    names = [name for name in ("backward", "backward_steps") if hasattr(module, name)]
    arrays = list(chosen.arrays)

    def results(layouts: dict[str, str]) -> dict[str, np.ndarray]:
        args = check.args | {
            n: LAYOUTS[layouts.get(n, "contiguous")](check.args[n]) for n in arrays
        }
        doutput = LAYOUTS[layouts.get("dout", "contiguous")](check.doutput)
        found = {"the output": check.forward(**args)[0]}
        for backward in names:
            gradients = check.gradients(getattr(module, backward), args, doutput)
            found |= {f"d{argument} of {backward}": each for argument, each in gradients.items()}
        return found

    expected = results({})
    for what, found in results(layouts).items():
        # Another layout may change the order of summing at most 81 terms of order one; a value
        # read from a wrong place changes the result by order one.
        size = max(1.0, float(np.abs(expected[what]).max()))
        atol = 100 * size * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(found, expected[what], rtol=0, atol=atol, err_msg=what)


@st.composite
def points(draw: st.DrawFn, name: str, backend: str) -> dict[str, Any]:
    """Draw the arguments of check_operation and check_layouts; sizes from 1 to 9, or to 4."""
    # The other backends are float32 only.
    dtypes = ("float64", "float32") if backend == "numpy" else ("float32",)
    # Few seeds, with none of which a single element is where GELU is only rounding.
    dtype, seed = draw(st.sampled_from(dtypes)), draw(st.integers(0, 9))
    letters = VARIANTS[name].letters
    # Every element is checked, and four sizes make many.
    sizes_of_one = range(1, 10) if len(letters) < 4 else range(1, 5)
    sizes = {letter: draw(st.sampled_from(sizes_of_one)) for letter in letters}
    # Two sizes are equal in about half of the calls, because some bugs show only there.
    one, other = draw(st.sampled_from([*itertools.combinations_with_replacement(letters, 2)]))
    sizes[other] = sizes[one]
    return {"dtype": dtype, "backend": backend, "seed": seed, "sizes": sizes}


def layouts(name: str) -> st.SearchStrategy[dict[str, str]]:
    """Draw a layout for each array of a variant; contiguous ones are omitted."""
    drawn = {argument: st.sampled_from(list(LAYOUTS)) for argument in (*case(name).arrays, "dout")}
    return st.fixed_dictionaries(drawn).map(
        lambda found: {a: layout for a, layout in found.items() if layout != "contiguous"}
    )


@everywhere
@steady
@given(st.data())
def test_gradients_are_right_at_all_sizes(name: str, backend: str, data: st.DataObject) -> None:
    point = data.draw(points(name, backend))
    reports = check_operation(name, **point)
    if not all(report.ok for report in reports):
        raise AssertionError("\n".join(["", *map(str, reports)]))


@everywhere
@steady
@given(st.data())
def test_output_and_gradients_do_not_depend_on_the_layout(
    name: str, backend: str, data: st.DataObject
) -> None:
    found, point = data.draw(layouts(name)), data.draw(points(name, backend))
    check_layouts(name, found, **point)
