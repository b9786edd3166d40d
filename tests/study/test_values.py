"""What a page shows of one value."""

import json

import numpy as np

from tinygpt_np.study.trace import Value
from tinygpt_np.study.values import SHOWN, array, difference, key, number


def test_a_large_array_has_its_norm_alone() -> None:
    large = array(np.ones(SHOWN + 1))
    assert large is not None
    assert large["numbers"] is None
    assert large["norm"] == float(np.linalg.norm(np.ones(SHOWN + 1)))


def test_a_number_that_is_not_finite_is_none() -> None:
    found = array(np.array([1.0, np.inf]))
    assert found is not None
    assert (found["numbers"], found["norm"]) == ([1.0, None], None)


def test_a_value_is_called_by_its_name_and_the_step_that_sets_it() -> None:
    assert key(Value("x", -1)) == "x"
    assert key(Value("x", 7)) == "x@7"


def test_a_difference_is_taken_before_it_is_rounded() -> None:
    exact, found = np.array([1.0, 1e6]), np.array([1.0, 1e6 + 1e-3])
    shown = difference(found, exact)
    assert shown is not None
    assert shown["numbers"] == [0.0, 0.001]


def test_arrays_of_two_shapes_have_no_difference() -> None:
    assert difference(np.ones(3), np.ones((3, 1))) is None
    assert difference(None, np.ones(3)) is None


def test_what_is_not_finite_is_none_since_json_has_no_word_for_it() -> None:
    assert [number(x) for x in (np.inf, -np.inf, np.nan, 0.5)] == [None, None, None, 0.5]
    json.dumps(array(np.array([np.nan, np.inf])), allow_nan=False)
