"""The parts of a forward that must be constant for a wrong gradient to be right."""

import numpy as np
from helpers.study_targets import ARGS, truth, truth_of

from tinygpt_np.study.proof.detached import detached_parts
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.trace import Value

TRUTH = truth_of("layer_norm")


def normalized(truth: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dxhat, xhat and std."""
    x, weight = truth.target.args["x"], truth.target.args["weight"]
    centered = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
    return truth.doutput * weight, centered / std, std


def texts(found: np.ndarray, name: str = "x") -> list[str]:
    return [part.text for part in detached_parts(TRUTH, Value(name, -1), found)]


def test_the_mean_and_the_deviation_of_a_layer_norm_may_be_taken_for_constants() -> None:
    dxhat, xhat, std = normalized(TRUTH)
    along_ones = dxhat.mean(axis=-1, keepdims=True)
    along_xhat = xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    assert texts((dxhat - along_ones) / std) == ["std"]
    assert texts((dxhat - along_xhat) / std) == ["mean"]
    assert texts(dxhat / std) == ["mean", "std"]


def test_other_errors_are_explained_by_no_constant() -> None:
    dxhat, xhat, std = normalized(TRUTH)
    assert texts(2 * dxhat / std) == []
    assert texts(0 * dxhat) == []
    assert texts(dxhat / std + 1e-6 * xhat) == []
    rng = np.random.default_rng(0)
    assert texts(rng.standard_normal(8), "weight") == []


def test_the_sum_of_a_softmax_may_be_taken_for_a_constant() -> None:
    softmax = truth_of("softmax")
    exps = np.exp(softmax.target.args["x"])
    probs = exps / exps.sum(axis=-1, keepdims=True)
    found = detached_parts(softmax, Value("x", -1), softmax.doutput * probs)
    assert [part.text for part in found] == ["total"]


def test_a_sum_inside_a_line_may_be_taken_for_a_constant() -> None:
    made = truth("def forward(x, w):\n    y = (x - x.mean(axis=0)) @ w\n    return y, (x, w)", ARGS)
    (part,) = detached_parts(made, Value("x", -1), made.doutput @ made.target.args["w"].T)
    assert part.text == "x.mean(axis=0)"
