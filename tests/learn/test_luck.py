"""A line that is right for one call only is right by luck; the other call is named."""

import pytest
from helpers.learners import solved, verdict_on

SOFTMAX, NORM = "dx = dshifted  # (..., V)", "dx += dmean / xhat.shape[-1]"
BIAS = "dbias = None if unbiased else dy.sum(axis=0)"
MEAN = "dx = np.zeros_like(x) + dmean[:, None] / x.shape[1]"
SCATTER = "np.add.at(dweight, ids, drows)"
# An exercise, a line of its solution, a line that is right by luck, and a call for which it is not.
LUCKY = [
    # An axis that is right for one number of axes.
    ("softmax", "probs / total).sum(axis=-1", "probs / total).sum(axis=2", "x (6, 11)"),
    ("softmax", SOFTMAX, "dx = dshifted * (dshifted.ndim / 3)", "x (6, 11)"),
    ("rms_norm", ".sum(axis=rows)", ".sum(axis=(0, 1))", "x (6, 8), weight (8,), epsilon 1e-05"),
    ("rotary", "np.split(dturned, 2, axis=-1)", "np.split(dturned, 2, axis=3)", "x (1, 2, 1, 3"),
    # A size that is a number.
    ("softmax", SOFTMAX, "dx = np.zeros((2, 3, 11)) + dshifted", "x (4, 4, 4)"),
    ("softmax", SOFTMAX, "dx = dshifted[..., :11]", "x (3, 4, 12)"),
    ("linear", "dproduct @ weight.T", "(dproduct @ weight.T).reshape(6, 8)", "x (4, 4), "),
    ("mean", MEAN, "dx = np.zeros_like(x) + dmean[:, None] / 8", "x (4, 4), weight (4,)"),
    ("embedding", SCATTER, "for n in range(6): dweight[ids[n]] += drows[n]", "ids (4,), "),
    ("attention", "scale = head_size**-0.5", "scale = 5**-0.5", "qkv (16, 48), batch 4"),
    ("cross_entropy", "dtotal = dlog_total / total", "dtotal = (dlog_total / total)[:6]", "7, 12"),
    # A size that agrees with another one.
    ("softmax", SOFTMAX, "dx = dshifted * (len(dshifted) / 2)", "x (4, 4, 4)"),
    ("layer_norm", NORM, "dx += dmean / (len(xhat) + 2)", "x (4, 4), weight (4,), bias (4,)"),
    ("gelu", "draised = dgate / 2", "draised = dgate / (x.shape[1] - 6)", "x (4, 4)"),
    # An optional argument that is always there, or never.
    ("linear", BIAS, "dbias = dy.sum(axis=0)", "x (6, 8), weight (8, 7), bias None"),
    ("layer_norm", BIAS, "dbias = dy.sum(axis=0)", "bias None"),
    ("dropout", "dy.copy() if mask is None else dy * mask", "dy * mask", "x (6, 3), mask None"),
    ("rms_norm", "dy if weight is None else dy * weight", "dy * weight", "weight None"),
    ("rotary", "deinterleave(dy) if interleaved else dy", "dy", "interleaved True"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "old", "new", "call"), LUCKY, ids=[f"{n}: {i}" for n, _, i, _ in LUCKY]
)
def test_a_line_that_is_right_by_luck_is_named_with_the_call_that_shows_it(
    name: str, old: str, new: str, call: str
) -> None:
    text = solved(name)
    assert text.count(old) == 1
    found = verdict_on(name, text.replace(old, new))
    mistake = found.mistake
    assert mistake is not None
    assert mistake.line.status == "luck"
    assert mistake.line.text in text.replace(old, new)
    assert mistake.line.text not in text
    assert call in mistake.call
    assert mistake.message
    assert not found.ok


@pytest.mark.parametrize(
    ("name", "number", "right", "lucky"),
    [
        ("rms_norm", 0, "dy if weight is None else dy * weight", "dy * weight"),
        ("linear", 1, "None if unbiased else dy.sum(axis=0)", "dy.sum(axis=0)"),
        ("softmax", 4, "dx = dshifted", "dx = dshifted[..., :11]"),
    ],
)
def test_luck_is_seen_while_all_other_lines_are_open(
    name: str, number: int, right: str, lucky: str
) -> None:
    text = solved(name, but={*range(20)} - {number})
    assert text.count(right) == 1
    assert verdict_on(name, text).mistake is None
    mistake = verdict_on(name, text.replace(right, lucky)).mistake
    assert mistake is not None
    assert (mistake.line.status, lucky in mistake.line.text) == ("luck", True)
    assert mistake.call


def test_open_lines_between_lines_with_names_of_the_learners_own_are_no_mistake() -> None:
    text = solved("softmax", but=[2, 3]).replace("dtotal", "through_total")
    found = verdict_on("softmax", text)
    assert found.mistake is None
    assert len(found.open_lines) == 2


def test_the_factor_dloss_may_come_last_in_a_line_that_is_right_by_luck_too() -> None:
    text = solved("cross_entropy").replace("float(dloss) / -count", "-1 / count")
    text = text.replace("dlogits = dshifted", "dlogits = float(dloss) * dshifted[:, :11]")
    mistake = verdict_on("cross_entropy", text).mistake
    assert mistake is not None
    assert mistake.line.text == "dlogits = float(dloss) * dshifted[:, :11]"
    assert mistake.line.status == "luck"


def test_a_mistake_in_the_first_call_is_no_luck() -> None:
    # Its lines cannot be run one by one, so only the function as a whole is checked.
    text = solved("softmax").replace(
        SOFTMAX, "async def f(): return dshifted\n    dx = f().close()"
    )
    mistake = verdict_on("softmax", text).mistake
    assert mistake is not None
    assert (mistake.line.status, mistake.line.text) == ("wrong", "return dx")
    assert mistake.message == "dx is None"


def test_lines_after_one_that_is_right_by_luck_stay_right() -> None:
    text = solved("layer_norm").replace(
        "dsquare = np.zeros_like(xhat) +", "dsquare = np.zeros((6, 8)) +"
    )
    found = verdict_on("layer_norm", text)
    assert [line.status for line in found.lines].count("luck") == 1
    assert {line.status for line in found.lines} == {"luck", "right"}
