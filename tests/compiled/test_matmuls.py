"""The matmuls of a step against float64, within K roundings of a sum of K terms."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_twins import normals, poisoned

import tinygpt_np as tg
from tinygpt_np.compiled import matmuls
from tinygpt_np.compiled.kernels.matmul import make_scratch
from tinygpt_np.compiled.matmuls import HEAD, NOTHING, PACK_FROM, Matmuls
from tinygpt_np.compiled.simd.memory import Arena

# No two sizes alike, none a whole number of vectors, and columns for one panel, two and three.
CONFIG = tg.GPTConfig(vocab_size=71, block_size=9, n_layer=1, n_head=3, n_embd=45, bias=True)
ROWS = 23
NAMES = [
    *("h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_fc.weight"),
    *("h.0.mlp.c_proj.weight", HEAD),
]
MAKERS: dict[str, Callable[[matmuls.Tensors], Matmuls]] = {
    "packed": lambda params: matmuls.make("numba", params, PACK_FROM),
    "on the fly": lambda params: matmuls.make("numba", params, PACK_FROM - 1),
    "blas": lambda params: matmuls.make("blas", params, PACK_FROM),
}
every_name = pytest.mark.parametrize("name", NAMES)
every_start = pytest.mark.parametrize("start", ["nothing", "bias", "matrix", "itself"])
every_kind = pytest.mark.parametrize("kind", MAKERS)
_, normal = normals(31)
PARAMS = {name: normal(*param.shape) for name, param in tg.GPT(CONFIG).params.items()}
SCRATCH = make_scratch(Arena())


def prepared(kind: str, params: matmuls.Tensors = PARAMS) -> Matmuls:
    """Matmuls that are ready."""
    found = MAKERS[kind](params)
    prepare(found)
    return found


def prepare(found: Matmuls) -> None:
    """Its tasks in an order that no one would choose."""
    for task in reversed(found.prepare()):
        task()


def matrix(name: str, params: matmuls.Tensors = PARAMS) -> np.ndarray:
    """(C, K), in float64."""
    found = params["wte.weight"].T if name == HEAD else params[name]
    return found.astype(np.float64)


def start_and_result(start: str, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the start of the sums, and the array to write them to."""
    result = normal(rows, columns) if start == "itself" else poisoned(rows, columns)
    starts = {"nothing": NOTHING, "bias": normal(1, columns), "itself": result}
    return starts.get(start, normal(rows, columns)), result


def assert_matmul(found: np.ndarray, a: np.ndarray, b: np.ndarray, start: np.ndarray) -> None:
    """Check found = start + a·b, within one rounding for each term and for the start."""
    a, b, start = (array.astype(np.float64) for array in (a, b, start))
    start = start if len(start) else np.zeros((1, 1))
    bound = gamma(a.shape[1] + 1) * (np.abs(a) @ np.abs(b) + np.abs(start))
    assert_within(found, start + a @ b, bound)


@every_kind
@every_name
@every_start
def test_forward_is_the_product_with_the_weight(kind: str, name: str, start: str) -> None:
    weight = matrix(name)
    x = normal(ROWS, weight.shape[0])
    given, y = start_and_result(start, ROWS, weight.shape[1])
    before = given.copy()
    prepared(kind).forward(x, name, given, y, SCRATCH)
    assert_matmul(y, x, weight, before)


@every_kind
@every_name
def test_backward_is_the_product_with_the_weight_transposed(kind: str, name: str) -> None:
    weight = matrix(name)
    dy, dx = normal(ROWS, weight.shape[1]), poisoned(ROWS, weight.shape[0])
    prepared(kind).backward(dy, name, dx, SCRATCH)
    assert_matmul(dx, dy, weight.T, NOTHING)


@every_kind
@every_start
def test_the_gradient_is_the_product_of_input_transposed_and_gradient(
    kind: str, start: str
) -> None:
    x, dy = normal(ROWS, 45), normal(ROWS, 71)
    given, dweight = start_and_result(start, 45, 71)
    before = given.copy()
    prepared(kind).gradient(x, dy, given, dweight, SCRATCH)
    assert_matmul(dweight, x.T, dy, before)


@every_name
@every_kind
def test_weights_that_changed_in_place_count_once_it_is_prepared_again(
    kind: str, name: str
) -> None:
    params = {each: param.copy() for each, param in PARAMS.items()}
    found = prepared(kind, params)
    for param in params.values():
        param += 1
    prepare(found)
    weight = matrix(name, params)
    x, dy = normal(ROWS, weight.shape[0]), normal(ROWS, weight.shape[1])
    y, dx = poisoned(*dy.shape), poisoned(*x.shape)
    found.forward(x, name, NOTHING, y, SCRATCH)
    found.backward(dy, name, dx, SCRATCH)
    assert_matmul(y, x, weight, NOTHING)
    assert_matmul(dx, dy, weight.T, NOTHING)


def test_weights_of_many_uses_are_packed() -> None:
    for uses in (1, PACK_FROM - 1, PACK_FROM, PACK_FROM + 1):
        assert bool(matmuls.make("numba", PARAMS, uses).prepare()) == (uses >= PACK_FROM)


def test_a_wide_weight_is_packed_in_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(MAKERS["packed"](PARAMS).prepare())
    monkeypatch.setattr(matmuls, "COLUMNS_AT_ONCE", matmuls.PANEL)
    assert len(MAKERS["packed"](PARAMS).prepare()) > whole
    for name in NAMES:
        test_forward_is_the_product_with_the_weight("packed", name, "nothing")
        test_backward_is_the_product_with_the_weight_transposed("packed", name)


def test_the_weights_of_linear_layers_are_all_matrices_but_the_embeddings() -> None:
    found = dict(matmuls.matrices(PARAMS))
    assert list(found) == NAMES[:-1]
    assert all(found[name] is PARAMS[name] for name in found)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^matmul must be numba or blas, not 'mkl'$"):
        matmuls.make("mkl", PARAMS, 1)
