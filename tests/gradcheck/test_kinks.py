# pyright: basic
"""Kinks are found by how the slope changes, and have derivatives from both sides."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.kinks import KinkFinder
from tinygpt_np.gradcheck.oracles import EPS

Function = Callable[[Any], Any]
SAFE, DIFFERENCES = KinkFinder(True, EPS), KinkFinder(False, EPS)


def curve(function: Function) -> Function:
    return lambda t: np.atleast_1d(function(t))


KINKS: list[Function] = [
    lambda t: 1 + 2 * t + 30 * t * t - 1e-3 * np.maximum(t, 0),
    # The curvature changes the slope as well.
    lambda t: np.maximum(t, 0) + 6e4 * t * t,
    # One small term among large ones.
    lambda t: np.array([1e6 * t, 1e-6 * np.maximum(t, 0)]),
]
NO_KINKS: list[Function] = [
    # A steep and crooked curve, rounding of a large loss, a power.
    lambda t: 1e6 * t + 1e5 * t * t,
    lambda t: 1e12 + np.sin(1 + t),
    lambda t: t * t * t,
]


def test_a_slope_that_changes_at_once_is_a_kink() -> None:
    for finder in (SAFE, DIFFERENCES):
        assert [finder.suspects(curve(each)) for each in KINKS] == [True] * 3
        assert [finder.suspects(curve(each)) for each in NO_KINKS] == [False] * 3
    # Narrow bends are smooth for the complex step, which looks closer.
    assert not SAFE.suspects(curve(lambda t: np.sqrt(t * t + 1e-20)))
    assert DIFFERENCES.suspects(curve(lambda t: np.abs(t)))
    assert DIFFERENCES.suspects(curve(lambda t: np.floor(t)))


def test_a_kink_within_rounding_of_the_dtype_counts() -> None:
    single = KinkFinder(True, float(np.finfo("float32").eps))
    near = curve(lambda t: np.maximum(t, 1e-7))
    assert single.suspects(near)
    assert not SAFE.suspects(near)


SIDED: list[tuple[Function, float, float]] = [
    (lambda t: 3 * np.maximum(t, 0) + np.sin(t), 1, 4),
    (lambda t: np.maximum(np.exp(t), np.exp(-2 * t)), -2, 1),
    (lambda t: np.where(np.real(t) < 0, 5 + 2 * t, t * t), 2, 0),
]


@pytest.mark.parametrize("number", range(len(SIDED)))
def test_the_derivatives_from_both_sides_are_precise(number: int) -> None:
    function, left, right = SIDED[number]
    for finder, near in ((SAFE, 1e-14), (DIFFERENCES, 1e-10)):
        sides = finder.sides(curve(function))
        assert sides.differ
        assert sides.left.value == pytest.approx(left, rel=near, abs=near)
        assert sides.right.value == pytest.approx(right, rel=near, abs=near)


def test_a_jump_does_not_count_and_the_edge_of_the_domain_has_one_side() -> None:
    for finder in (SAFE, DIFFERENCES):
        jump = finder.sides(curve(lambda t: np.where(np.real(t) < 0, 7.0, 0.0) + 2 * t))
        assert not jump.differ
        assert jump.left.value == pytest.approx(2)
        edge = finder.sides(curve(lambda t: t + 0 * np.sqrt(t)))
        assert not edge.differ
        assert edge.left.value == pytest.approx(1)
        nowhere = finder.sides(curve(lambda t: t * math.nan))
        assert math.isnan(nowhere.left.value)
