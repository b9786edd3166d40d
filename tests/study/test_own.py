"""The user's own functions: found in their file, called as their docstring says, and judged."""

from pathlib import Path

import numpy as np
import pytest
from own_layer import FORWARD, RIGHT, WRONG, WRONG_LINE, written

from tinygpt_np.study.own import own
from tinygpt_np.study.sheet import study
from tinygpt_np.study.source import StudyError

SCALE = """
def forward(x{more}):
    y = x * 3
    return y, ()


def backward(dy, saved):
    dx = dy * 3
    return dx
"""


def refused(text: str, described: str | None = None) -> str:
    with pytest.raises(StudyError) as error:
        own(text, described)
    return str(error.value)


def test_a_right_layer_is_right(tmp_path: Path) -> None:
    assert study(own(written(tmp_path, FORWARD + RIGHT))).ok


def test_a_wrong_line_is_the_one_to_blame(tmp_path: Path) -> None:
    (proof,) = study(own(written(tmp_path, FORWARD + WRONG))).proofs
    assert proof.first_wrong is not None
    assert proof.first_wrong.text == WRONG_LINE
    assert "sums to zero along axis 1" in proof.first_wrong.cause


def test_a_backward_in_steps_and_one_in_closed_form_are_held_against_each_other(
    tmp_path: Path,
) -> None:
    text = FORWARD + RIGHT + RIGHT.replace("backward(", "closed(")
    sheet = study(own(f"{written(tmp_path, text)},closed"))
    assert [proof.function.name for proof in sheet.proofs] == ["backward", "closed"]
    assert sheet.agreement == 0


def test_arguments_have_the_shapes_of_the_docstring(tmp_path: Path) -> None:
    args = own(written(tmp_path, FORWARD + RIGHT)).args
    N, C = args["x"].shape
    assert N != C
    assert args["weight"].shape == args["bias"].shape == (C,)


def test_letters_of_no_operation_here_have_sizes_too(tmp_path: Path) -> None:
    target = own(written(tmp_path, SCALE.format(more="")), "x (..., Q, 2E)")
    *_, q, twice_e = target.args["x"].shape
    assert len({q, twice_e // 2}) == 2


def test_integers_are_drawn_below_their_end(tmp_path: Path) -> None:
    text = """
import numpy as np


def forward(ids, weight):
    rows = weight[ids]
    return rows, (ids, weight.shape)


def backward(drows, saved):
    ids, shape = saved
    dweight = np.zeros(shape)
    np.add.at(dweight, ids, drows)
    return dweight
"""
    target = own(written(tmp_path, text), "ids (N,) integers in [0, V), weight (V, C)")
    assert target.args["ids"].max() < len(target.args["weight"])
    assert study(target).ok


def test_args_may_be_given_where_there_is_no_docstring(tmp_path: Path) -> None:
    assert own(written(tmp_path, SCALE.format(more="")), "x (N, C)").wrt == ("x",)


def test_what_has_a_default_need_not_be_described(tmp_path: Path) -> None:
    assert own(written(tmp_path, SCALE.format(more=", scale=3")), "x (N, C)").args["scale"] == 3


def test_what_has_none_must_be(tmp_path: Path) -> None:
    message = refused(written(tmp_path, SCALE.format(more=", scale")), "x (N, C)")
    assert "forward also takes scale: describe it" in message


def test_a_forward_without_shapes_says_how_to_give_them(tmp_path: Path) -> None:
    message = refused(written(tmp_path, SCALE.format(more="")))
    assert "layer.py: the arguments of forward (x) must be described" in message
    assert "--args" in message


def test_args_of_another_function_are_refused(tmp_path: Path) -> None:
    message = refused(written(tmp_path, SCALE.format(more="")), "z (N, C)")
    assert "forward (x)" in message
    assert "not 'z (N, C)'" in message


@pytest.mark.parametrize(
    "text", ["layer.py", "layer.py:forward", "layer.py:a,b,c,d", "layer.py:a,"]
)
def test_another_form_is_refused(text: str) -> None:
    assert f"given as FILE.py:forward,backward, not {text}" in refused(text)


def test_a_file_that_is_not_there_is_named() -> None:
    assert refused("nowhere.py:forward,backward") == "there is no file nowhere.py"


def test_a_function_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    target = written(tmp_path, FORWARD + RIGHT).replace(",backward", ",back")
    assert "has no function back; it has: forward, backward" in refused(target)


def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    message = refused(written(tmp_path, "import nothing_of_this_name\n" + FORWARD + RIGHT))
    assert "layer.py cannot be imported: ModuleNotFoundError" in message


def test_a_file_that_is_no_python_says_where(tmp_path: Path) -> None:
    assert "cannot be imported: SyntaxError" in refused(written(tmp_path, "def forward(:\n"))


def test_a_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "my_neighbour.py").write_text("THREE = 3\n", encoding="utf-8")
    text = "from my_neighbour import THREE\n" + SCALE.format(more="").replace("3", "THREE")
    assert study(own(written(tmp_path, text), "x (N, C)")).ok


def test_a_backward_of_one_argument_is_refused(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("(dy, saved)", "(dy)")
    message = refused(written(tmp_path, text), "x (N, C)")
    assert "backward must take the gradient of the output, and what was saved" in message


def test_a_forward_that_returns_early_is_refused_with_its_lines(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("    y =", "    if x.size:\n        return x, ()\n    y =")
    message = refused(written(tmp_path, text), "x (N, C)")
    assert "forward must return once, a value, at its end, not on line 4, 6" in message


def test_a_forward_that_raises_is_refused_with_the_line(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("x * 3", "x @ x")
    target = own(written(tmp_path, text), "x (N, C)")
    with pytest.raises(StudyError, match=r"layer.py, line 3: forward raises ValueError"):
        study(target)


def test_the_seed_chooses_the_arguments(tmp_path: Path) -> None:
    text = written(tmp_path, FORWARD + RIGHT)
    first, again, other = own(text, seed=1), own(text, seed=1), own(text, seed=2)
    assert np.array_equal(first.args["x"], again.args["x"])
    assert not np.array_equal(first.args["x"], other.args["x"])


def test_a_decorated_backward_is_judged_as_it_runs(tmp_path: Path) -> None:
    decorator = "def doubled(f):\n    return lambda dy, saved: 2 * f(dy, saved)\n"
    text = SCALE.format(more="").replace("def backward", f"{decorator}\n@doubled\ndef backward")
    sheet = study(own(written(tmp_path, text), "x (N, C)"))
    assert not sheet.ok
    first = sheet.proofs[0].first_wrong
    assert first is not None
    assert "as it runs it returns another one than these lines" in first.says


def test_a_backward_that_is_set_again_is_judged_as_it_runs(tmp_path: Path) -> None:
    text = SCALE.format(more="") + "\nbackward = lambda dy, saved: dy\n"
    assert not study(own(written(tmp_path, text), "x (N, C)")).ok


def test_a_forward_that_is_decorated_is_refused(tmp_path: Path) -> None:
    decorator = "def shifted(f):\n    return lambda x: (f(x)[0] + 1, ())\n"
    text = SCALE.format(more="").replace("def forward", f"{decorator}\n@shifted\ndef forward")
    target = own(written(tmp_path, text), "x (N, C)")
    with pytest.raises(StudyError, match="as it runs gives another output than its lines"):
        study(target)


def test_a_backward_may_have_arguments_of_its_own_with_defaults(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("(dy, saved)", "(dy, saved, scale=3, *, more=0)")
    text = text.replace("dx = dy * 3", "dx = dy * scale + more")
    assert study(own(written(tmp_path, text), "x (N, C)")).ok


def test_a_returned_gradient_that_would_have_to_broadcast_is_wrong(tmp_path: Path) -> None:
    # The classic: what was summed in forward is not spread out again.
    text = SCALE.format(more="").replace("y = x * 3", "y = 3 * x.sum(axis=-1, keepdims=True)")
    (proof,) = study(own(written(tmp_path, text), "x (N, C)")).proofs
    assert proof.first_wrong is not None
    assert "has the shape (6, 1), and x has (6, 8)" in proof.first_wrong.says


def test_a_number_in_the_place_of_a_gradient_is_wrong(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("y = x * 3", "y = 3 * x.sum()")
    text = text.replace("dx = dy * 3\n    return dx", "return float(dy) * 3")
    assert not study(own(written(tmp_path, text), "x (N, C)")).ok


def test_what_is_no_gradient_and_spoils_nothing_is_odd_and_counted(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("y = x * 3", "z = x * 1\n    y = z * 3")
    text = text.replace("dx = dy * 3", "dz = dy * 6\n    dx = dz / 2")
    sheet = study(own(written(tmp_path, text), "x (N, C)"))
    assert sheet.ok
    assert [(g.name, g.status) for g in sheet.judged] == [("dz", "odd"), ("dx", "right")]
    assert sheet.worst < 1e-12  # Of what is odd, and is no result, the error is none.


def test_a_generator_is_replayed(tmp_path: Path) -> None:
    text = """
import numpy as np


def forward(x, rng=np.random.default_rng(3)):
    mask = (rng.random(x.shape) > 0.3) / 0.7
    y = x * mask
    return y, (mask,)


def backward(dy, saved):
    (mask,) = saved
    dx = dy * mask
    return dx
"""
    assert study(own(written(tmp_path, text), "x (N, C)")).ok


INLINE = """
import numpy as np


def forward(x, w):
    p = np.tanh(x @ w)
    return p, (x, w, p)


def backward(dp, saved):
    x, w, p = saved
    dz = dp * (1 {sign} p * p)
    dw = x.T @ dz
    dx = dz @ w.T
    return {returned}
"""
SHAPES = "x (N, C), w (C, K)"


def inline(folder: Path, sign: str = "-", returned: str = "dx, dw") -> str:
    return written(folder, INLINE.format(sign=sign, returned=returned))


def test_what_several_wrong_gradients_are_made_of_is_blamed_for_them(tmp_path: Path) -> None:
    # Nothing in forward is called z, so dz has no truth of its own.
    assert study(own(inline(tmp_path), SHAPES)).ok
    (proof,) = study(own(inline(tmp_path, sign="+"), SHAPES)).proofs
    (wrong,) = [line for line in proof.lines if line.status == "wrong"]
    assert wrong.text == "dz = dp * (1 + p * p)"
    assert wrong.says == "most likely here: all that is made of it is wrong (dw, dx)"


@pytest.mark.parametrize("returned", ['{"x": dx, "w": dw}', '{"dx": dx, "dw": dw}'])
def test_a_dict_may_be_by_the_names_or_by_their_gradients(tmp_path: Path, returned: str) -> None:
    assert study(own(inline(tmp_path, returned=returned), SHAPES)).ok


def test_other_keys_are_told(tmp_path: Path) -> None:
    (proof,) = study(own(inline(tmp_path, returned='{"a": dx, "b": dw}'), SHAPES)).proofs
    assert proof.first_wrong is not None
    assert proof.first_wrong.says == "the keys must be x, w, not a, b"


def test_a_helper_of_the_same_name_as_in_forward_is_not_to_blame(tmp_path: Path) -> None:
    text = """
import numpy as np


def forward(x):
    part = x * x
    y = np.sin(part)
    return y, x


def backward(dy, saved):
    x = saved
    part = np.cos(x * x)
    dx = dy * part
    return dx
"""
    (proof,) = study(own(written(tmp_path, text), "x (N, C)")).proofs
    assert [line.text for line in proof.lines if line.status == "wrong"] == ["dx = dy * part"]


def test_what_is_not_returned_has_no_gradient(tmp_path: Path) -> None:
    text = SCALE.format(more=", mask").replace("* 3", "* mask").replace("()", "mask")
    text = text.replace("dx = dy", "mask = saved\n    dx = dy")
    target = own(written(tmp_path, text), "x (N, C), mask (N, C)")
    assert target.wrt == ("x",)
    assert study(target).ok


def test_sizes_may_be_numbers(tmp_path: Path) -> None:
    args = own(written(tmp_path, SCALE.format(more="")), "x (N, 3, C)").args
    assert args["x"].shape[1] == 3


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + FORWARD + RIGHT
    assert study(own(written(tmp_path, text))).ok


def test_an_output_that_is_not_finite_is_told(tmp_path: Path) -> None:
    text = "import numpy as np\n" + SCALE.format(more="").replace("x * 3", "np.log(x)")
    with pytest.raises(StudyError, match=r"output of forward is not finite; .* of either sign"):
        study(own(written(tmp_path, text), "x (N, C)"))
