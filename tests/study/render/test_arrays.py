"""Arrays are drawn so that shapes, indices and values can be read."""

import io
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console, Group

from tinygpt_np.study.render.arrays import LINES, array, drawn

rng = np.random.default_rng(8)


def lines(numbers: np.ndarray, width: int = 80) -> list[str]:
    return [line for part in drawn(numbers, width) for line in part.plain.splitlines()]


def test_an_array_has_its_name_shape_and_norm() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(Group(*array("x", np.array([3.0, 4.0]), 60)))
    assert out.getvalue().splitlines()[0].rstrip() == "x  2, norm 5"
    assert "    [3. 4.]" in out.getvalue()


def test_a_heat_map_is_denser_for_larger_numbers() -> None:
    numbers = np.tile([0.0, 0.3, -0.5, 0.7, 1.0], (8, 1))
    assert lines(numbers)[1] == " · ░-▒ ▓ █"
    assert lines(numbers)[0].startswith("from -0.5 to 1, mean 0.3")
    assert lines(np.tile([np.nan, 1.0, np.inf], (13, 1)))[1] == "?? █??"


def test_what_does_not_fit_is_left_out_and_counted() -> None:
    first = lines(np.ones((2, 100)), width=40)[1]
    assert first.endswith("…")
    assert len(first) <= 40
    assert f"… {50 - LINES} more rows" in lines(np.ones((50, 2)))
    assert lines(np.ones((40, 10, 4)), width=60)[-2].endswith("more slices")


def test_a_mask_is_drawn_as_filled_and_empty_fields() -> None:
    assert lines(np.tri(3, dtype=bool)) == [" █ · ·", " █ █ ·", " █ █ █", "█ true, · false"]


@pytest.mark.parametrize("kind", [float, int, bool])
def test_the_slices_of_an_array_with_four_axes_have_their_indices(kind: type) -> None:
    numbers: Any = (10 * rng.standard_normal((2, 2, 3, 4))).astype(cast(Any, kind))
    found = lines(numbers, 100)
    labels = next(line for line in found if "[0, 0]" in line)
    assert labels.split("   ")[0] == "[0, 0]"
    assert all(f"[{i}, {j}]" in labels for i in range(2) for j in range(2))
    assert max(map(len, found)) <= 100
    # Narrower, the slices are below each other.
    assert sum("[" in line and "," in line for line in lines(numbers > 0, 14)) == 4


def test_numbers_and_texts_are_printed() -> None:
    assert lines(np.array(2.5)) == ["2.5"]
    assert lines(np.arange(6).reshape(2, 3)) == ["[[0 1 2]", " [3 4 5]]"]
    assert lines(np.array(["a", "b"])) == ["['a' 'b']"]
