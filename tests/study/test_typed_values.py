"""The shapes that a typed line will have are those of NumPy, and its values are kept from harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.contract import SavedValues
from tinygpt_np.study.typed_values import (
    FUNCTIONS,
    KINDS,
    METHODS,
    Refused,
    Shape,
    broadcast,
    fresh,
    product_shape,
    read_only,
)

steady = settings(deadline=None, derandomize=True, max_examples=200)
SHAPES = st.lists(st.integers(1, 3), max_size=4).map(tuple)


@steady
@given(SHAPES, SHAPES)
def test_shapes_meet_as_in_numpy(a: Shape, b: Shape) -> None:
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(Refused, match="differ, and neither is 1"):
            broadcast([a, b], "a + b")
    else:
        assert broadcast([a, b], "a + b") == expected


@steady
@given(SHAPES, SHAPES)
def test_a_product_has_the_shape_that_numpy_gives_it(a: Shape, b: Shape) -> None:
    try:
        expected = np.shape(np.ones(a) @ np.ones(b))
    except ValueError:
        with pytest.raises(Refused):
            product_shape(a, b, "a @ b")
    else:
        assert product_shape(a, b, "a @ b") == (expected, a[-1])


def test_every_parameter_is_of_a_kind() -> None:
    for function in (*FUNCTIONS.values(), *METHODS.values()):
        parameters = f"{function.required} {function.optional}".replace("*", "").split()
        assert {*parameters} <= {*KINDS}


def test_an_array_inside_what_was_saved_cannot_be_written_to() -> None:
    saved = SavedValues([(np.ones(3), None), [np.ones(2)]])
    saved.operation, saved.shape = "softmax", (3,)
    kept = read_only(saved)
    assert (kept.operation, kept.shape, kept[0][1]) == ("softmax", (3,), None)
    for array in (kept[0][0], kept[1][0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


def test_a_copy_keeps_the_layout() -> None:
    array = np.ones((2, 3, 4)).swapaxes(0, 2)
    assert fresh(array).strides == array.strides
