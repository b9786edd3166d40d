"""The gradients of every operation in every backend, at random sizes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np import backend as backends
from tinygpt_np.gradcheck.cases import VARIANTS, check_operation


# The checks of tinygpt gradcheck, at fixed sizes and four layouts, are the everyday ones.
@pytest.mark.slow
@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("name", VARIANTS)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.data())
def test_gradients_are_right_at_all_sizes(name: str, backend: str, data: st.DataObject) -> None:
    # The other backends are float32 only.
    dtype = data.draw(st.sampled_from(["float64", "float32"])) if backend == "numpy" else "float32"
    letters = VARIANTS[name].letters
    # Every element is checked, and four sizes make many.
    most = 9 if len(letters) < 4 else 4
    sizes = {letter: data.draw(st.integers(1, most)) for letter in letters}
    # Two sizes are equal in about half of the calls, because some bugs show only there.
    pairs = [*itertools.combinations_with_replacement(letters, 2)]
    one, other = data.draw(st.sampled_from(pairs))
    sizes[other] = sizes[one]
    # Few seeds, with none of which a single element is where GELU is only rounding.
    seed = data.draw(st.integers(0, 9))
    for report in check_operation(name, dtype=dtype, backend=backend, seed=seed, sizes=sizes):
        assert report.ok, report
