import numpy as np
import pytest
from helpers.architecture import OPERATIONS, source

from tinygpt_np import ops
from tinygpt_np.gradcheck.cases import CASES, VARIANTS
from tinygpt_np.study import targets
from tinygpt_np.study.prover import prove
from tinygpt_np.study.source import StudyError, find
from tinygpt_np.study.truth import Truth


def test_every_operation_and_both_models_have_a_name() -> None:
    assert sorted(targets.NAMES) == sorted([*OPERATIONS, "block", "gpt", "bigram"])


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_name_gives_its_target(name: str) -> None:
    found = targets.named(name)
    assert found.name == name
    assert found.kind == ("operation" if name in OPERATIONS else "model")
    assert found.docstring


def test_another_name_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(StudyError, match=r"must be one of .*softmax.*, gpt, .*, not nothing"):
        targets.named("nothing")


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_studied_as_its_file_has_it(name: str) -> None:
    found = targets.named(name)
    text = source("ops", f"{name}.py")
    assert found.where == f"ops/{name}.py"
    assert found.forward.lines == tuple(text.splitlines())
    kinds = [kind for kind in ("backward_steps", "backward") if f"def {kind}(" in text]
    assert [each.name for each in found.backwards] == kinds
    module = getattr(ops, name)
    assert found.functions == (module.forward, *(getattr(module, kind) for kind in kinds))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_called_as_the_gradient_checks_call_it(variant: str) -> None:
    (case,) = (case for case in CASES if case.name == variant)
    found = targets.operation(variant)
    assert found.wrt == case.differentiable
    for name, arg in found.args.items():
        np.testing.assert_array_equal(arg, case.args.get(name))


def test_the_fullest_way_to_call_an_operation_comes_first() -> None:
    for name in OPERATIONS:
        counts = [
            sum(arg is not None for arg in targets.operation(variant).args.values())
            for variant in targets.variants(name)
        ]
        assert counts == sorted(counts, reverse=True), name
    assert sorted(v for name in OPERATIONS for v in targets.variants(name)) == sorted(VARIANTS)


@pytest.mark.parametrize("name", targets.NAMES)
def test_another_seed_draws_other_values_and_the_same_seed_the_same(name: str) -> None:
    first, again, other = (targets.named(name, seed) for seed in (3, 3, 4))
    assert first.seed == 3
    arrays = {**first.params, **{n: first.args[n] for n in first.wrt}}
    for key in arrays:
        values = [{**each.params, **each.args}[key] for each in (first, again, other)]
        np.testing.assert_array_equal(values[0], values[1])
        assert (values[0] != values[2]).any(), key


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_target_is_summed_up_in_a_line(name: str) -> None:
    line = targets.summary(name)
    assert line.endswith(".")
    assert "\n" not in line
    if name in OPERATIONS:
        assert source("ops", f"{name}.py").startswith(f'"""{line}')


def test_the_parameters_of_a_block_are_those_of_the_first() -> None:
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
    # That dropout counts, and that what comes in is not changed, falling loss does not show.
    target = targets.named(name)
    text = "\n".join(target.backwards[0].lines)
    assert text.count(right) == 1
    method = "GPT.block_backward" if name == "block" else "GPT.backward"
    changed = find(text.replace(right, wrong), method, target.where)
    first = prove(Truth(target), changed).first_wrong
    assert first is not None
    assert wrong.split(" = ")[0].split("(")[0].split(" +=")[0] in first.text
