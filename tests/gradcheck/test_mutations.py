"""Each mistake is made wherever it can be made, and planted where all code calls it."""

import ast
import inspect

import numpy as np
import pytest

from tinygpt_np import ops
from tinygpt_np.gradcheck.mutations import EQUIVALENT, KINDS, Mutation, Site, mutations, sites
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


def made(line: str) -> dict[str, str]:
    """Return the mutants of one line of a backward: the changed line, and the kind of mistake."""
    found = mutations(SOURCE.format(line=line), "backward")
    return {m.after: m.kind for m in found if m.before == ast.unparse(ast.parse(line))}


@pytest.mark.parametrize(
    ("line", "after", "kind"),
    [
        ("dx = dy @ weight.T", "dx = weight.T @ dy", "operands swapped"),
        ("dx = dy @ weight.T", "dx = dy @ weight", "transpose"),
        ("dx = dy @ weight.T", "dx = dy.mT @ weight.T", "transpose"),
        ("dx = dy @ weight.T", "dx = np.ones_like(dy) @ weight.T", "upstream ignored"),
        ("dx = dy @ weight.T", "dx = -(dy @ weight.T)", "sign"),
        ("dx = dy @ weight.T", "dx = dy @ weight.T / 2", "factor 1/2"),
        ("dx = a + b", "dx = a", "term dropped"),
        ("dx = a + b", "dx = b", "term dropped"),
        ("dx = a + b", "dx = a + b + b", "term doubled"),
        ("dx = a + b", "dx = a - b", "sign"),
        ("dx = a - b", "dx = -b", "term dropped"),
        ("dx = a - b", "dx = b - a", "operands swapped"),
        ("dx = a * b", "dx = a", "factor dropped"),
        ("dx = a * b", "dx = a * b * b", "factor doubled"),
        ("dx = a / n", "dx = a", "factor dropped"),
        ("dx = a / n", "dx = a * n", "factor inverted"),
        ("dx = a / n", "dx = n / a", "operands swapped"),
        ("dx = -a", "dx = a", "sign"),
        ("dx += a", "dx = a", "+= to ="),
        ("dx += a", "(nothing)", "term dropped"),
        ("dx += a", "dx += a; dx += a", "term doubled"),
        ("dx += a", "dx -= a", "sign"),
        ("dx = a.sum(axis=-1, keepdims=True)", "dx = a.sum(axis=0, keepdims=True)", "axis"),
        ("dx = a.sum(axis=-1, keepdims=True)", "dx = a.sum(keepdims=True)", "axis"),
        ("dx = a.sum(axis=-1, keepdims=True)", "dx = a.sum(axis=-1)", "keepdims"),
        ("dx = a.sum(axis=0)", "dx = a.mean(axis=0)", "sum and mean"),
        ("dx = a.mean(axis=0)", "dx = a.sum(axis=0)", "sum and mean"),
        ("dx = a.mean(axis=0)", "dx = a", "sum dropped"),
        ("dx = dy.copy()", "dx = dy", "copy dropped"),
        ("dx = a / square.shape[-1]", "dx = a / square.shape[0]", "1/N"),
        ("seen = np.tri(5, dtype=bool)", "seen = np.tri(5, dtype=bool, k=1)", "mask"),
        ("seen = np.tri(5, dtype=bool)", "seen = np.tri(5, dtype=bool, k=-1)", "mask"),
        ("dx = np.where(seen, dy, 0)", "dx = dy", "mask"),
        ("dx = np.where(seen, dy, 0)", "dx = np.where(seen, 0, dy)", "mask"),
        ("dx = softmax.backward(dy, saved_probs)", "dx = dy", "call skipped"),
        ("dx = None if unbiased else dy", "dx = None", "condition"),
        ("dx = None if unbiased else dy", "dx = dy", "condition"),
        ("np.add.at(dx, ids, dy)", "dx[ids] += dy", "scatter"),
        ("np.add.at(dx, ids, dy)", "dx[ids] = dy", "scatter"),
        ("dx = square * dy", "dx = x * dy", "stale value"),
        ("dx = keep('h.0' + '.ln_1', dy)", "dx = keep('h.0' + '.ln_2', dy)", "wrong name"),
        ("dx = np.concatenate([a, b, c])", "dx = np.concatenate([b, a, c])", "order"),
    ],
)
def test_a_line_has_the_mutant(line: str, after: str, kind: str) -> None:
    assert made(line).get(after) == kind


def test_saved_values_and_gradients_are_swapped() -> None:
    found = mutations(SOURCE.format(line="pass"), "backward")
    swapped = [m.after for m in found if m.kind == "saved swapped"]
    assert swapped == ["square, x, weight = saved", "x, weight, square = saved"]
    assert [m.after for m in found if m.kind == "order"] == ["return (dweight, dx)"]


def test_another_name_of_the_same_value_is_not_a_mutant() -> None:
    text = SOURCE.format(line="dz = dy  # (N, K)\n    dweight = x.T @ dy")
    assert "dweight = x.T @ dz" not in [m.after for m in mutations(text, "backward")]


def test_the_last_axis_is_not_negated() -> None:
    # axis=1 would be the same axis.
    assert "dx = np.concatenate([a, b], axis=1)" not in made("dx = np.concatenate([a, b], axis=-1)")


def test_a_mutant_differs_from_the_original_in_the_line_it_names() -> None:
    text = SOURCE.format(line="dx = dy @ weight.T  # (N, C)\n    dweight = square.T @ dy")
    original = ast.unparse(ast.parse(text).body[1]).splitlines()
    for mutation in mutations(text, "backward"):
        changed = ast.unparse(mutation.tree).splitlines()
        different = [pair for pair in zip(original, changed, strict=True) if pair[0] != pair[1]]
        assert [(a.strip(), b.strip()) for a, b in different] == [(mutation.before, mutation.after)]
        named = ast.parse(text.splitlines()[mutation.line - 1].strip().replace("return", "x ="))
        assert ast.unparse(named) == mutation.before.replace("return", "x =")


# Sites


def site(name: str) -> Site:
    return SITES[IDS.index(name)]


@pytest.fixture(scope="module")
def everything() -> list[tuple[Site, Mutation]]:
    return [(site, mutation) for site in SITES for mutation in site.mutations()]


def test_every_backward_of_the_operations_and_the_model_is_a_site() -> None:
    found = [
        f"{name}.{function}"
        for name in ops.__all__
        for function in dir(getattr(ops, name))
        if function.startswith("backward")
    ]
    methods = [name for name, _ in inspect.getmembers(GPT) if "backward" in name]
    assert sorted(IDS) == sorted([*found, *(f"gpt.{name}" for name in [*methods, "keep"])])


def test_every_kind_is_made(everything: list[tuple[Site, Mutation]]) -> None:
    assert {mutation.kind for _, mutation in everything} == set(KINDS)


def test_every_mutant_compiles_and_differs_from_the_others(
    everything: list[tuple[Site, Mutation]],
) -> None:
    texts = [(site.operation, ast.unparse(mutation.tree)) for site, mutation in everything]
    assert len(texts) == len(set(texts)) == 705
    assert all(callable(site.compiled(mutation)) for site, mutation in everything)


def test_every_equivalent_mutant_is_made_and_has_a_reason(
    everything: list[tuple[Site, Mutation]],
) -> None:
    made = {(s.operation, s.function, m.before, m.after) for s, m in everything}
    assert set(EQUIVALENT) <= made
    assert all(EQUIVALENT.values())
    assert len(EQUIVALENT) == 16


@pytest.mark.parametrize("name", ["softmax.backward_steps", "gpt.keep"])
def test_a_planted_mutant_is_called_until_it_is_removed(name: str) -> None:
    chosen = site(name)
    called = chosen.function.removesuffix("_steps")
    before = getattr(chosen.owner, called)

    def mutant() -> None: ...

    with chosen.planted(mutant):
        assert getattr(chosen.owner, called) is mutant
    assert getattr(chosen.owner, called) is before
    with pytest.raises(ZeroDivisionError), chosen.planted(mutant):
        _ = 1 / 0
    assert getattr(chosen.owner, called) is before


def test_attention_calls_a_planted_softmax() -> None:
    chosen = site("softmax.backward")
    sign = next(
        m for m in chosen.mutations() if m.after == "dx = -(probs * (dprobs - weighted_mean))"
    )
    rng = np.random.default_rng(0)
    y, saved = ops.attention.forward(rng.standard_normal((6, 9)), 2, 1)
    dy = rng.standard_normal(y.shape)
    right = ops.attention.backward(dy, saved)
    with chosen.planted(chosen.compiled(sign)):
        wrong = ops.attention.backward(dy, saved)
    # The gradients of queries and keys pass through the softmax, those of values do not.
    np.testing.assert_array_equal(wrong[:, :6], -right[:, :6])
    np.testing.assert_array_equal(wrong[:, 6:], right[:, 6:])
