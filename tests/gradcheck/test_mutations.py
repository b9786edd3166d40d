"""Each kind of mistake is made where it can be made, one at a time, and nothing else changes."""

import ast

import pytest

from tinygpt_np.gradcheck.mutations import KINDS, Mutation, mutations, sites

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
    """The mutants of one line of a backward: what becomes of it, and the kind of mistake."""
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
        (
            "dx = a.sum(axis=-1, keepdims=True)",
            "dx = a.mean(axis=-1, keepdims=True)",
            "sum and mean",
        ),
        ("dx = a.mean(axis=0)", "dx = a.sum(axis=0)", "sum and mean"),
        ("dx = a.mean(axis=0)", "dx = a.mean(axis=-1)", "axis"),
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
        (
            "dx = np.concatenate([a, b, c], axis=-1)",
            "dx = np.concatenate([b, a, c], axis=-1)",
            "order",
        ),
    ],
)
def test_a_line_gets_the_mistake(line: str, after: str, kind: str) -> None:
    assert made(line).get(after) == kind


def test_what_was_saved_is_unpacked_in_the_wrong_order() -> None:
    found = mutations(SOURCE.format(line="pass"), "backward")
    swapped = [m.after for m in found if m.kind == "saved swapped"]
    assert swapped == ["square, x, weight = saved", "x, weight, square = saved"]


def test_gradients_are_returned_in_the_wrong_order() -> None:
    found = mutations(SOURCE.format(line="pass"), "backward")
    assert [m.after for m in found if m.kind == "order"] == ["return (dweight, dx)"]


def test_a_loop_over_the_layers_runs_forwards() -> None:
    text = "def backward(d):\n    for layer in reversed(range(3)):\n        d = d\n    return d\n"
    assert "for layer in range(3):" in [m.after for m in mutations(text, "backward")]


def test_another_name_for_the_same_value_is_no_mistake() -> None:
    text = SOURCE.format(line="dz = dy  # (N, K)\n    dweight = x.T @ dy")
    assert "dweight = x.T @ dz" not in [m.after for m in mutations(text, "backward")]


def test_the_last_axis_is_not_negated() -> None:
    # axis=1 would be the same axis.
    assert "dx = np.concatenate([a, b], axis=1)" not in made("dx = np.concatenate([a, b], axis=-1)")


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, Mutation]]:
    return [(site.operation, mutation) for site in sites() for mutation in site.mutations()]


def test_there_are_hundreds(everything: list[tuple[str, Mutation]]) -> None:
    assert len(everything) >= 400


def test_every_kind_is_made_and_explained(everything: list[tuple[str, Mutation]]) -> None:
    assert {mutation.kind for _, mutation in everything} == set(KINDS)


def test_no_two_mutants_are_the_same(everything: list[tuple[str, Mutation]]) -> None:
    texts = [(room, ast.unparse(mutation.tree)) for room, mutation in everything]
    assert len(texts) == len(set(texts))


def test_a_mutant_differs_from_the_original_in_the_line_it_names() -> None:
    text = SOURCE.format(line="dx = dy @ weight.T  # (N, C)\n    dweight = square.T @ dy")
    original = ast.unparse(ast.parse(text).body[1]).splitlines()
    for mutation in mutations(text, "backward"):
        changed = ast.unparse(mutation.tree).splitlines()
        different = [pair for pair in zip(original, changed, strict=True) if pair[0] != pair[1]]
        assert [(a.strip(), b.strip()) for a, b in different] == [(mutation.before, mutation.after)]
        named = ast.parse(text.splitlines()[mutation.line - 1].strip().replace("return", "x ="))
        assert ast.unparse(named) == mutation.before.replace("return", "x =")
