"""Pairs in the styles of homework and courses: both tools give the stated verdict and cause."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tinygpt_np.gradcheck.check import check
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.study.proof.sheet import Sheet, study
from tinygpt_np.study.source.targets import Target, find_target

FOLDER = Path(__file__).parent / "fixtures" / "pairs"
SEEDS = range(2)
DESCRIBED = {
    "homework_layer_norm": "x (N, C), gamma (C,), beta (C,)",
    "mlp_parameter_dict": "x (N, C), params {W1 (C, H), b1 (H,), W2 (H, K), b2 (K,)}",
}


@dataclass(frozen=True)
class Wrong:
    """The mistake of a pair: the blamed line, and what the report says about it.

    line: a pattern of the first red line, or the start of the forward line whose path is missing.
    says: a pattern in its message or cause. leaves: the gradients that `check` calls wrong.
    """

    line: str
    says: str
    leaves: tuple[str, ...]
    missing: bool = False


RIGHT = {
    "batch_norm_training": "backward",
    "convolution_loops": "backward",
    "gradient_keys": "backward",
    "homework_layer_norm": "backward",
    "lstm_two_outputs": "backward",
    "mlp_gradient_dict": "backward",
    "mlp_parameter_dict": "backward",
    "object_cache": "backward",
    "swiglu_class": "backward",
}
WRONG = {
    ("attention_scale", "backward"): Wrong(
        "dq = ", "too large by a factor of √d = 2|too large by a factor of 2", ("x", "Wqkv")
    ),
    ("convolution_loops", "backward_wrong"): Wrong("for n in", "not accumulated", ("w",)),
    ("gradient_keys", "backward_wrong"): Wrong(
        r"grads\['dW'\] = ", "too small by a factor of 6", ("W",)
    ),
    ("gru_missing_path", "backward"): Wrong("rh = r * h", "dh lacks the part", ("h",), True),
    ("homework_layer_norm", "backward_wrong"): Wrong(r"dx = \(g - ", "term", ("x",)),
    ("ignored_targets", "backward"): Wrong("return|dlogits", "ignored|all rows", ("logits",)),
    ("object_cache", "backward_wrong"): Wrong(
        "dx, dw1, db1 = ", "mask|ReLU|maximum", ("x", "w1", "b1")
    ),
    ("repeated_ids", "backward"): Wrong(r"dtable\[ids\] \+= dy", "repeated", ("table",)),
    ("residual_forgotten", "backward"): Wrong("y = x + v", "dx lacks the part", ("x",), True),
    ("rnn_time_loop", "backward"): Wrong("dWh = ", "accumulated|last|=", ("Wh",)),
    ("weighted_cross_entropy", "backward"): Wrong("dlogits = ", r"w\.sum\(\)", ("logits",)),
}


def target(name: str, backward: str, seed: int) -> Target:
    described = DESCRIBED.get(name)
    return find_target(f"{FOLDER / f'{name}.py'}:forward,{backward}", described, seed)


@cache
def checked(name: str, backward: str, seed: int) -> Report:
    pair = target(name, backward, seed)
    forward, formula = pair.functions
    return check(forward, formula, pair.args, seed=seed)


@cache
def studied(name: str, backward: str, seed: int) -> Sheet:
    return study(target(name, backward, seed))


def spelled(text: str) -> str:
    return text.replace('"', "'")


@pytest.mark.parametrize(("name", "backward"), RIGHT.items())
def test_a_right_pair_is_called_right_by_check(name: str, backward: str) -> None:
    for seed in SEEDS:
        report = checked(name, backward, seed)
        assert report.ok, report


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backward"), RIGHT.items())
def test_a_right_pair_is_called_right_by_study_without_a_remark(name: str, backward: str) -> None:
    for seed in SEEDS:
        sheet = studied(name, backward, seed)
        lines = sheet.proofs[0].lines
        assert sheet.ok
        assert {line.status for line in lines} <= {"right", "partial", ""}, lines


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backward"), WRONG)
def test_a_wrong_pair_is_called_wrong_by_check(name: str, backward: str) -> None:
    for seed in SEEDS:
        report = checked(name, backward, seed)
        wrong = tuple(row.name for row in report.rows if row.verdict == "wrong")
        assert wrong == WRONG[name, backward].leaves, report


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backward"), WRONG)
def test_study_blames_the_line_and_gives_the_cause(name: str, backward: str) -> None:
    expected = WRONG[name, backward]
    for seed in SEEDS:
        proof = studied(name, backward, seed).proofs[0]
        first = proof.first_wrong
        assert first is not None
        said = f"{first.message} {first.cause}"
        assert re.search(expected.says, said), said
        if expected.missing:
            assert expected.line in said
            assert all(line.status != "wrong" for line in proof.lines if line.step is not None)
        else:
            assert re.match(expected.line, spelled(first.text)), first.text


@pytest.mark.slow
def test_check_and_study_give_the_same_cause() -> None:
    for name, backward in WRONG:
        causes = {row.cause for row in checked(name, backward, 0).rows if row.cause}
        first = studied(name, backward, 0).proofs[0].first_wrong
        assert first is not None
        # Only study sees the gradients of values that are no arguments.
        pairs = [gradient.pair for gradient in first.gradients if gradient.pair is not None]
        if causes and first.cause and all(pair.value.step < 0 for pair in pairs):
            # Study proves a wrong loss without its gradient, and so may know the size of a factor.
            assert any(first.cause.startswith(cause) for cause in causes), name
