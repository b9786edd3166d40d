"""Tests of targets: of the package, and in a user's file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.architecture import OPERATIONS, source
from helpers.study_targets import BACKWARD, FORWARD, target
from helpers.user_layer import RIGHT_BACKWARD, RIGHT_LAYER, WRONG_LAYER, WRONG_LINE, write_layer

from tinygpt_np import ops
from tinygpt_np.gradcheck.cases import CASES, VARIANTS
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.targets import Target, user_target


def test_the_names_are_the_operations_the_block_and_the_models() -> None:
    assert sorted(targets.NAMES) == sorted([*OPERATIONS, "block", "gpt", "bigram"])


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_is_found_by_its_name(name: str) -> None:
    found = targets.named_target(name)
    assert found.name == name
    assert found.kind == ("operation" if name in OPERATIONS else "model")
    assert found.docstring


def test_another_name_is_refused_with_a_list_of_names() -> None:
    with pytest.raises(StudyError, match=r"must be one of .*softmax.*, gpt, .*, not nothing"):
        targets.named_target("nothing")


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_its_file(name: str) -> None:
    found = targets.named_target(name)
    text = source("ops", f"{name}.py")
    assert found.file == f"ops/{name}.py"
    assert found.forward.lines == tuple(text.splitlines())
    kinds = [kind for kind in ("backward_steps", "backward") if f"def {kind}(" in text]
    assert [each.name for each in found.backwards] == kinds
    module = getattr(ops, name)
    assert found.functions == (module.forward, *(getattr(module, kind) for kind in kinds))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_the_arguments_of_the_gradient_checks(variant: str) -> None:
    (case,) = (case for case in CASES if case.name == variant)
    found = targets.operation(variant)
    assert found.wrt == case.differentiable
    for name, arg in found.args.items():
        np.testing.assert_array_equal(arg, case.args.get(name))


def test_the_variant_with_most_arguments_comes_first() -> None:
    for name in OPERATIONS:
        counts = [
            sum(arg is not None for arg in targets.operation(variant).args.values())
            for variant in targets.variants_of(name)
        ]
        assert counts == sorted(counts, reverse=True), name
    assert sorted(v for name in OPERATIONS for v in targets.variants_of(name)) == sorted(VARIANTS)


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_values_depend_on_the_seed_only(name: str) -> None:
    first, again, other = (targets.named_target(name, seed) for seed in (3, 3, 4))
    assert first.seed == 3
    arrays = {**first.params, **{n: first.args[n] for n in first.wrt}}
    for key in arrays:
        values = [{**each.params, **each.args}[key] for each in (first, again, other)]
        np.testing.assert_array_equal(values[0], values[1])
        assert (values[0] != values[2]).any(), key


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_has_a_one_line_summary(name: str) -> None:
    line = targets.summary(name)
    assert line.endswith(".")
    assert "\n" not in line
    if name in OPERATIONS:
        assert source("ops", f"{name}.py").startswith(f'"""{line}')


def test_the_block_has_the_parameters_of_the_first_layer() -> None:
    whole, block = targets.gpt(), targets.block()
    assert {*block.params} == {name for name in whole.params if name.startswith("h.0.")}
    assert len(block.params) == 12
    assert block.wrt == ("x",)
    assert whole.wrt == ()


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("block", "dropout.backward(dkept_1, drop_1)", "dropout.backward(dkept_1, drop_2)"),
        ("block", "dout_2 = ops.dropout.backward(dkept_2, drop_2)", "dout_2 = dkept_2"),
        ("gpt", "dembedded = ops.dropout.backward(dx, drop)", "dembedded = dx"),
        ("block", "dmid = dmid + grads", "dmid += grads"),
    ],
)
def test_a_mistake_in_the_model_is_found(name: str, right: str, wrong: str) -> None:
    # The loss would still fall with these mistakes.
    target = targets.named_target(name)
    text = "\n".join(target.backwards[0].lines)
    assert text.count(right) == 1
    method = "GPT.block_backward" if name == "block" else "GPT.backward"
    changed = find_function(text.replace(right, wrong), method, target.file)
    first = prove(Truth(target), changed).first_wrong
    assert first is not None
    assert wrong.split(" = ")[0].split("(")[0].split(" +=")[0] in first.text


def every() -> Iterator[Target]:
    yield from (targets.operation(variant) for variant in VARIANTS)
    yield from (targets.named_target(name) for name in targets.MODELS)
    yield target(FORWARD + BACKWARD)


@pytest.mark.parametrize("each", [*every()], ids=lambda each: each.name)
def test_a_target_is_consistent(each: Target) -> None:
    assert {*each.wrt} <= {*each.args}
    assert {*each.forward.arguments} == {*each.args}
    assert each.backwards
    assert each.wrt or each.params
    assert (each.with_params is None) == (not each.params)
    assert len(each.functions) in (0, 1 + len(each.backwards))


@pytest.mark.parametrize("each", [*every()], ids=lambda each: each.name)
def test_the_differentiated_arrays_are_generic_and_of_order_one(each: Target) -> None:
    arrays = {**{name: each.args[name] for name in each.wrt}, **each.params}
    for name, array in arrays.items():
        assert array.dtype == np.float64, name
        assert array.size == len(np.unique(array)), f"{name} has a value twice"
        assert 1e-3 < np.abs(array).mean() < 10, name


def test_with_params_replaces_only_the_given_parameters() -> None:
    each = targets.block()
    assert each.with_params is not None
    name = next(iter(each.params))
    changed = each.with_params({name: each.params[name] + 1})
    assert {*changed} == {*each.args}
    assert changed["x"] is each.args["x"]
    model, other = each.args["self"], changed["self"]
    assert model is not other
    np.testing.assert_array_equal(other.params[name], each.params[name] + 1)
    assert model.params[name] is each.params[name]
    assert all(other.params[n] is model.params[n] for n in model.params if n != name)


def test_the_other_arguments_of_a_backward_are_new_for_each_run() -> None:
    each = targets.block()
    first, second = each.backward_args(), each.backward_args()
    assert first["grads"] is not second["grads"]
    assert first["grads"] == {}
    assert target(FORWARD + BACKWARD).backward_args() == {}


SCALE = """
def forward(x{more}):
    y = x * 3
    return y, ()


def backward(dy, saved):
    dx = dy * 3
    return dx
"""


def error_of(text: str, described: str | None = None) -> str:
    with pytest.raises(StudyError) as error:
        user_target(text, described)
    return str(error.value)


def test_a_right_layer_is_right(tmp_path: Path) -> None:
    assert study(user_target(write_layer(tmp_path, RIGHT_LAYER))).ok


def test_the_wrong_line_of_a_layer_is_found(tmp_path: Path) -> None:
    (proof,) = study(user_target(write_layer(tmp_path, WRONG_LAYER))).proofs
    assert proof.first_wrong is not None
    assert proof.first_wrong.text == WRONG_LINE
    assert "sums to zero along axis 1" in proof.first_wrong.cause


def test_two_backwards_are_compared_with_each_other(
    tmp_path: Path,
) -> None:
    text = RIGHT_LAYER + RIGHT_BACKWARD.replace("backward(", "closed(")
    sheet = study(user_target(f"{write_layer(tmp_path, text)},closed"))
    assert [proof.function.name for proof in sheet.proofs] == ["backward", "closed"]
    assert sheet.agreement == 0


def test_arguments_have_the_shapes_in_the_docstring(tmp_path: Path) -> None:
    args = user_target(write_layer(tmp_path, RIGHT_LAYER)).args
    N, C = args["x"].shape
    assert N != C
    assert args["weight"].shape == args["bias"].shape == (C,)


def test_letters_that_no_operation_uses_have_sizes_too(tmp_path: Path) -> None:
    target = user_target(write_layer(tmp_path, SCALE.format(more="")), "x (..., Q, 2E)")
    *_, q, twice_e = target.args["x"].shape
    assert len({q, twice_e // 2}) == 2


def test_integers_are_drawn_from_their_range(tmp_path: Path) -> None:
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
    target = user_target(write_layer(tmp_path, text), "ids (N,) integers in [0, V), weight (V, C)")
    assert target.args["ids"].max() < len(target.args["weight"])
    assert study(target).ok


def test_the_arguments_can_be_described_without_a_docstring(tmp_path: Path) -> None:
    assert user_target(write_layer(tmp_path, SCALE.format(more="")), "x (N, C)").wrt == ("x",)


def test_an_argument_with_a_default_need_not_be_described(tmp_path: Path) -> None:
    assert (
        user_target(write_layer(tmp_path, SCALE.format(more=", scale=3")), "x (N, C)").args["scale"]
        == 3
    )


def test_an_argument_without_a_default_must_be_described(tmp_path: Path) -> None:
    message = error_of(write_layer(tmp_path, SCALE.format(more=", scale")), "x (N, C)")
    assert "forward also takes scale, which must be described too" in message


def test_the_error_without_shapes_shows_how_to_describe_them(tmp_path: Path) -> None:
    message = error_of(write_layer(tmp_path, SCALE.format(more="")))
    assert (
        "layer.py: the first line of the docstring of forward (x), or --args, must describe"
        in message
    )
    assert "--args" in message


def test_a_description_of_other_arguments_is_refused(tmp_path: Path) -> None:
    message = error_of(write_layer(tmp_path, SCALE.format(more="")), "z (N, C)")
    assert "forward (x)" in message
    assert "not 'z (N, C)'" in message


@pytest.mark.parametrize(
    "text", ["layer.py", "layer.py:forward", "layer.py:a,b,c,d", "layer.py:a,"]
)
def test_another_form_of_a_user_target_is_refused(text: str) -> None:
    assert f"given as FILE.py:forward,backward, not {text}" in error_of(text)


def test_a_missing_file_is_named() -> None:
    assert error_of("nowhere.py:forward,backward") == "there is no file nowhere.py"


def test_a_missing_function_is_named_with_the_functions_found(tmp_path: Path) -> None:
    target = write_layer(tmp_path, RIGHT_LAYER).replace(",backward", ",back")
    assert "has no function back; functions found: forward, backward" in error_of(target)


def test_a_file_that_cannot_be_imported_is_refused_with_the_reason(tmp_path: Path) -> None:
    message = error_of(write_layer(tmp_path, "import nothing_of_this_name\n" + RIGHT_LAYER))
    assert "layer.py cannot be imported: ModuleNotFoundError" in message


def test_a_syntax_error_is_reported(tmp_path: Path) -> None:
    assert "cannot be imported: SyntaxError" in error_of(write_layer(tmp_path, "def forward(:\n"))


def test_a_file_may_import_a_module_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "my_neighbour.py").write_text("THREE = 3\n", encoding="utf-8")
    text = "from my_neighbour import THREE\n" + SCALE.format(more="").replace("3", "THREE")
    assert study(user_target(write_layer(tmp_path, text), "x (N, C)")).ok


def test_a_backward_with_one_argument_is_refused(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("(dy, saved)", "(dy)")
    message = error_of(write_layer(tmp_path, text), "x (N, C)")
    assert "backward must take the upstream gradient and what forward saved" in message


def test_a_forward_that_returns_early_is_refused_with_its_lines(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("    y =", "    if x.size:\n        return x, ()\n    y =")
    message = error_of(write_layer(tmp_path, text), "x (N, C)")
    assert "one return, with a value, as its last statement; returns found on line: 4, 6" in message


def test_a_forward_that_raises_is_refused_with_the_line(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("x * 3", "x @ x")
    target = user_target(write_layer(tmp_path, text), "x (N, C)")
    with pytest.raises(StudyError, match=r"layer.py, line 3: forward raises ValueError"):
        study(target)


def test_the_seed_chooses_the_arguments(tmp_path: Path) -> None:
    text = write_layer(tmp_path, RIGHT_LAYER)
    first, again, other = (
        user_target(text, seed=1),
        user_target(text, seed=1),
        user_target(text, seed=2),
    )
    assert np.array_equal(first.args["x"], again.args["x"])
    assert not np.array_equal(first.args["x"], other.args["x"])


def test_a_decorated_backward_is_checked_by_its_result(tmp_path: Path) -> None:
    decorator = "def doubled(f):\n    return lambda dy, saved: 2 * f(dy, saved)\n"
    text = SCALE.format(more="").replace("def backward", f"{decorator}\n@doubled\ndef backward")
    sheet = study(user_target(write_layer(tmp_path, text), "x (N, C)"))
    assert not sheet.ok
    first = sheet.proofs[0].first_wrong
    assert first is not None
    assert "calling the function returns another gradient than its lines" in first.message


def test_a_redefined_backward_is_checked_by_its_result(tmp_path: Path) -> None:
    text = SCALE.format(more="") + "\nbackward = lambda dy, saved: dy\n"
    assert not study(user_target(write_layer(tmp_path, text), "x (N, C)")).ok


def test_a_decorated_forward_is_refused(tmp_path: Path) -> None:
    decorator = "def shifted(f):\n    return lambda x: (f(x)[0] + 1, ())\n"
    text = SCALE.format(more="").replace("def forward", f"{decorator}\n@shifted\ndef forward")
    target = user_target(write_layer(tmp_path, text), "x (N, C)")
    with pytest.raises(
        StudyError, match="calling forward gives another output than running its lines"
    ):
        study(target)


def test_a_backward_may_have_other_arguments_with_defaults(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("(dy, saved)", "(dy, saved, scale=3, *, more=0)")
    text = text.replace("dx = dy * 3", "dx = dy * scale + more")
    assert study(user_target(write_layer(tmp_path, text), "x (N, C)")).ok


def test_a_returned_gradient_may_not_broadcast(tmp_path: Path) -> None:
    # A common mistake: the gradient of a sum is not broadcast back.
    text = SCALE.format(more="").replace("y = x * 3", "y = 3 * x.sum(axis=-1, keepdims=True)")
    (proof,) = study(user_target(write_layer(tmp_path, text), "x (N, C)")).proofs
    assert proof.first_wrong is not None
    assert "has the shape (6, 1), and x has (6, 8)" in proof.first_wrong.message


def test_a_number_instead_of_a_gradient_is_wrong(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("y = x * 3", "y = 3 * x.sum()")
    text = text.replace("dx = dy * 3\n    return dx", "return float(dy) * 3")
    assert not study(user_target(write_layer(tmp_path, text), "x (N, C)")).ok


def test_a_wrong_name_without_effect_is_counted_as_a_warning(tmp_path: Path) -> None:
    text = SCALE.format(more="").replace("y = x * 3", "z = x * 1\n    y = z * 3")
    text = text.replace("dx = dy * 3", "dz = dy * 6\n    dx = dz / 2")
    sheet = study(user_target(write_layer(tmp_path, text), "x (N, C)"))
    assert sheet.ok
    assert [(g.name, g.status) for g in sheet.all_verdicts] == [("dz", "warning"), ("dx", "right")]
    assert sheet.worst < 1e-12  # A gradient with a warning does not count.


def test_a_random_generator_is_replayed(tmp_path: Path) -> None:
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
    assert study(user_target(write_layer(tmp_path, text), "x (N, C)")).ok


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
    return write_layer(folder, INLINE.format(sign=sign, returned=returned))


def test_the_common_source_of_several_wrong_gradients_is_found(tmp_path: Path) -> None:
    # forward has no name z, so dz has no expected gradient.
    assert study(user_target(inline(tmp_path), SHAPES)).ok
    (proof,) = study(user_target(inline(tmp_path, sign="+"), SHAPES)).proofs
    (wrong,) = [line for line in proof.lines if line.status == "wrong"]
    assert wrong.text == "dz = dp * (1 + p * p)"
    assert wrong.message == "probably wrong, because everything computed from it is wrong (dw, dx)"


@pytest.mark.parametrize("returned", ['{"x": dx, "w": dw}', '{"dx": dx, "dw": dw}'])
def test_the_keys_of_a_dict_may_be_names_or_gradients(tmp_path: Path, returned: str) -> None:
    assert study(user_target(inline(tmp_path, returned=returned), SHAPES)).ok


def test_other_keys_are_refused(tmp_path: Path) -> None:
    (proof,) = study(user_target(inline(tmp_path, returned='{"a": dx, "b": dw}'), SHAPES)).proofs
    assert proof.first_wrong is not None
    assert proof.first_wrong.message == "the keys must be x, w, not a, b"


def test_a_helper_with_a_name_of_forward_is_not_wrong(tmp_path: Path) -> None:
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
    (proof,) = study(user_target(write_layer(tmp_path, text), "x (N, C)")).proofs
    assert [line.text for line in proof.lines if line.status == "wrong"] == ["dx = dy * part"]


def test_an_argument_whose_gradient_is_not_returned_has_none(tmp_path: Path) -> None:
    text = SCALE.format(more=", mask").replace("* 3", "* mask").replace("()", "mask")
    text = text.replace("dx = dy", "mask = saved\n    dx = dy")
    target = user_target(write_layer(tmp_path, text), "x (N, C), mask (N, C)")
    assert target.wrt == ("x",)
    assert study(target).ok


def test_sizes_may_be_numbers(tmp_path: Path) -> None:
    args = user_target(write_layer(tmp_path, SCALE.format(more="")), "x (N, 3, C)").args
    assert args["x"].shape[1] == 3


def test_a_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + RIGHT_LAYER
    assert study(user_target(write_layer(tmp_path, text))).ok


def test_an_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    text = "import numpy as np\n" + SCALE.format(more="").replace("x * 3", "np.log(x)")
    with pytest.raises(
        StudyError, match=r"output of forward is not finite; .* positive and negative"
    ):
        study(user_target(write_layer(tmp_path, text), "x (N, C)"))
