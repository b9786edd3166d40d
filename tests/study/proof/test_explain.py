"""The explanation of wrong gradients: the first mistake, and the cause of each gradient."""

from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.mutations import sites
from tinygpt_np.study.proof import explain as explaining
from tinygpt_np.study.proof.explain import cause_of_bug, explain

rng = np.random.default_rng(0)
ARGS = {"x": rng.standard_normal((3, 4)), "w": rng.standard_normal((4, 5))}


def forward(x: np.ndarray, w: np.ndarray) -> tuple[Any, ...]:
    product = x @ w
    y = np.tanh(product)
    return y, (x, w, y)


def two_mistakes(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
    x, w, y = saved
    dproduct = dy * (1 - y * y)
    dx = dproduct @ w.T / 2
    dw = -x.T @ dproduct
    return dx, dw


def one_mistake(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
    x, w, y = saved
    dproduct = dy * (1 - y)
    dx = dproduct @ w.T
    dw = x.T @ dproduct
    return dx, dw


def residual(x: np.ndarray) -> tuple[Any, ...]:
    v = np.tanh(x)
    y = x + v
    return y, v


def no_residual(dy: np.ndarray, v: np.ndarray) -> np.ndarray:
    dv = dy
    dx = dv * (1 - v * v)
    return dx


def test_each_gradient_gets_the_cause_of_the_mistake_that_it_depends_on() -> None:
    found = explain(forward, two_mistakes, ARGS, ("x", "w"), 0)
    assert found is not None
    assert found.where.startswith("test_explain.py, line ")
    assert found.where.endswith(": dx = dproduct @ w.T / 2")
    assert found.causes["x"].startswith("a factor too many: leave out `/ 2`")
    assert found.causes["w"] == "the sign is wrong: leave out the minus sign"
    found = explain(forward, one_mistake, ARGS, ("x", "w"), 0)
    assert found is not None
    assert {*found.causes.values()} == {"a factor is missing: multiply `y` by `y`"}


def test_a_missing_path_is_the_cause() -> None:
    found = explain(residual, no_residual, {"x": ARGS["x"]}, ("x",), 0)
    assert found is not None
    assert found.causes["x"].startswith("a path is missing: dx lacks the part through line ")
    assert found.causes["x"].endswith(", y = x + v")


@pytest.mark.parametrize("limit", [0, explaining.MAX_ELEMENTS])
def test_what_cannot_be_studied_or_is_large_is_not_explained(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(explaining, "MAX_ELEMENTS", limit)
    wrong: Any = one_mistake if limit == 0 else np.negative
    assert explain(forward, wrong, ARGS, ("x", "w"), 0) is None


def test_a_right_backward_is_not_explained() -> None:
    def right(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
        x, w, y = saved
        dproduct = dy * (1 - y * y)
        return dproduct @ w.T, x.T @ dproduct

    assert explain(forward, right, ARGS, ("x", "w"), 0) is None


def test_a_planted_bug_has_the_cause_of_its_proof() -> None:
    site = next(site for site in sites() if site.operation == "dropout")
    mutation = next(m for m in site.mutations() if m.kind == "sign")
    assert cause_of_bug(site, mutation, 0) == "the sign is wrong: leave out the minus sign"
