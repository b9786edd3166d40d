"""A typed line comes to what Python makes of it, or is refused with the reason."""

import ast
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, cast

import numpy as np
import pytest
from house import functions, source, statements

from tinygpt_np.gradcheck.cases import CASES, Case
from tinygpt_np.ops.attention import merge_heads
from tinygpt_np.study.typed import Refused, evaluate


@dataclass(frozen=True)
class Line:
    """A line of ops/, what was known before it, and what its name held after Python ran it."""

    where: str
    text: str
    name: str
    names: dict[str, Any]
    calls: dict[str, Any]
    after: Any


def calls_of(module: ModuleType) -> dict[str, Any]:
    """The functions of a module and of the modules it imports, by their text in a line."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, FunctionType):
            found[name] = value
        elif isinstance(value, ModuleType) and value.__name__.startswith("tinygpt_np.ops."):
            found |= {f"{name}.{inner}": call for inner, call in calls_of(value).items()}
    return found


def snapshot(names: dict[str, Any]) -> dict[str, Any]:
    return {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in names.items()}


def target(node: ast.stmt) -> str:
    """The one name that a statement sets; "" if it unpacks several."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AugAssign(target=ast.Name(id=name)):
            return name
        case ast.Expr(value=ast.Call(args=[ast.Name(id=name), *_])):
            return name
        case _:
            return ""


def lines_of(case: Case, function: str) -> Iterator[Line]:
    text = source("ops", f"{case.operation}.py")
    node = functions(text)[function]
    y, saved = case.module.forward(**case.args)
    constants = {n: v for n, v in vars(case.module).items() if n.isupper()}
    doutput = np.random.default_rng(1).standard_normal(np.shape(y))
    local: dict[str, Any] = {node.args.args[0].arg: doutput, node.args.args[1].arg: saved}
    for statement in statements(node):
        name, segment = target(statement), ast.get_source_segment(text, statement)
        assert segment is not None
        before = snapshot(local)
        exec(segment, vars(case.module), local)
        if name:
            after = snapshot(local)[name]
            where = f"{case.name}: {segment}"
            yield Line(where, segment, name, constants | before, calls_of(case.module), after)


LINES = [
    line
    for case in CASES
    for backward in case.backwards()
    for line in lines_of(case, backward.__name__)
]
each_line = pytest.mark.parametrize("line", LINES, ids=[line.where for line in LINES])


def bits(value: Any) -> tuple[Any, ...]:
    """What two values share only if they are the same to the last bit."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(cast(Any, value))
        return "array", array.dtype, array.shape, array.tobytes()
    if isinstance(value, tuple | list):
        return isinstance(value, list), *map(bits, cast(list[Any], value))
    return type(value).__name__, value


@each_line
def test_a_line_of_ops_comes_to_what_python_makes_of_it(line: Line) -> None:
    found = evaluate(f"{line.text}  # (N, C)", line.names, line.calls)
    held = line.names[line.name] + found.value if found.adds else found.value
    assert (found.name, bits(held)) == (line.name, bits(line.after))


@each_line
def test_a_line_of_ops_changes_nothing_that_was_known(line: Line) -> None:
    before = {name: bits(value) for name, value in line.names.items()}
    evaluate(line.text, line.names, line.calls)
    assert {name: bits(value) for name, value in line.names.items()} == before


def test_the_lines_are_those_of_every_operation() -> None:
    assert len({line.text for line in LINES}) >= 60
    assert {line.where.split(":")[0] for line in LINES} == {case.name for case in CASES}


RNG = np.random.default_rng(0)
NAMES: dict[str, Any] = {
    "dy": RNG.standard_normal((6, 7)),
    "weight": RNG.standard_normal((8, 7)),
    "x": RNG.standard_normal((6, 8)),
    "dx": RNG.standard_normal((6, 8)),
    "heads": RNG.standard_normal((2, 4, 3, 5)),
    "ids": np.array([1, 3, 1, 0, 7, 2]),
    "visible": np.tri(3, dtype=bool),
    "big": np.zeros((400, 400)),
    "far": np.zeros(150_000, dtype=int),
    "mask": None,
    "count": 5,
    "shape": (8, 7),
}
CALLS: dict[str, Any] = {"merge_heads": merge_heads}


def work_out(text: str) -> Any:
    return evaluate(text, NAMES, CALLS).value


@pytest.mark.parametrize(
    "text",
    [
        "dy @ weight.T", "dy.mean(0)", "np.sum(dy, axis=(0, 1))", "dy[:, None, ::2]", "dy[..., -1]",
        "weight[ids[:2], [0, 1]]", "x[x > 0]", "heads.transpose(0, 2, 1, 3)", "shape[-1] ** -2",
        "heads.reshape(8, -1)", "np.broadcast_to(dy[0], (3, 7))", "2 / np.pi ** 0.5", "ids ** 2",
        "[dy, weight.mT]", "heads.max(axis=-1, keepdims=True)", "np.full((2, 3), 0.1 + 0.2)",
        "np.tri(3, 4, k=-1, dtype=bool)", "dy[0] @ weight[1]", "dy @ weight[1]", "1 / x.sum()",
        "heads @ heads.mT[0]", "(1, None, -count)", "x / (x - x)", "x.T", "np.zeros(3, x.dtype)",
    ],
)  # fmt: skip
def test_an_expression_comes_to_what_python_makes_of_it(text: str) -> None:
    with np.errstate(all="ignore"):
        expected = eval(text, {"np": np}, dict(NAMES))
    found = work_out(text)
    assert bits(found) == bits(expected)


@pytest.mark.parametrize(
    ("text", "name", "adds", "same"),
    [
        ("dy @ weight.T", "", False, "dy @ weight.T"),
        ("dx = x", "dx", False, "x"),
        ("dx += x * 2", "dx", True, "x * 2"),
        ("dx = dx + x * 2", "dx", True, "x * 2"),
        ("dx = x * 2 + dx", "dx", True, "x * 2"),
        ("dx = dx + x + x[0]", "dx", True, "x + x[0]"),
        ("dx = dx * x + x", "dx", False, "dx * x + x"),
        ("dx = -dx", "dx", False, "-dx"),
        ("count += 2", "count", True, "2"),
    ],
)
def test_what_is_added_is_told_from_what_is_set(
    text: str, name: str, adds: bool, same: str
) -> None:
    found = evaluate(text, NAMES, CALLS)
    assert (found.name, found.adds, bits(found.value)) == (name, adds, bits(work_out(same)))


def test_what_np_add_at_adds_is_scattered_into_zeros() -> None:
    found = evaluate("np.add.at(weight, ids, dy)", NAMES, CALLS)
    expected = np.zeros_like(NAMES["weight"])
    np.add.at(expected, NAMES["ids"], NAMES["dy"])
    assert (found.name, found.adds, bits(found.value)) == ("weight", True, bits(expected))


@pytest.mark.parametrize(
    "text", ["dx = x", "dx += x", "dx = x.T", "dx = (x, x)", "dx = x.reshape(8, 6)"]
)
def test_what_comes_back_may_be_written_to_and_shares_no_memory(text: str) -> None:
    value = work_out(text)
    for array in cast(tuple[Any, ...], value if isinstance(value, tuple) else (value,)):
        array[:] = 0
        assert not np.shares_memory(array, NAMES["x"])


def test_a_call_cannot_change_what_is_known() -> None:
    def spoil(given: Any) -> Any:
        given[0][0] += 1
        return given[0]

    names = {"x": NAMES["x"].copy(), "saved": (NAMES["x"].copy(),)}
    before = {"x": bits(names["x"]), "saved": bits(names["saved"][0])}
    for text in ("spoil(x)", "spoil(saved)", "spoil([x])", "spoil((x.T,))"):
        with pytest.raises(Refused, match="read-only"):
            evaluate(text, names, {"spoil": spoil})
    assert {"x": bits(names["x"]), "saved": bits(names["saved"][0])} == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # Mistakes of a learner: what is wrong, with the shapes.
        ("dx = dy @ weight", r"dy \(6, 7\) @ weight \(8, 7\): the inner sizes 7 and 8 differ"),
        ("dx = x.T @ dy.T", r"x.T \(8, 6\) @ dy.T \(7, 6\): the inner sizes 6 and 7 differ"),
        ("dy * x", r"dy \(6, 7\) \* x \(6, 8\): the sizes 7 and 8 differ, and neither is 1"),
        ("dy + (x * 2)", r"dy \(6, 7\) \+ \(x \* 2\) \(6, 8\)"),
        ("dx @ 2", "a number is multiplied by"),
        ("dx += dy", r"dx \(6, 8\) \+= dy \(6, 7\): the sizes 8 and 7 differ"),
        ("dx += mask", "numbers and arrays, not None"),
        ("shape += shape", "numbers and arrays, not a tuple"),
        ("dx += heads", r"dx \(6, 8\) \+= heads"),
        ("dx += x[None]", r"the sum would have the shape \(1, 6, 8\)"),
        ("ids += 0.5", "Cannot cast"),
        ("np.where(visible, heads, 0)", r"with visible \(3, 3\), heads \(2, 4, 3, 5\): the sizes"),
        ("np.add.at(weight, ids, x)", r"x \(6, 8\)\): the sizes 7 and 8 differ"),
        ("np.add.at(weight, ids, heads)", "differ|the places have the shape"),
        ("np.add.at(weight, ids, dy[None])", r"the places have the shape \(6, 7\)"),
        ("np.add.at(weight, ids, mask)", "numbers and arrays, not None"),
        ("np.add.at(weight, ids, dy, out=dx)", "takes a name, the places, and what to add"),
        ("np.add.at(weight, [8], dy)", "index"),
        ("np.add.at(count, ids, dy)", "a number has no places"),
        ("np.add.at(weight, ids)", "takes a name, the places, and what to add"),
        ("weigth * 2", r"there is no `weigth` here \(did you mean `weight`\?\); known: dy, weight"),
        ("dz += x", "there is no `dz` here"),
        ("dy.sum(axis=2)", r"dy.sum\(axis=2\) with dy \(6, 7\): axis 2 is out of bounds"),
        ("dy.reshape(5, 5)", "cannot reshape"),
        ("dy[6]", "out of bounds"),
        ("x * mask", "numbers and arrays, not None"),
        ("x * shape", "not a tuple"),
        ("merge_heads(x)", r"merge_heads\(x\) with x \(6, 8\): .* heads must be"),
        ("merge_heads(heads, 2)", "positional argument"),
        ("x if x > 0 else dx", "neither true nor false"),
        ("1 / 0", "division by zero"),
        ("mask.T", "only an array has a .T"),
        ("count.sum()", "array must be an array"),
        ("float(x)", "a single number"),
        ("ids[0].mT", "mT"),
        # Values of other kinds.
        ("'x'", "text in quotes"),
        ("(-8) ** 0.5", "a complex"),
        ("x[0:0]", "is empty"),
        ("x[True]", "an index is made of"),
        ("x[0.5]", "an index is made of"),
        ("x[[None]]", "an index is made of"),
        ("x[:0.5]", "an index is made of"),
        ("x[visible[0, 0]]", "an index is made of"),
        ("-mask", "numbers and arrays, not None"),
        ("np.inf", "of NumPy there are np.pi"),
        ("shape[ids]", "cannot be indexed so"),
        ("x.dtype", "stands only behind"),
        ("np.zeros(3, dtype=int)", "dtype must be bool, float or"),
        ("np.zeros(3, dtype=np.float64)", "dtype must be bool, float or"),
        ("np.zeros(3, dtype=count.dtype)", "only an array has a .dtype"),
        ("np.zeros(-3)", "shape must be"),
        ("np.zeros(True)", "shape must be"),
        ("x.sum(axis=0.5)", "axis must be"),
        ("x.sum(keepdims=1)", "keepdims must be"),
        ("x.sum(0, axis=0)", "each once"),
        ("x.sum(0, True)", "each once"),
        ("x.sum(0, keepdims=True, keepdims=True)", "each once"),
        ("x.sum(out=dx)", "takes array, axis=, keepdims="),
        ("np.exp(x, dx)", "takes x"),
        ("np.exp()", "takes x"),
        ("np.exp(x, **shape)", "takes x"),
        ("np.where(visible)", "takes condition, x, y"),
        ("np.concatenate(x)", "a list of arrays"),
        ("merge_heads(heads=heads)", "in their order"),
        # What would be too large, or take too long.
        ("x = " + "1 + " * 80 + "1", "at most 300"),
        ("-" * 100 + "1", "too deep"),
        ("(" * 250, "Python cannot read this: too many nested parentheses"),
        ("(" * 5000, "at most 300"),
        ("x[" * 40 + "0" + "]" * 40, "too deep"),
        ("-1, " * 70, "too many parts"),
        ("9 ** 9 ** 9", "exponent is too large"),
        ("9 ** 64", "too large an integer"),
        ("2 ** 63 * 2", "too large an integer"),
        ("9" * 25, "too large an integer"),
        ("10.0 ** 400", "Result too large|out of range"),
        ("np.zeros(10 ** 12)", "shape must be a size"),
        ("x[far[:, None] > -1]", "boolean index did not match"),
        ("big[[1] * 2]", "numbers and arrays, not a list"),
        ("big @ big @ big", "too much work"),
    ],
)  # fmt: skip
def test_a_line_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        work_out(text)


@pytest.mark.parametrize(
    "text",
    [
        "far[:4000, None] > far[:4000]", "big[:, :, None] * big[:, :60]", "big[far]", "big[:, far]",
        "far[:4000, None] @ far[None, :4000]", "big[:, :, None] @ big[:, None]",
        "np.zeros((4000, 4000))", "np.ones((4000, 4000))", "np.full((4000, 4000), 1)",
        "np.tri(4000)", "np.tri(100, 200000)", "np.where(far[:4000], far[:4000, None], 0)",
        "np.broadcast_to(1, (4000, 4000))", "np.concatenate([" + "far, " * 40 + "far])",
        "np.add.at(big, far, 1)", "np.add.at(big, (far[:4000, None], far[None, :4000]), 1)",
    ],
)  # fmt: skip
def test_what_is_too_large_is_never_made(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="more than 200,000 elements"):
            work_out(text)
        assert tracemalloc.get_traced_memory()[1] < 10e6, "bytes were taken"
    finally:
        tracemalloc.stop()
