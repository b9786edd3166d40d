"""Ten correct backwards for each operation, as different learners write them."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import VARIANTS, as_tuple, case
from tinygpt_np.study.source.targets import import_file

FOLDER = Path(__file__).parent / "formulas"
PER_OPERATION = 10
FORMULAS: dict[str, dict[str, Callable[..., Any]]] = {
    operation: {
        name: formula
        for name, formula in vars(import_file(FOLDER / f"{operation}.py")).items()
        if name.startswith("backward_")
    }
    for operation in sorted(tg.ops.__all__)
}


def checked(name: str, seed: int, sizes: dict[str, int]) -> Iterator[str]:
    """Yield the report of each formula of a variant that is not right."""
    chosen = case(name, seed, sizes)
    check = chosen.check()
    for formula, backward in FORMULAS[chosen.operation].items():
        report = check.report(backward, f"{name}, {formula}, seed={seed}, {sizes}")
        if not report.ok:
            yield str(report)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_formula_agrees_with_the_numerical_gradient(name: str) -> None:
    letters = VARIANTS[name].letters
    ones = [dict.fromkeys(letters[start::2], 1) for start in (0, 1)]
    for seed, sizes in enumerate([{}, {}, *ones]):
        assert not list(checked(name, seed, sizes))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_formula_returns_none_in_place_of_the_gradient_of_an_absent_argument(
    name: str,
) -> None:
    # The numerical check compares only what is not None, in order.
    chosen = case(name)
    y, saved = chosen.module.forward(**chosen.args)

    def absent(backward: Callable[..., Any]) -> list[bool]:
        return [part is None for part in as_tuple(backward(np.ones_like(y), saved))]

    for formula, backward in FORMULAS[chosen.operation].items():
        assert absent(backward) == absent(chosen.module.backward), formula


# The operations that take any leading axes, and the axes that follow them.
ELEMENTWISE = ("gelu", "gelu_exact", "relu", "relu_squared", "silu", "soft_cap", "dropout")
AXES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(ELEMENTWISE, ()),
    **dict.fromkeys(("softmax", "rms_norm", "swiglu"), (6,)),
    "rotary": (3, 2, 6),
}
OTHER_ARGS: dict[str, dict[str, Any]] = {
    "soft_cap": {"cap": 1.5},
    "rms_norm": {"weight": np.linspace(-1, 2, 6)},
    "rotary": {"positions": np.array([0, 2, 7])},
}


@pytest.mark.parametrize("operation", AXES)
@pytest.mark.parametrize("leading", [(), (4,), (1,), (2, 1, 3)])
def test_every_formula_takes_any_leading_axes(operation: str, leading: tuple[int, ...]) -> None:
    module = getattr(tg.ops, operation)
    rng = np.random.default_rng(len(leading))
    x = rng.standard_normal(leading + AXES[operation])
    y, saved = module.forward(x, **OTHER_ARGS.get(operation, {}))
    dy = rng.standard_normal(np.shape(y))
    expected = as_tuple(module.backward(dy, saved))
    for name, formula in FORMULAS[operation].items():
        for right, found in zip(expected, as_tuple(formula(dy, saved)), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-14, err_msg=name)


def bodies(operation: str) -> Iterator[str]:
    """Yield the syntax tree of each formula of an operation, without its name."""
    for node in ast.parse((FOLDER / f"{operation}.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("backward_"):
            yield "".join(map(ast.dump, node.body))


@pytest.mark.parametrize("operation", tg.ops.__all__)
def test_an_operation_has_ten_formulas_that_all_differ(operation: str) -> None:
    found = list(bodies(operation))
    assert len(found) == len({*found}) == len(FORMULAS[operation]) == PER_OPERATION
