"""Each mistake is made wherever it can be made, and planted where all code calls it."""

import ast
import inspect
import re

import pytest

from tinygpt_np import ops
from tinygpt_np.gradcheck.mutations import EQUIVALENT, KINDS, mutations, sites
from tinygpt_np.model.gpt import GPT

SITES = sites()
IDS = [f"{site.operation}.{site.function}" for site in SITES]
SOURCE = '''
def forward(x, weight):
    """x (N, C), weight (C, K) -> y (N, K), saved."""
    square = x * x  # (N, C)
    y = square @ weight  # (N, K)
    return y, (x, square, weight)


def backward(dy, saved):
    """dy (N, K) -> dx (N, C), dweight (C, K)."""
    x, square, weight = saved
    {line}
    return dx, dweight
'''


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("dx = dy @ weight.T", "weight.T @ dy, dy @ weight, dy.mT @ weight.T, -(dy @ weight.T), "
         "dy @ weight.T / 2, np.ones_like(dy) @ weight.T"),
        ("dx = a + b", "a, b, a + b + b, a - b, -(a + b), (a + b) / 2"),
        ("dx = a - b", "a, -b, a - b - b, a + b, b - a, -(a - b), (a - b) / 2"),
        ("dx = a * b", "a, b, a * b * b, -(a * b), a * b / 2"),
        ("dx = a / n", "a, a / n / n, a * n, n / a, -(a / n), a / n / 2"),
        ("dx = -a", "a"),
        ("x = a.sum(axis=-1, keepdims=True)", "a, a.mean(axis=-1, keepdims=True), "
         "a.sum(axis=0, keepdims=True), a.sum(keepdims=True), a.sum(axis=-1)"),
        ("x = a.mean(axis=0)", "a, a.sum(axis=0), a.mean(axis=-1), a.mean()"),
        ("x = dy.copy()", "dy, np.ones_like(dy).copy()"),
        ("x = a / square.shape[-1]", "a, a / square.shape[-1] / square.shape[-1], "
         "square.shape[-1] / a, a * square.shape[-1], a / square.shape[0], a / x.shape[-1]"),
        ("x = np.tri(5, dtype=bool)", "np.tri(5, dtype=bool, k=1), np.tri(5, dtype=bool, k=-1)"),
        ("x = np.where(seen, a, 0)", "a, np.where(seen, 0, a)"),
        ("x = softmax.backward(a, saved_probs)", "a"),
        ("x = None if unbiased else a", "None, a"),
        ("x = square * a", "square, a, square * a * a, x * a"),
        ("x = keep('h.0' + '.ln_1', a)", "keep('h.0' + '.ln_2', a), keep('h.0', a), "
         "keep('.ln_1', a), keep('h.0' + '.ln_1' + '.ln_1', a), keep('h.0' - '.ln_1', a)"),
        # The axis is not negated: axis=1 would be the same.
        ("x = np.concatenate([a, b, c], axis=-1)", "np.concatenate([b, a, c], axis=-1), "
         "np.concatenate([a, c, b], axis=-1)"),
    ],
)  # fmt: skip
def test_a_line_has_these_mutants(line: str, mutants: str) -> None:
    found = mutations(SOURCE.format(line=line), "backward")
    name = line.split(" = ")[0]
    expected = [f"{name} = {each}" for each in re.split(r", (?![^(\[]*[)\]])", mutants)]
    assert sorted(m.after for m in found if m.before == line) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("dx += a", ["dx = a", "(nothing)", "dx += a; dx += a", "dx -= a"]),
        ("np.add.at(dx, ids, a)", ["dx[ids] += a", "dx[ids] = a", "(nothing)"]),
    ],
)
def test_a_statement_has_these_mutants(line: str, mutants: list[str]) -> None:
    found = mutations(SOURCE.format(line=line), "backward")
    assert [m.after for m in found if m.before == line] == mutants


def test_each_of_several_paths_is_dropped() -> None:
    text = SOURCE.format(line="dx = a\n    dx = dx + b\n    dweight = c\n    dx += c")
    found = [(m.before, m.after) for m in mutations(text, "backward") if m.kind == "path dropped"]
    assert sorted(found) == [
        ("dx += c", "(nothing)"), ("dx = a", "dx = np.zeros_like(a)"), ("dx = dx + b", "(nothing)"),
    ]  # fmt: skip


def test_another_name_of_the_same_value_is_not_a_mutant() -> None:
    text = SOURCE.format(line="dz = dy  # (N, K)\n    dweight = x.T @ dy")
    assert "dweight = x.T @ dz" not in [m.after for m in mutations(text, "backward")]


def test_names_that_a_line_sets_together_have_the_shapes_of_its_comment() -> None:
    text = SOURCE.format(line="dx, dz = f(dy)  # (N, C), (N, K)\n    dweight = x.T @ dz")
    assert "dweight = x.T @ dy" in [m.after for m in mutations(text, "backward")]


def test_every_backward_of_the_operations_and_the_model_is_a_site() -> None:
    found = [
        f"{name}.{function}"
        for name in ops.__all__
        for function in dir(getattr(ops, name))
        if function.startswith("backward")
    ]
    methods = [name for name, _ in inspect.getmembers(GPT) if "backward" in name]
    assert sorted(IDS) == sorted([*found, *(f"gpt.{name}" for name in [*methods, "keep"])])


def test_every_mutant_compiles_and_differs_from_the_others_and_every_kind_is_made() -> None:
    found = [(site, mutation) for site in SITES for mutation in site.mutations()]
    texts = [(site.operation, ast.unparse(mutation.tree)) for site, mutation in found]
    assert len(texts) == len(set(texts)) == 1101
    assert all(callable(site.compiled(mutation)) for site, mutation in found)
    assert {mutation.kind for _, mutation in found} == set(KINDS)
    assert set(EQUIVALENT) <= {(s.operation, s.function, m.before, m.after) for s, m in found}
    assert len(EQUIVALENT) == 19


@pytest.mark.parametrize("number", [IDS.index("softmax.backward_steps"), IDS.index("gpt.keep")])
def test_a_planted_mutant_is_called_until_it_is_removed(number: int) -> None:
    site = SITES[number]
    called = site.function.removesuffix("_steps")
    before = getattr(site.owner, called)
    with site.planted(print):
        assert getattr(site.owner, called) is print
    assert getattr(site.owner, called) is before
