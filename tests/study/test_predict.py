"""A line that a learner types is judged like one that stands in the file."""

from functools import cache

import pytest
from house import line_of

from tinygpt_np import ops
from tinygpt_np.study import targets
from tinygpt_np.study.predict import Answer, answer, can_be_asked
from tinygpt_np.study.sheet import Sheet, study


@cache
def sheet(name: str) -> Sheet:
    return study(targets.named(name))


def ask(target: str, line: str, text: str) -> Answer:
    return answer(sheet(target), line, text)


@pytest.mark.parametrize("name", ops.__all__)
def test_every_line_that_sets_a_gradient_can_be_asked_for_and_is_right_as_it_stands(
    name: str,
) -> None:
    for proof in sheet(name).proofs:
        lines = [
            li for li in proof.lines if li.step and any(g.status == "right" for g in li.gradients)
        ]
        for line in lines:
            assert can_be_asked(proof, line), line.text
            assert ask(name, f"{proof.function.name}:{line.line}", line.text).status == "right"


def test_a_call_of_a_layer_in_the_model_can_be_asked_for() -> None:
    asked = "dqkv = ops.attention.backward(dheads, attn)"
    line = next(line for line in sheet("block").proofs[0].lines if line.text == asked)
    assert ask("block", f"block_backward:{line.line}", asked).status == "right"


@pytest.mark.parametrize(
    "text",
    ["dkept = dheads @ v.mT", "dheads @ v.mT", "dkept = dheads @ v.swapaxes(-1, -2)"],
)
def test_another_way_to_write_it_is_right_too(text: str) -> None:
    found = ask("attention", "backward:73", text)
    assert found.status == "right"
    assert found.digits >= 15


def test_a_wrong_line_says_how_wrong_and_why() -> None:
    found = ask("attention", "backward:82", "dproducts = dscores * scale * 2")
    assert found.status == "wrong"
    assert found.says == "off by 1 of its norm"
    assert found.cause == "too large by a factor of 2: counted twice"


def test_a_wrong_shape_is_told() -> None:
    found = ask("linear", "backward:41", "dx = weight @ dproduct.T")
    assert (found.status, found.says) == (
        "wrong",
        "the shape must be (6, 8), not (8, 6); it looks transposed",
    )


@pytest.mark.parametrize("text", ["dexps += dtotal", "dexps = dexps + dtotal", "dtotal"])
def test_a_part_is_added(text: str) -> None:
    assert ask("softmax", "backward_steps:41", text).status == "right"


def test_a_part_that_overwrites_the_others_is_wrong() -> None:
    text = "dshifted = dexps * exps"
    found = ask("cross_entropy", "backward_steps:64", text)
    assert found.status == "wrong"
    assert found.says == "right as a part, but dshifted holds another already: add to it, +="


def test_the_whole_in_place_of_a_part_is_right_if_it_is_the_whole() -> None:
    text = "dshifted = dlog_probs + dexps * exps"
    assert ask("cross_entropy", "backward_steps:64", text).status == "right"


def test_a_part_counted_twice_is_wrong() -> None:
    found = ask("softmax", "backward_steps:41", "dexps += dtotal + dtotal")
    assert (found.status, found.says) == ("wrong", "off by 1 of its norm")


def test_the_first_part_may_not_be_smaller_than_the_gradient() -> None:
    found = ask("cross_entropy", "backward_steps:62", "dexps = dtotal")
    assert found.status == "wrong"
    assert "(6, 11), not (6, 1)" in found.says


def test_another_name_is_wrong() -> None:
    found = ask("attention", "backward:73", "dv = dheads @ v.mT")
    assert (found.status, found.says) == ("wrong", "this line is to set dkept, not dv")


def test_a_name_that_comes_later_is_not_known_yet() -> None:
    found = ask("attention", "backward:73", "dkept = dprobs")
    assert found.status == "refused"
    assert "there is no `dprobs` here" in found.says


@pytest.mark.parametrize(
    "text",
    ["", "dkept = open('x')", "dkept = np.load('x')", "import os", "dkept = dheads.tofile('x')"],
)
def test_what_is_no_such_line_is_refused_with_the_reason(text: str) -> None:
    found = ask("attention", "backward:73", text)
    assert found.status == "refused"
    assert found.says


def test_what_keeps_something_is_not_for_a_typed_line_to_call() -> None:
    number = line_of("dout_2 = ops.dropout.backward", "model.py")
    found = ask("block", f"block_backward:{number}", "grads.keep(7, (dy, dy, dy))")
    assert found.status == "refused"


@pytest.mark.parametrize("text", ["(dheads, (dheads, 1))", "[dheads, 1]", "None", "dheads.shape"])
def test_what_is_no_array_is_refused(text: str) -> None:
    found = ask("attention", "backward:73", text)
    assert (found.status, found.says[:23]) == ("refused", "a gradient is an array,")


def test_functions_that_the_backward_does_not_call_are_not_there() -> None:
    assert ask("attention", "backward:73", "dkept = softmax.forward(dheads)").status == "refused"


def test_what_is_typed_cannot_change_what_is_known() -> None:
    before = ask("embedding", "backward:33", "np.add.at(dweight, ids, drows)")
    ask("embedding", "backward:33", "np.add.at(dweight, ids, drows * 7)")
    assert ask("embedding", "backward:33", "np.add.at(dweight, ids, drows)") == before


@pytest.mark.parametrize("line", ["backward:1", "backward:66", "backward:94", "forward:59", "x"])
def test_a_line_that_cannot_be_asked_for_is_no_line(line: str) -> None:
    with pytest.raises(KeyError):
        ask("attention", line, "dkept = dheads @ v.mT")
