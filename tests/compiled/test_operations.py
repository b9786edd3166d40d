"""Each operation against ops/ in float64. test_engine.py tests them in whole steps."""

from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.kernel_twins import normals, poisoned, wide
from helpers.small_gpts import VALUES

import tinygpt_np as tg
from tinygpt_np import ops
from tinygpt_np.compiled.operations import Activation, Attention, Norm
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.threads import ALONE, ThreadTeam

_, normal = normals(37)
# Few roundings, but for sums of some dozen terms of both signs.
BOUND = 2e-6
BATCH, TIME = 3, 11
ROWS = BATCH * TIME


def config(**fields: Any) -> tg.GPTConfig:
    """Return a configuration of heads of ten channels, and 23 inner ones."""
    return tg.GPTConfig(
        vocab_size=7, block_size=13, n_layer=1, n_head=4, n_embd=40, n_inner=23, **fields
    )


@pytest.mark.parametrize("norm", VALUES["norm"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_adds_to_the_gradients_of_its_own_parameters(norm: str, bias: bool) -> None:
    found = Norm(config(norm=norm, norm_epsilon=0.3))
    x, dy, start = normal(3, ROWS, 40)
    tensors = {"f.weight": normal(40)} | ({"f.bias": normal(40)} if bias else {})
    affine, y, stats = (
        found.affine(tensors, "f"),
        poisoned(ROWS, 40),
        found.make_stats(ROWS, Arena()),
    )
    found.forward(x, affine, y, stats, ALONE)
    operation: Any = getattr(ops, norm)
    given = [each for each in wide(*affine) if each.size]
    truth, saved = operation.forward(wide(x)[0], *given, epsilon=0.3)
    assert relative_error(y, truth) < BOUND

    dx, daffine = start.copy(), [each.copy() for each in affine]
    found.backward(dy, x, affine, stats, dx, daffine, ALONE)
    expected, *gradients = operation.backward(wide(dy)[0], saved)
    assert relative_error(dx, start + expected) < BOUND
    for grad, before, added in zip(daffine, affine, gradients, strict=False):
        assert added is None or relative_error(grad, before + added) < BOUND


@pytest.mark.parametrize("name", VALUES["activation"])
def test_the_gradient_of_an_activation_takes_the_place_of_an_argument(name: str) -> None:
    found, operation = Activation(config(activation=name)), getattr(ops, name)
    x, dy = normal(ROWS, 46 if name == "swiglu" else 23), normal(ROWS, 23)
    y, (x64, dy64) = poisoned(ROWS, 23), wide(x, dy)
    found.forward(x, y, ALONE)
    truth, saved = operation.forward(x64)
    assert relative_error(y, truth) < BOUND
    dx = found.backward(dy, x, ALONE)
    assert dx is (x if name == "swiglu" else dy)
    assert relative_error(dx, operation.backward(dy64, saved)) < BOUND


@pytest.mark.parametrize("positions", VALUES["positions"])
@pytest.mark.parametrize("qk_norm", VALUES["qk_norm"])
@pytest.mark.parametrize("n_kv_head", VALUES["n_kv_head"])
def test_attention_is_that_of_normalized_and_rotated_heads_on_any_number_of_threads(
    positions: Any, qk_norm: bool, n_kv_head: int
) -> None:
    fields = config(
        positions=positions, rope_theta=30.0, qk_norm=qk_norm, norm_epsilon=0.3,
        n_kv_head=n_kv_head, dropout=0.25,
    )  # fmt: skip
    qkv, dy, arena = normal(ROWS, fields.qkv_width), normal(ROWS, 40), Arena()
    found = Attention(fields, BATCH, TIME, arena)
    state = found.make_state(arena)
    state.mask[...] = np.random.default_rng(1).integers(0, 2, state.mask.shape) / 0.75
    kept = qkv.copy()
    results: list[tuple[np.ndarray, np.ndarray]] = []
    for size in (1, 2, 3):
        y, dqkv = poisoned(*dy.shape), poisoned(*qkv.shape)
        qkv[...], state.stats[...], state.rstd[...] = kept, np.nan, np.nan
        team = ThreadTeam(size)
        found.forward(qkv, True, y, state, team)
        found.backward(dy, qkv, True, state, dqkv, team)
        team.close()
        results.append((y, dqkv))
    truth, gradient = expected(fields, *wide(kept, dy, state.mask))
    assert relative_error(results[0][0], truth) < BOUND
    assert relative_error(results[0][1], gradient) < BOUND
    for other in results[1:]:
        np.testing.assert_array_equal(other[0], results[0][0])
        np.testing.assert_array_equal(other[1], results[0][1])


def expected(
    fields: tg.GPTConfig, qkv: np.ndarray, dy: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return attention and its gradient by ops/, one operation after another."""
    qk = qkv[:, : fields.qk_width].reshape(BATCH, TIME, -1, fields.head_size)
    normed = rotated = None
    if fields.qk_norm:
        qk, normed = ops.rms_norm.forward(qk, None, fields.norm_epsilon)
    if fields.positions != "learned":
        interleaved = fields.positions == "rotary_pairs"
        qk, rotated = ops.rotary.forward(qk, np.arange(TIME), fields.rope_theta, interleaved)
    values = qkv[:, fields.qk_width :]
    joined = np.concatenate([qk.reshape(ROWS, -1), values], axis=1)
    y, saved = ops.attention.forward(joined, BATCH, 4, mask, fields.kv_heads)
    dqkv = ops.attention.backward(dy, saved)
    dqk = dqkv[:, : fields.qk_width].reshape(qk.shape)
    if rotated is not None:
        dqk = ops.rotary.backward(dqk, rotated)
    if normed is not None:
        dqk, _ = ops.rms_norm.backward(dqk, normed)
    return y, np.concatenate([dqk.reshape(ROWS, -1), dqkv[:, fields.qk_width :]], axis=1)
