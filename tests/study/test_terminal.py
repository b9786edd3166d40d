"""The sheet in a terminal."""

import io
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from own_layer import FORWARD, WRONG, written
from rich.console import Console

from tinygpt_np import ops
from tinygpt_np.study import targets
from tinygpt_np.study.own import own
from tinygpt_np.study.page import page
from tinygpt_np.study.sheet import Sheet, study
from tinygpt_np.study.source import find
from tinygpt_np.study.terminal import draw


@cache
def sheet(name: str) -> Sheet:
    return study(targets.named(name))


def shown(sheet: Sheet, width: int = 180) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(draw(sheet, width))
    return out.getvalue()


def line_of(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


def test_a_backward_line_stands_beside_the_line_it_undoes() -> None:
    line = line_of(shown(sheet("attention")), "heads = kept @ v")
    assert re.search(r"59 +heads = kept @ v +74 +dv = kept.mT @ dheads", line)


def test_a_gradient_has_its_shape_norms_and_digits() -> None:
    line = line_of(shown(sheet("attention")), "dkept = dheads @ v.mT")
    assert re.search(r"\(B, H, T, T\) +5\.478 +15\.64 +✓ 1[56] digits", line)


def test_every_line_of_forward_and_backward_is_there() -> None:
    text = " ".join(shown(sheet("layer_norm"), 250).split())
    for proof in sheet("layer_norm").proofs:
        assert all(line.text in text for line in proof.lines)
    assert all(row.text in text for row in sheet("layer_norm").rows)


def test_a_part_of_a_gradient_is_called_one() -> None:
    text = shown(sheet("gelu"))
    assert "a part" in line_of(text, "dx += dbent")
    assert "a part" not in line_of(text, "dgate = dy * x")


def test_the_closed_form_stands_below_with_its_agreement() -> None:
    above, below = shown(sheet("softmax")).split("backward, in closed form")
    assert "dexps += dtotal" in above
    assert "dx = probs * (dprobs - weighted_mean)" in below
    assert re.search(r"the two agree to \d\.\de-1[67]", below)


def test_a_line_without_a_gradient_is_called_constant() -> None:
    assert "constant" in line_of(shown(sheet("softmax")), "largest = ")


def test_a_line_that_a_loop_runs_again_tells_the_round() -> None:
    text = shown(sheet("gpt"))
    assert text.count("# layer = 0") >= 2
    assert text.count("# layer = 1") >= 2


def test_the_gradients_of_parameters_are_named() -> None:
    assert "✓" in line_of(shown(sheet("block")), "h.0.attn.c_attn.weight")


def test_names_without_a_gradient_of_their_own_say_with_what_they_are_verified(
    tmp_path: Path,
) -> None:
    text = shown(study(own(written(tmp_path, FORWARD + WRONG))))
    assert "verified together with dx" in line_of(text, "centered = x - mean")


def test_a_wrong_line_is_named_with_how_wrong_and_why(tmp_path: Path) -> None:
    text = shown(study(own(written(tmp_path, FORWARD + WRONG))))
    assert "✗ wrong" in line_of(text, "dx = dxhat / std")
    told = text.split("layer.py, line 19: dx = dxhat / std")[1]
    assert re.search(r"dx: off by 0\.\d+ of its norm", told)
    assert "likely cause: a mean or sum is missing" in told
    assert "every one right" not in text


def test_what_is_wrong_because_of_it_is_told(tmp_path: Path) -> None:
    text = FORWARD + WRONG.replace("dxhat = dy * weight", "dxhat = dy * weight * 2")
    text = shown(study(own(written(tmp_path, text))))
    assert "✗ because of dxhat" in text or "✗ wrong" in line_of(text, "dx = dxhat / std")
    assert "✗ wrong" in line_of(text, "dxhat = dy * weight * 2")


def test_that_all_is_right_is_said_once_with_the_worst_error_and_the_seed() -> None:
    (line,) = [line for line in shown(sheet("softmax")).splitlines() if "verdicts" in line]
    assert re.fullmatch(
        r"6 verdicts, every one right; worst relative error \d\.\de-16; seed=0 *", line
    )


@pytest.mark.parametrize("name", [*ops.__all__, "block"])
def test_in_a_narrow_terminal_no_line_is_cut(name: str) -> None:
    text = shown(sheet(name), 80)
    squeezed = "".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    for row in sheet(name).rows:
        assert "".join(row.text.split())[:24] in squeezed


def test_in_a_narrow_terminal_the_backward_stands_below() -> None:
    text = shown(sheet("softmax"), 80)
    assert text.index("exps = np.exp(shifted)") < text.index("dshifted = dexps * exps")
    assert "exps = np.exp(shifted)" in line_of(text, "27")
    assert "dshifted" not in line_of(text, "27 ")


def test_that_differences_had_to_do_is_remarked(tmp_path: Path) -> None:
    text = FORWARD.replace("xhat * weight + bias", "np.abs(xhat) * weight + bias") + WRONG
    text = text.replace(
        "std = np.sqrt(", "out = np.zeros(x.shape)\n    out[...] = x\n    std = np.sqrt("
    )
    text = text.replace("xhat = centered / std", "xhat = (out - mean) / std", 1)
    assert "measured by differences" in shown(study(own(written(tmp_path, text))))


def test_that_no_line_could_be_paired_is_remarked(tmp_path: Path) -> None:
    text = """
def forward(x):
    y = x * 3
    return y, ()


def backward(gradient, saved):
    result = gradient * 3
    return result
"""
    sheet = study(own(written(tmp_path, text), "x (N, C)"))
    assert sheet.ok
    assert "no line sets a d<name>" in shown(sheet)


def test_a_gradient_of_the_wrong_shape_is_shown_with_the_shape_it_has(tmp_path: Path) -> None:
    wrong = WRONG.replace("dx = dxhat / std", "dx = dxhat.sum(axis=0)")
    line = line_of(shown(study(own(written(tmp_path, FORWARD + wrong)))), "dx = dxhat.sum(axis=0)")
    assert re.search(r"dx = dxhat.sum\(axis=0\) +8 ", line)


def test_what_is_wrong_in_another_call_of_the_operation_is_told() -> None:
    target, other = targets.operation("dropout"), targets.operation("dropout-no-mask")
    text = "\n".join(other.backwards[0].lines).replace("dx = dy.copy() if", "dx = 2 * dy if")
    other = replace(other, backwards=(find(text, "backward", other.where),), functions=())
    found = study(replace(target, others=(other,)))
    assert not found.ok
    assert found.proofs[0].ok
    told = shown(found).split("dropout-no-mask: ")[1]
    assert "1 line wrong" in told
    assert "dx: off by 1 of its norm" in told
    assert page(found, [])["others"] == [
        {"title": "dropout-no-mask", "says": "line 36: dx: off by 1 of its norm"}
    ]
