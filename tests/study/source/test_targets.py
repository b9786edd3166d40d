"""Tests of targets: of the package, and in a user's file."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.study_targets import (
    edited,
    line_with,
    report,
    target_named,
    truth_of,
    wrong_lines,
)
from helpers.user_layer import RIGHT_BACKWARD, RIGHT_LAYER, write_layer

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.gradcheck.suite import NEWER
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.targets import target_of, user_target


@pytest.mark.parametrize("name", [*VARIANTS, *targets.MODELS])
def test_the_differentiated_arrays_are_generic_and_depend_on_the_seed_only(name: str) -> None:
    arrays, again, other = (
        {**found.params, **{each: found.args[each] for each in found.wrt}}
        for found in (target_named(name, seed) for seed in (3, 3, 4))
    )
    for key, array in arrays.items():
        assert array.dtype == np.float64, key
        assert array.size == len(np.unique(array)), f"{key} has a value twice"
        assert 1e-3 < np.abs(array).mean() < 10, key
        np.testing.assert_array_equal(array, again[key])
        assert (array != other[key]).any(), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "right", "wrong", "line"),
    [
        ("block", "dmid = dmid + grads", "dmid = grads", "dmid = grads."),
        ("block", "dx, dkept_1 = dmid, dmid", "dx, dkept_1 = dy, dmid", "dx, dkept_1 = dy, dmid"),
        ("block", 'grads.keep(f"{h}.ln_1", self.norm.backward(dnormed_1, ln_1))',
         "self.norm.backward(dnormed_1, ln_1)[0]", "return dx"),
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
MASKED = edited(SCALE, ("(x)", "(x, m)"), ("x * 3", "x * m"), ("()", "m"), ("dy * 3", "dy * saved"))
RANGE = "ids (N,) integers in [0, V), weight (V, C)"
ANOTHER = "calling the function returns another gradient than its lines"
# The text of a file and its arguments; the line that is wrong, or "", and a part of its message.
FILES: dict[str, tuple[str, str | None, str, str]] = {
    "a file with a byte order mark": ("\ufeff" + RIGHT_LAYER, None, "", ""),
    "integers in a range": (LOOKUP, RANGE, "", ""),
    "an inline expression": (INLINE, SHAPES, "", ""),
    "a dict by names": (edited(INLINE, ("dx, dw\n", '{"x": dx, "w": dw}\n')), SHAPES, "", ""),
    "a dict by gradients": (
        edited(INLINE, ("dx, dw\n", '{"dx": dx, "dw": dw}\n')), SHAPES, "", ""
    ),
    "an argument with a default": (edited(SCALE, ("(x)", "(x, scale=3)")), SHAPE, "", ""),
    "a backward with other arguments": (
        edited(SCALE, ("saved)", "saved, k=3, *, more=0)"), ("dy * 3", "dy * k + more")), SHAPE,
        "", "",
    ),
    "an argument without a gradient": (MASKED, "x (N, C), m (N, C)", "", ""),
    "a random generator": (
        edited(
            SCALE, ("(x)", "(x, rng=np.random.default_rng(3))"), ("()", "k"),
            ("y = x * 3", "k = rng.random(x.shape)\n    y = x * k"), ("dy * 3", "dy * saved"),
        ),
        SHAPE, "", "",
    ),
    "a module in the same folder": ("import my_neighbour\n" + SCALE, SHAPE, "", ""),
    "a decorated backward": (
        edited(SCALE, ("def backward", DECORATED.format("*args: 2 * f(*args)") + "backward")),
        SHAPE, "return dx", ANOTHER,
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
        'return {"a": dx, "b": dw}', "a gradient of a, which is none of x, w",
    ),
    "the common source of wrong gradients": (
        edited(INLINE, ("1 - p", "1 + p")), SHAPES, "dz = dp * (1 + p * p)",
        "judged by what dw, dx need",
    ),
    "a helper with a name of forward": (
        edited(
            SCALE, ("y = x * 3", "part = x * x\n    y = np.sin(part)"), ("()", "x"),
            ("dx = dy * 3", "part = np.cos(saved * saved)\n    dx = dy * part"),
        ),
        SHAPE, "dx = dy * part", "dx: off by",
    ),
}  # fmt: skip
# The text of a file, its arguments, and a part of the message.
REFUSED: list[tuple[str, str | None, str]] = [
    (
        SCALE, None,
        "the docstring of forward(x), or --args, must describe its arguments",
    ),
    (SCALE, "z (N, C)", "there is no argument z"),
    (
        edited(SCALE, ("(x)", "(x, scale)")), SHAPE,
        "not described: scale",
    ),
    ("import nothing\n" + SCALE, SHAPE, "layer.py cannot be imported: ModuleNotFoundError"),
    (
        edited(SCALE, ("(dy, saved)", "(dy)")), SHAPE,
        "backward must take the upstream gradient and what forward saved",
    ),
    (edited(SCALE, ("x * 3", "x @ x")), SHAPE, "layer.py, line 4: forward raises ValueError"),
    (edited(SCALE, ("return y", "return q")), SHAPE, "line 5: forward raises NameError: name 'q'"),
    (
        edited(SCALE, ("x * 3", "np.log(x)")), SHAPE,
        "output of forward is not finite; its arguments are random",
    ),
    (
        edited(SCALE, ("def forward", DECORATED.format("x: (f(x)[0] + 1, ())") + "forward")), SHAPE,
        "calling forward gives another output than running its lines",
    ),
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_right_or_wrong_at_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "my_neighbour.py").touch()
    text, described, line, message = FILES[name]
    (proof,) = study(user_target(write_layer(tmp_path, text), described)).proofs
    assert wrong_lines(proof) == ([line] if line else []), report(proof)
    assert not line or message in line_with(proof, line).message


@pytest.mark.parametrize(("text", "described", "message"), REFUSED)
def test_a_file_that_cannot_be_studied_is_refused(
    tmp_path: Path, text: str, described: str | None, message: str
) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        study(user_target(write_layer(tmp_path, text), described))


# A pair in another form, its arguments, and a mistake with the line that is then wrong.
FORMS: dict[str, tuple[str, str, tuple[str, str], str]] = {
    "several outputs": (
        "def forward(x, w):\n    h = x @ w\n    c = np.tanh(h)\n    return h, c, (x, w, c)\n"
        "def backward(dh, dc, saved):\n    x, w, c = saved\n    dh = dh + dc * (1 - c * c)\n"
        "    return dh @ w.T, x.T @ dh",
        "x (N, C), w (C, K)", ("1 - c", "1 + c"), "dh = dh + dc * (1 + c * c)",
    ),
    "a dict of parameters": (
        "def forward(x, p):\n    y = x @ p['W'] + p['b']\n    return y, (x, p)\n"
        "def backward(dy, saved):\n    x, p = saved\n    grads = {'W': x.T @ dy}\n"
        "    grads['b'] = dy.sum(0)\n    dx = dy @ p['W'].T\n    return dx, grads",
        "x (N, C), p {W (C, K), b (K,)}", ("dy.sum(0)", "dy.mean(0)"),
        "grads['b'] = dy.mean(0)",
    ),
    "a loss and its gradient": (
        "def forward(x):\n    loss = (x * x).sum()\n    return loss\n"
        "def backward(x):\n    dx = 2 * x\n    return dx",
        "x (N,)", ("2 * x", "3 * x"), "dx = 3 * x",
    ),
    "an argument without a gradient": (
        "def forward(x, m):\n    y = x * m\n    return y, m\n"
        "def backward(dy, m):\n    dx = dy * m\n    return dx, None",
        "x (N,), m (N,)", ("dy * m", "dy + m"), "dx = dy + m",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_pairs_are_studied_in_other_forms(tmp_path: Path, name: str) -> None:
    text, described, edit, line = FORMS[name]
    text = f"import numpy as np\n{text}\n"
    (proof,) = study(user_target(write_layer(tmp_path, text), described)).proofs
    assert {each.status for each in proof.lines} <= {"right", "partial", ""}, report(proof)
    (proof,) = study(user_target(write_layer(tmp_path, edited(text, edit)), described)).proofs
    assert wrong_lines(proof) == [line], report(proof)


class Layer:
    """A layer that keeps what its backward needs, and its gradients."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.W, self.b = rng.standard_normal((4, 3)), rng.standard_normal(3)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        self.y = np.tanh(x @ self.W + self.b)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dz = dy * (1 - self.y**2)
        self.dW = self.x.T @ dz
        self.db = dz.sum(axis=0)
        return dz @ self.W.T

    def wrong(self, dy: np.ndarray) -> np.ndarray:
        dz = dy * (1 - self.y**2)
        self.dW = self.x.T @ dz
        self.db = dz.sum(axis=1)[:3]
        return dz @ self.W.T


def test_methods_of_an_object_are_studied_with_its_parameters() -> None:
    layer, x = Layer(), np.random.default_rng(6).standard_normal((5, 4))
    found = study(target_of(layer.forward, layer.backward, (x,)))
    assert found.target.wrt == ("x", "self.W", "self.b")
    assert found.ok, report(found.proofs[0])
    assert not hasattr(layer, "dW")
    found = study(target_of(layer.forward, layer.wrong, (x,)))
    assert wrong_lines(found.proofs[0]) == ["self.db = dz.sum(axis=1)[:3]"]


METHODS = """
class Linear:
    def __init__(self, weight, scale=2.0):
        self.weight, self.scale = weight, scale
    def forward(self, x):
        "x (N, C) -> y (N, K)"
        self.x = x
        return self.scale * (x @ self.weight)
    def backward(self, dy):
        self.dweight = self.scale * self.x.T @ dy
        return self.scale * dy @ self.weight.T
"""


def test_an_object_of_a_class_in_a_file_is_made(tmp_path: Path) -> None:
    path = write_layer(tmp_path, METHODS).partition(":")[0]
    name = f"{path}:Linear.forward,Linear.backward"
    found = study(user_target(name, "weight (C, K)"))
    assert found.target.wrt == ("x", "self.weight")
    assert found.ok, report(found.proofs[0])
    with pytest.raises(StudyError, match=r"of Linear\(weight, scale\).*described: weight"):
        user_target(name)


def test_the_methods_that_a_function_calls_are_stepped_into() -> None:
    def forward(x: np.ndarray, layer: Layer) -> tuple[np.ndarray, Layer]:
        y = layer.forward(x) * 2
        return y, layer

    def backward(dy: np.ndarray, layer: Layer) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dx = layer.backward(2 * dy)
        return dx, {"W": layer.dW, "b": layer.db}

    x = np.random.default_rng(6).standard_normal((5, 4))
    found = study(target_of(forward, backward, (x, Layer())))
    assert found.target.wrt == ("x", "layer.W", "layer.b")
    assert found.ok, report(found.proofs[0])
    texts = [line.text for line in found.proofs[0].lines if line.status == "right"]
    assert {"self.dW = self.x.T @ dz", "self.db = dz.sum(axis=0)"} <= {*texts}


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
    lookup = user_target(write_layer(tmp_path, LOOKUP), RANGE).args
    assert lookup["ids"].max() < len(lookup["weight"])
    scale = user_target(write_layer(tmp_path, SCALE), "x (..., Q, 3, 2E)")
    first, second, q, three, twice_e = scale.args["x"].shape
    assert (len({first, second, q, twice_e // 2}), three) == (4, 3)
    assert user_target(write_layer(tmp_path, MASKED), "x (N, C), m (N, C)").wrt == ("x",)


@pytest.mark.parametrize("text", ["layer.py:forward", "layer.py:a,b,c,d", "layer.py:a,"])
def test_another_form_of_a_user_target_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match=f"given as FILE.py:forward,backward, not {text}"):
        user_target(text)


@pytest.mark.parametrize("name", targets.MODELS)
def test_a_model_has_its_own_title_and_its_variants_that_of_their_configuration(name: str) -> None:
    found = targets.named_target(name)
    assert found.title == targets.MODELS[name]
    titles = [variant.title for variant in found.variants]
    assert titles == ([] if name == "bigram" else list(NEWER)[: 1 if name == "heads" else None])


@pytest.mark.parametrize(("name", "wanted"), [("block", "x"), ("gpt", "the parameters, by name")])
def test_a_model_that_returns_another_number_of_gradients_is_refused(
    name: str, wanted: str
) -> None:
    with pytest.raises(ValueError, match=rf"must return a gradient for each of {wanted}$"):
        target_named(name).gradients((1, 2), {})
