"""The check asks study, a higher layer, where a wrong backward has its mistake, and why."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tinygpt_np import hooks
from tinygpt_np.gradcheck.check import check

X, W = np.random.default_rng(0).standard_normal((2, 5, 5))
ARGS = {"x": X[:, :4], "w": W[:4]}


def forward(x: np.ndarray, w: np.ndarray) -> tuple[Any, ...]:
    product = x @ w
    y = np.tanh(product)
    return y, (x, w, y)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
    x, w, y = saved
    dproduct = dy * (1 + y * y)
    return dproduct @ w.T, x.T @ dproduct


def test_a_check_names_the_wrong_line_and_its_cause() -> None:
    report = check(forward, backward, ARGS)
    (note, *_) = report.notes
    assert note.startswith("the first mistake is in test_hooks.py, line ")
    assert note.endswith("dproduct = dy * (1 + y * y)")
    said = "the sign is wrong: write `1 - y * y` for `1 + y * y`"
    assert [row.cause for row in report.rows] == [said, said]
    assert f"likely cause: {said}" in str(report)


def test_without_an_explanation_the_values_show_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tripled(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
        x, w, y = saved
        dproduct = dy * (1 - y * y) * 3
        return dproduct @ w.T, x.T @ dproduct

    monkeypatch.setattr(hooks, "explain", hooks.unexplained)
    report = check(forward, tripled, ARGS)
    assert {row.cause for row in report.rows} == {"too large by a factor of 3"}
    assert report.notes == ()


def test_a_right_backward_needs_no_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    def right(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[Any, ...]:
        x, w, y = saved
        dproduct = dy * (1 - y * y)
        return dproduct @ w.T, x.T @ dproduct

    def fails(*args: Any) -> None:
        pytest.fail("not needed")

    monkeypatch.setattr(hooks, "explain", fails)
    assert check(forward, right, ARGS).ok


def test_the_hooks_are_set_without_importing_study() -> None:
    code = (
        "import sys; import tinygpt_np.gradcheck; from tinygpt_np import hooks\n"
        "assert 'tinygpt_np.study' not in sys.modules\n"
        "assert hooks.explain is not hooks.unexplained\n"
        "assert hooks.cause_of_bug is not hooks.no_cause\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
