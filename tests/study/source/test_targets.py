"""Tests of targets: of the package, and in a user's file."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    edited,
    line_with,
    report,
    target,
    truth_of,
    wrong_lines,
)
from helpers.user_layer import RIGHT_BACKWARD, RIGHT_LAYER, write_layer

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.targets import Target, user_target


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_values_depend_on_the_seed_only(name: str) -> None:
    first, again, other = (targets.named_target(name, seed) for seed in (3, 3, 4))
    assert first.seed == 3
    arrays = {**first.params, **{n: first.args[n] for n in first.wrt}}
    for key in arrays:
        values = [{**each.params, **each.args}[key] for each in (first, again, other)]
        np.testing.assert_array_equal(values[0], values[1])
        assert (values[0] != values[2]).any(), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "right", "wrong", "line"),
    [
        ("block", "dmid = dmid + grads", "dmid = grads", "dmid = grads."),
        ("block", "dx, dkept_1 = dmid, dmid", "dx, dkept_1 = dy, dmid", "dx, dkept_1 = dy, dmid"),
        ("block", 'keep(f"{h}.ln_1"', 'keep(f"{h}.ln_2"', "dx = dx + "),
        ("block", 'grads.keep(f"{h}.ln_1", ops.layer_norm.backward(dnormed_1, ln_1))',
         "ops.layer_norm.backward(dnormed_1, ln_1)[0]", "return dx"),
        ("block", "return dx\n\n    @", "return dmid\n\n    @", "return dmid"),
        ("gpt", "dembedded = ops.dropout.backward(dx, drop)", "dembedded = dx", "dembedded = dx"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_model_is_found_at_its_line(
    name: str, right: str, wrong: str, line: str
) -> None:
    target, method = truth_of(name).target, "block_backward" if name == "block" else "backward"
    text = "\n".join(target.backwards[0].lines)
    start = text.index(f"def {method}")
    changed = text[:start] + edited(text[start:], (right, wrong))
    found = prove(truth_of(name), find_function(changed, f"GPT.{method}", target.file))
    (first, *_) = wrong_lines(found)
    assert first.startswith(line), report(found)
    assert len(wrong_lines(found)) == 1 or name == "gpt", report(found)


def every() -> Iterator[Target]:
    yield from (targets.operation(variant) for variant in VARIANTS)
    yield from (targets.named_target(name) for name in targets.MODELS)
    yield target(FORWARD + BACKWARD)


@pytest.mark.parametrize("each", [*every()], ids=lambda each: each.name)
def test_the_differentiated_arrays_are_generic_and_of_order_one(each: Target) -> None:
    arrays = {**{name: each.args[name] for name in each.wrt}, **each.params}
    for name, array in arrays.items():
        assert array.dtype == np.float64, name
        assert array.size == len(np.unique(array)), f"{name} has a value twice"
        assert 1e-3 < np.abs(array).mean() < 10, name


# Functions in a user's file


SCALE = """
import numpy as np
def forward(x):
    y = x * 3
    return y, ()
def backward(dy, saved):
    dx = dy * 3
    return dx
"""
LOOKUP = """
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
# forward has no name z, so dz has no expected gradient.
INLINE = """
import numpy as np
def forward(x, w):
    p = np.tanh(x @ w)
    return p, (x, w, p)
def backward(dp, saved):
    x, w, p = saved
    dz = dp * (1 - p * p)
    dw = x.T @ dz
    dx = dz @ w.T
    return dx, dw
"""
SHAPE, SHAPES = "x (N, C)", "x (N, C), w (C, K)"
DECORATED = "def changed(f):\n    return lambda {}\n\n@changed\ndef "
RIGHT: dict[str, tuple[str, str | None]] = {
    "a file with a byte order mark": ("\ufeff" + RIGHT_LAYER, None),
    "integers in a range": (LOOKUP, "ids (N,) integers in [0, V), weight (V, C)"),
    "an inline expression": (INLINE, SHAPES),
    "a dict by names": (edited(INLINE, ("dx, dw\n", '{"x": dx, "w": dw}\n')), SHAPES),
    "a dict by gradients": (edited(INLINE, ("dx, dw\n", '{"dx": dx, "dw": dw}\n')), SHAPES),
    "an argument with a default": (edited(SCALE, ("(x)", "(x, scale=3)")), SHAPE),
    "a backward with other arguments": (
        edited(SCALE, ("saved)", "saved, k=3, *, more=0)"), ("dy * 3", "dy * k + more")), SHAPE
    ),
    "an argument without a gradient": (
        edited(SCALE, ("(x)", "(x, m)"), ("x * 3", "x * m"), ("()", "m"), ("dy * 3", "dy * saved")),
        "x (N, C), m (N, C)",
    ),
    "a random generator": (
        edited(
            SCALE, ("(x)", "(x, rng=np.random.default_rng(3))"), ("()", "k"),
            ("y = x * 3", "k = rng.random(x.shape)\n    y = x * k"), ("dy * 3", "dy * saved"),
        ),
        SHAPE,
    ),
    "a module in the same folder": ("import my_neighbour\n" + SCALE, SHAPE),
}  # fmt: skip
REFUSED = {
    "no shapes": (
        SCALE, None,
        "the first line of the docstring of forward (x), or --args, must describe its arguments",
    ),
    "shapes of other arguments": (SCALE, "z (N, C)", "not 'z (N, C)'"),
    "an argument that is not described": (
        edited(SCALE, ("(x)", "(x, scale)")), SHAPE,
        "forward also takes scale, which must be described too",
    ),
    "a missing import": (
        "import nothing_of_this_name\n" + SCALE, SHAPE,
        "layer.py cannot be imported: ModuleNotFoundError",
    ),
    "a backward with one argument": (
        edited(SCALE, ("(dy, saved)", "(dy)")), SHAPE,
        "backward must take the upstream gradient and what forward saved",
    ),
    "an early return": (
        edited(SCALE, ("    y =", "    if x.size:\n        return x, ()\n    y =")), SHAPE,
        "one return, with a value, as its last statement; returns found on line: 5, 7",
    ),
    "an exception": (
        edited(SCALE, ("x * 3", "x @ x")), SHAPE, "layer.py, line 4: forward raises ValueError"
    ),
    "infinite output": (
        edited(SCALE, ("x * 3", "np.log(x)")), SHAPE,
        "output of forward is not finite; its arguments are random",
    ),
    "a decorated forward": (
        edited(SCALE, ("def forward", DECORATED.format("x: (f(x)[0] + 1, ())") + "forward")), SHAPE,
        "calling forward gives another output than running its lines",
    ),
}  # fmt: skip
# The text of a file, the line that is wrong, and what its message contains.
WRONG = {
    "a decorated backward": (
        edited(SCALE, ("def backward", DECORATED.format("*args: 2 * f(*args)") + "backward")),
        SHAPE, "return dx", "calling the function returns another gradient than its lines",
    ),
    # A common mistake: the gradient of a sum is not broadcast back.
    "a returned gradient that must broadcast": (
        edited(SCALE, ("x * 3", "3 * x.sum(axis=-1, keepdims=True)")), SHAPE,
        "dx = dy * 3", "has the shape (6, 1), and x has (6, 8)",
    ),
    "a number instead of a gradient": (
        edited(SCALE, ("x * 3", "3 * x.sum()"), ("dx = dy * 3\n    return dx", "return float(dy)")),
        SHAPE, "return float(dy)", "dx: the gradient must be an array, not float",
    ),
    "other keys": (
        edited(INLINE, ("dx, dw\n", '{"a": dx, "b": dw}\n')), SHAPES,
        'return {"a": dx, "b": dw}', "the keys must be x, w, not a, b",
    ),
    "the common source of wrong gradients": (
        edited(INLINE, ("1 - p", "1 + p")), SHAPES, "dz = dp * (1 + p * p)",
        "probably wrong, because everything computed from it is wrong (dw, dx)",
    ),
    "a helper with a name of forward": (
        edited(
            SCALE, ("y = x * 3", "part = x * x\n    y = np.sin(part)"), ("()", "x"),
            ("dx = dy * 3", "part = np.cos(saved * saved)\n    dx = dy * part"),
        ),
        SHAPE, "dx = dy * part", "dx: off by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_file_is_right(tmp_path: Path, name: str) -> None:
    (tmp_path / "my_neighbour.py").touch()
    text, described = RIGHT[name]
    assert study(user_target(write_layer(tmp_path, text), described)).ok


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_studied_is_refused(tmp_path: Path, name: str) -> None:
    text, described, message = REFUSED[name]
    with pytest.raises(StudyError, match=re.escape(message)):
        study(user_target(write_layer(tmp_path, text), described))


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_file_is_found_at_its_line(tmp_path: Path, name: str) -> None:
    text, described, line, message = WRONG[name]
    (proof,) = study(user_target(write_layer(tmp_path, text), described)).proofs
    assert wrong_lines(proof) == [line]
    assert message in line_with(proof, line).message


def test_two_backwards_are_compared_with_each_other(tmp_path: Path) -> None:
    text = RIGHT_LAYER + RIGHT_BACKWARD.replace("backward(", "closed(")
    sheet = study(user_target(f"{write_layer(tmp_path, text)},closed"))
    assert [proof.function.name for proof in sheet.proofs] == ["backward", "closed"]
    assert sheet.agreement == 0


def test_arguments_are_drawn_as_described(tmp_path: Path) -> None:
    layer = user_target(write_layer(tmp_path, RIGHT_LAYER)).args
    N, C = layer["x"].shape
    assert N != C
    assert layer["weight"].shape == layer["bias"].shape == (C,)
    lookup = user_target(write_layer(tmp_path, LOOKUP), RIGHT["integers in a range"][1]).args
    assert lookup["ids"].max() < len(lookup["weight"])
    scale = user_target(write_layer(tmp_path, SCALE), "x (..., Q, 3, 2E)")
    first, second, q, three, twice_e = scale.args["x"].shape
    assert (len({first, second, q, twice_e // 2}), three) == (4, 3)
    text, described = RIGHT["an argument without a gradient"]
    assert user_target(write_layer(tmp_path, text), described).wrt == ("x",)


@pytest.mark.parametrize("text", ["layer.py:forward", "layer.py:a,b,c,d", "layer.py:a,"])
def test_another_form_of_a_user_target_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match=f"given as FILE.py:forward,backward, not {text}"):
        user_target(text)


def test_a_wrong_name_without_effect_is_counted_as_a_warning(tmp_path: Path) -> None:
    text = edited(
        SCALE, ("y = x * 3", "z = x * 1\n    y = z * 3"),
        ("dx = dy * 3", "dz = dy * 6\n    dx = dz / 2"),
    )  # fmt: skip
    sheet = study(user_target(write_layer(tmp_path, text), SHAPE))
    assert sheet.ok
    assert [(g.name, g.status) for g in sheet.all_verdicts] == [("dz", "warning"), ("dx", "right")]
    assert sheet.worst < 1e-12  # A gradient with a warning does not count.
