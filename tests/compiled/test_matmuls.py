"""The operands and starts of matmuls. test_engine.py tests them in a whole step."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.kernel_twins import normals, poisoned

import tinygpt_np as tg
from tinygpt_np.compiled import matmuls
from tinygpt_np.compiled.kernels.matmul import PANEL, make_scratch
from tinygpt_np.compiled.matmuls import NOTHING, PACK_FROM, Matmuls
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.storage.parameters import param_shapes

# No two sizes alike, none a whole number of vectors, and columns for one panel, two and three.
CONFIG = tg.GPTConfig(vocab_size=71, block_size=9, n_layer=1, n_head=3, n_embd=45, bias=True)
_, normal = normals(31)


@pytest.mark.parametrize(
    "name", ["h.0.attn.c_attn.weight", "h.0.mlp.c_proj.weight", "wte.weight", "lm_head.weight"]
)
@pytest.mark.parametrize("start", ["nothing", "bias", "matrix", "itself"])
def test_matmuls_are_the_same_packed_or_not_and_by_blas(
    name: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmuls, "COLUMNS_AT_ONCE", PANEL)
    config = replace(CONFIG, tied_head=name != "lm_head.weight")
    params = {name: normal(*shape) for name, shape in param_shapes(config).items()}
    head = config.head_name
    weight = params[name].T if name == head else params[name]
    plain, packed = (Matmuls(params, head, uses) for uses in (PACK_FROM - 1, PACK_FROM))
    assert len(packed.packing.calls)
    assert not len(plain.packing.calls)
    weight += 1  # In place, before the calls are made, in any order.
    packed.packing.calls = packed.packing.calls[::-1].copy()
    packed.packing.shared()()
    x, dy, scratch = normal(23, len(weight)), normal(23, weight.shape[1]), make_scratch(Arena())
    given = {"nothing": NOTHING, "bias": normal(1, dy.shape[1])}.get(start, normal(*dy.shape))
    results: list[np.ndarray] = []
    for each in (Matmuls(params, head, PACK_FROM, "blas"), plain, packed):
        y, dx = given.copy() if start == "itself" else poisoned(*dy.shape), poisoned(*x.shape)
        each.forward(x, name, y if start == "itself" else given, y, scratch)
        each.backward(dy, name, dx, scratch)
        results.append(np.concatenate([y.reshape(-1), dx.reshape(-1)]))
    truth = x.astype(np.float64) @ weight + (given if len(given) else 0)
    np.testing.assert_allclose(results[0][: truth.size], truth.reshape(-1), atol=1e-4)
    np.testing.assert_allclose(results[1], results[0], atol=1e-4)
    np.testing.assert_array_equal(results[2], results[1])


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^matmul must be numba or blas, not 'mkl'$"):
        Matmuls({}, "", 1, "mkl")


def test_only_weights_that_are_multiplied_are_packed() -> None:
    config = replace(CONFIG, tied_head=False)
    params = {name: normal(*shape) for name, shape in param_shapes(config).items()}
    found = Matmuls(params, config.head_name, PACK_FROM)
    matrices = {name for name, param in params.items() if param.ndim == 2}
    for operands in found.operands:
        assert set(operands) == matrices - {"wte.weight", "wpe.weight"}
