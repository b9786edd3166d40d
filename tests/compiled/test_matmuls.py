"""The matmuls of a step against float64, within K roundings of a sum of K terms."""

import numpy as np
import pytest
from helpers.kernel_bounds import assert_within, gamma
from helpers.kernel_twins import normals, poisoned

import tinygpt_np as tg
from tinygpt_np.compiled import matmuls
from tinygpt_np.compiled.kernels.matmul import PANEL, make_scratch
from tinygpt_np.compiled.matmuls import HEAD, NOTHING, PACK_FROM, Matmuls
from tinygpt_np.compiled.simd.memory import Arena

# No two sizes alike, none a whole number of vectors, and columns for one panel, two and three.
CONFIG = tg.GPTConfig(vocab_size=71, block_size=9, n_layer=1, n_head=3, n_embd=45, bias=True)
ROWS = 23
NAMES = [
    *("h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_fc.weight"),
    *("h.0.mlp.c_proj.weight", HEAD),
]
_, normal = normals(31)


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


@pytest.mark.parametrize("start", ["nothing", "bias", "matrix", "itself"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "uses", "at_once"),
    [("numba", PACK_FROM, 8 * PANEL), ("numba", PACK_FROM, PANEL), ("numba", PACK_FROM - 1, PANEL),
     ("blas", PACK_FROM, PANEL)],
    ids=["packed", "packed in parts", "on the fly", "blas"],
)  # fmt: skip
def test_matmuls_are_true_also_after_weights_have_changed_in_place(
    kind: str, uses: int, at_once: int, name: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmuls, "COLUMNS_AT_ONCE", at_once)
    params = {name: normal(*param.shape) for name, param in tg.GPT(CONFIG).params.items()}
    weight = params["wte.weight"].T if name == HEAD else params[name]
    found, scratch = Matmuls(params, uses, kind), make_scratch(Arena())
    assert bool(found.prepare()) == (kind == "numba" and uses >= PACK_FROM)
    for _ in range(2):
        weight += 1
        for task in reversed(found.prepare()):  # In any order.
            task()
        x, dy = normal(ROWS, weight.shape[0]), normal(ROWS, weight.shape[1])
        given, y = start_and_result(start, *dy.shape)
        before = given.copy()
        found.forward(x, name, given, y, scratch)
        assert_matmul(y, x, weight, before)
        dx = poisoned(*x.shape)
        found.backward(dy, name, dx, scratch)
        assert_matmul(dx, dy, weight.T, NOTHING)
        given, dweight = start_and_result(start, *weight.shape)
        before = given.copy()
        found.gradient(x, dy, given, dweight, scratch)
        assert_matmul(dweight, x.T, dy, before)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^matmul must be numba or blas, not 'mkl'$"):
        Matmuls({}, 1, "mkl")
