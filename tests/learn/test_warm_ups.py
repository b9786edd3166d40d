"""The sources of the first exercises follow the rules of ops/, and every mistake in them is found.

So do those of exercises about whole models, of which only the calls are reversed.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.architecture import PACKAGE, Watch, count_operations, functions, parsed, quotes, source
from helpers.study_targets import proof

from tinygpt_np.gradcheck.cases import as_tuple
from tinygpt_np.gradcheck.check import check
from tinygpt_np.gradcheck.mutations import Mutation, mutations
from tinygpt_np.learn import models, warm_ups
from tinygpt_np.ops import cross_entropy, linear
from tinygpt_np.study.proof.prove import Prover
from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.arguments import draw_arguments
from tinygpt_np.study.source.targets import Target, find_target

WARM_UPS = [getattr(warm_ups, name) for name in warm_ups.__all__]
MODULES = [*WARM_UPS, *(getattr(models, name) for name in models.__all__)]


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


every_module = pytest.mark.parametrize("module", MODULES, ids=name_of)
every_warm_up = pytest.mark.parametrize("module", WARM_UPS, ids=name_of)


def target(module: ModuleType, seed: int = 0) -> Target:
    return find_target(f"{module.__file__}:forward,backward", None, seed)


def drawn(module: ModuleType, seed: int = 0) -> dict[str, Any]:
    (args,) = draw_arguments([module.forward], name_of(module), None, seed)
    return args


def upstream(output: Any) -> np.ndarray:
    return np.asarray(np.random.default_rng(0).standard_normal(np.shape(output)))


def parts(module: ModuleType) -> tuple[str, ...]:
    """Return the path of a module in the package, by folder."""
    return Path(str(module.__file__)).relative_to(PACKAGE).parts


def operation(module: ModuleType) -> str:
    """Return the path of a module from ops/, because the helpers of the rules read files there."""
    return "/".join(("..", *parts(module))).removesuffix(".py")


def flowing_lines(module: ModuleType) -> Iterator[tuple[str, set[str]]]:
    """Yield the text of each forward line with a gradient, and the gradients of what it reads."""
    names = {*target(module).wrt}
    for line in parsed(operation(module)).statements:
        if read := line.reads & names:
            names |= {name for name in line.sets if not name.startswith("saved")}
            yield line.text, {f"d{name}" for name in read}


def test_every_file_is_in_the_course() -> None:
    for package in (warm_ups, models):
        folder = Path(str(package.__file__)).parent
        assert {path.stem for path in folder.glob("*.py")} == {*package.__all__, "__init__"}


# Right


@every_module
@pytest.mark.parametrize("seed", [0, 1])
def test_study_proves_every_line(module: ModuleType, seed: int) -> None:
    found = study(target(module, seed))
    assert found.ok
    assert found.truth.target.wrt == tuple(
        name for name, value in drawn(module).items() if value.dtype.kind == "f"
    )
    (lines,) = (each.lines for each in found.proofs)
    assert {line.status for line in lines} <= {"right", "partial", ""}


@every_module
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradcheck_finds_every_gradient_right(module: ModuleType, dtype: Any) -> None:
    args = {
        name: value.astype(dtype) if value.dtype.kind == "f" else value
        for name, value in drawn(module).items()
    }
    report = check(module.forward, module.backward, args)
    assert report.ok, report
    assert {row.name for row in report.rows} == {*target(module).wrt}


@every_module
def test_results_share_no_memory_with_inputs_or_each_other(module: ModuleType) -> None:
    args = drawn(module)
    output, saved = module.forward(**args)
    doutput = upstream(output)
    known: list[Any] = [
        *args.values(),
        doutput,
        *(each for each in saved if isinstance(each, np.ndarray)),
    ]
    for gradient in as_tuple(module.backward(doutput, saved)):
        assert not any(np.shares_memory(gradient, other) for other in known)
        known.append(gradient)


def test_micro_batches_give_the_loss_and_the_gradients_of_one_batch() -> None:
    args, module = drawn(models.micro_batches), models.micro_batches
    loss, saved = module.forward(**args)
    dx_1, dx_2, dweight = module.backward(np.asarray(1.0), saved)
    x = np.concatenate([args["x_1"], args["x_2"]])
    logits, saved_linear = linear.forward(x, args["weight"])
    targets = np.concatenate([args["targets_1"], args["targets_2"]])
    expected, saved_loss = cross_entropy.forward(logits, targets)
    dx, dwhole, _ = linear.backward(cross_entropy.backward(1.0, saved_loss), saved_linear)
    np.testing.assert_allclose(loss, expected, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate([dx_1, dx_2]), dx, rtol=0, atol=1e-15)
    np.testing.assert_allclose(dweight, dwhole, rtol=0, atol=1e-15)


# The rules of ops/


@every_module
def test_a_forward_is_a_straight_line_of_one_operation_that_assigns_each_name_once(
    module: ModuleType,
) -> None:
    function = parsed(operation(module))
    flows, taken = [text for text, _ in flowing_lines(module)], list(function.arguments)
    for line in function.statements:
        assert isinstance(line.node, ast.Assign), line.text
        assert not {*line.sets} & {*taken}, f"a name is set twice in: {line.text}"
        taken += line.sets
        assert line.text not in flows or count_operations(line.node.value) == 1, line.text


@every_warm_up
def test_a_backward_quotes_the_forward_in_reverse_with_the_gradients_of_what_a_line_reads(
    module: ModuleType,
) -> None:
    assert quotes(operation(module)) == [*flowing_lines(module)][::-1]


@pytest.mark.parametrize("module", MODULES[len(WARM_UPS) :], ids=name_of)
def test_the_backward_of_a_model_quotes_and_calls_the_forward_in_reverse(
    module: ModuleType,
) -> None:
    assert [text for text, _ in quotes(operation(module))] == [
        text for text, _ in flowing_lines(module)
    ][::-1]
    found = functions(source(*parts(module)))
    forward, backward = (
        re.findall(rf"(\w+)\.{kind}\(", ast.unparse(found[kind]))
        for kind in ("forward", "backward")
    )
    assert len(forward) >= 4
    assert backward == forward[::-1]


@every_module
def test_every_shape_comment_is_true_and_gradients_have_the_shapes_of_names(
    module: ModuleType,
) -> None:
    def run() -> None:
        output, saved = module.forward(**drawn(module))
        module.backward(upstream(output), saved)

    watch = Watch(*parts(module)).run(run)
    # Shapes of scalars are checked in test_study_proves_every_line.
    assert watch.checked >= 3 or module is warm_ups.chain
    forward, backward = (watch.arrays[name] for name in ("forward", "backward"))
    assert {f"d{name}" for name in target(module).wrt} <= {*backward}
    for name in (name for name in forward if f"d{name}" in backward):
        assert backward[f"d{name}"].shape == forward[name].shape, name


@every_module
def test_a_docstring_has_a_title_a_derivation_and_the_common_mistake_and_fits_a_screen(
    module: ModuleType,
) -> None:
    text = inspect.getdoc(module) or ""
    assert re.match(rf"{name_of(module).capitalize().replace('_', '-')}: .*\.\n\n    ", text)
    assert len(re.findall(r"^Derivation\. ", text, re.M)) == 1
    assert len(re.findall(r"^Common mistakes?: ", text, re.M)) == 1
    assert len(text.splitlines()) <= 25


@every_warm_up
def test_the_first_line_of_a_docstring_is_the_contract(module: ModuleType) -> None:
    shapes = r"\w+ \([^)]*\)(?: integers in \[0, \w\)| in \([^)]*\))?"
    for function, end in ((module.forward, r", saved\."), (module.backward, r"\.")):
        first = (inspect.getdoc(function) or "").splitlines()[0]
        assert re.fullmatch(rf"{shapes}(?:, {shapes})* -> {shapes}(?:, {shapes})*{end}", first)


# Wrong


@cache
def proven_mutants(module: ModuleType) -> list[tuple[Mutation, Prover]]:
    """Return the mutants of a backward that return other gradients, and their proofs."""
    own, found = target(module), list[tuple[Mutation, Prover]]()
    truth, (backward,) = Truth(own), own.backwards
    output, saved = module.forward(**own.args)
    doutput = upstream(output)
    for mutation in mutations(inspect.getsource(module), "backward"):
        names = dict(vars(module))
        exec(compile(ast.Module([mutation.tree], []), "<mutant>", "exec"), names)
        if not equal(names["backward"], module.backward, doutput, saved):
            found.append((mutation, Prover(truth, replace(backward, node=mutation.tree))))
    return found


def equal(mutant: Any, backward: Any, doutput: np.ndarray, saved: Any) -> bool:
    """Return whether a mutant returns the gradients of the original backward."""
    try:
        first, second = (as_tuple(function(doutput, saved)) for function in (mutant, backward))
    except Exception:
        return False
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@every_module
def test_every_wrong_mutant_is_judged_wrong(module: ModuleType) -> None:
    found = proven_mutants(module)
    assert len(found) >= 10
    accepted = [mutation.after for mutation, prover in found if prover.is_right]
    assert accepted == []


@every_module
def test_every_line_with_a_mistake_is_blamed(module: ModuleType) -> None:
    blamed = {
        mutation.line
        for mutation, prover in proven_mutants(module)
        for line in prover.lines
        if line.status == "wrong" and line.line == mutation.line
    }
    (backward,) = target(module).backwards
    # The zeros that np.add.at adds to are no mistake, and have no wrong mutant.
    setting = {
        line.line for line in backward.statements
        if line.text.startswith("d") and line.text != "dtable = np.zeros_like(table)"
    }  # fmt: skip
    assert len(setting) >= 2
    assert setting <= blamed


def test_a_view_of_the_upstream_gradient_is_no_gradient_of_a_sum() -> None:
    text = inspect.getsource(warm_ups.sum)
    for name, value in (("x", "drows"), ("rows", "dy[:, None]")):
        old = f"np.zeros_like({name}) + {value}"
        assert old in text
        text = text.replace(old, f"np.broadcast_to({value}, {name}.shape)")
    found = proof(text, drawn(warm_ups.sum))
    assert found.first_wrong is not None
    assert found.first_wrong.message == "the gradient shares its memory with dout"
