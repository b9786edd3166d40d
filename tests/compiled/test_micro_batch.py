"""One micro-batch: its buffers and its masks."""

from typing import Any, cast

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.kernel_twins import poisoned
from helpers.small_gpts import (
    BATCH,
    CONFIG,
    DROPPING,
    GRADIENT,
    LOSS,
    TIME,
    every_variant,
    generic,
    in_float64,
)

import tinygpt_np as tg
from tinygpt_np.compiled import matmuls
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, draw_masks
from tinygpt_np.compiled.threads import ParallelRegion

SEQUENCES = 3
KEY = 0xFEDCBA9876543210


def few_sequences(config: tg.GPTConfig) -> tuple[tg.GPT, np.ndarray, np.ndarray]:
    """Return a model, and some sequences, of which some targets do not count."""
    model, tokens, targets = generic(config)
    return model, tokens[-SEQUENCES:], targets[-SEQUENCES:]


def poisoned_step(model: tg.GPT, targets: np.ndarray, rows: int) -> Step:
    """Return a step with results of NaN, whose micro-batches have `rows` rows."""
    grads = {name: poisoned(*param.shape) for name, param in model.params.items()}
    dembedded, scale = poisoned(rows, model.config.n_embd), 1 / int((targets != -1).sum())
    chosen = matmuls.make("numba", model.params, 1)
    return Step(model.params, grads, dembedded, chosen, ParallelRegion(1), scale, KEY)


def poison(work: MicroBatch) -> None:
    """NaN wherever a pass must write before it reads."""
    for holder in (work, *work.layers):
        values: list[Any] = list(vars(holder).values())
        for value in values:
            arrays: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
            for array in arrays:
                # The scratch of matmuls begins with zeros that stay.
                if isinstance(array, np.ndarray) and array is not work.scratch:
                    array.fill(np.nan)


@every_variant
def test_the_loss_is_the_sum_of_the_models(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_sequences(config)
    work = MicroBatch(config, SEQUENCES, TIME)
    poison(work)
    step = poisoned_step(model, targets, tokens.size)
    found = work.loss(tokens.reshape(-1), targets.reshape(-1), step)
    assert found * step.scale == pytest.approx(in_float64(model).loss(tokens, targets), rel=LOSS)


@every_variant
def test_the_gradients_are_those_of_the_model_but_for_the_embedding(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_sequences(config)
    masks = draw_masks(config, SEQUENCES, TIME, KEY) if config.dropout else {}
    loss, grads = in_float64(model).loss_and_grads(tokens, targets, masks)
    work = MicroBatch(config, SEQUENCES, TIME)
    poison(work)
    step = poisoned_step(model, targets, tokens.size)
    found = work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, 0, 0)
    assert found * step.scale == pytest.approx(loss, rel=LOSS)
    for name in grads:
        if name not in ("wte.weight", "wpe.weight"):
            assert relative_error(step.grads[name], grads[name]) < GRADIENT, name
    dembedded = step.dembedded.reshape(SEQUENCES, TIME, -1).sum(0, dtype=np.float64)
    assert relative_error(dembedded, grads["wpe.weight"][:TIME]) < GRADIENT


@every_variant
def test_the_second_adds_what_it_would_give_alone(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_sequences(config)
    # Both micro-batches have the same position in the batch, and so the same dropout masks.
    alone, both = (poisoned_step(model, targets, tokens.size) for _ in range(2))
    work = MicroBatch(config, SEQUENCES, TIME)
    for step, numbers in ((alone, [0]), (both, [0, 1])):
        for number in numbers:
            work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, number, 0)
    for name in alone.grads.keys() - {"wpe.weight"}:
        assert relative_error(both.grads[name], 2 * alone.grads[name]) < 1e-6, name


def test_each_writes_its_own_rows_of_the_embeddings_gradient() -> None:
    model, tokens, targets = few_sequences(CONFIG)
    step = poisoned_step(model, targets, (SEQUENCES + 3) * TIME)
    work = MicroBatch(CONFIG, SEQUENCES, TIME)
    work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, 0, 2)
    written = np.isfinite(step.dembedded).all(axis=1)
    np.testing.assert_array_equal(np.nonzero(written)[0], np.arange(2 * TIME, 5 * TIME))
    assert np.isnan(step.dembedded[~written]).all()


@pytest.mark.parametrize("count", [1, 3, BATCH])
def test_the_masks_of_a_batch_are_those_its_micro_batches_draw(count: int) -> None:
    whole = draw_masks(DROPPING, BATCH, TIME, KEY)
    for first in range(BATCH - count + 1):
        work = MicroBatch(DROPPING, count, TIME)
        poison(work)
        work.draw_masks(KEY, first)
        rows = slice(first * TIME, (first + count) * TIME)
        np.testing.assert_array_equal(work.mask, whole["drop"][rows])
        for number, layer in enumerate(work.layers):
            h = f"h.{number}"
            np.testing.assert_array_equal(
                layer.attention_mask, whole[f"{h}.attn"][first : first + count]
            )
            np.testing.assert_array_equal(layer.masks[0], whole[f"{h}.attn.c_proj"][rows])
            np.testing.assert_array_equal(layer.masks[1], whole[f"{h}.mlp.c_proj"][rows])


def test_the_masks_are_those_that_the_model_takes() -> None:
    expected = tg.GPT(DROPPING).draw_masks(BATCH, TIME, np.random.default_rng(0))
    found = draw_masks(DROPPING, BATCH, TIME, KEY)
    assert {n: (m.shape, m.dtype) for n, m in found.items()} == {
        n: (m.shape, m.dtype) for n, m in expected.items()
    }
    for name, mask in found.items():
        assert set(mask.flat) == {np.float32(0), np.float32(1 / 0.7)}, name


def test_all_masks_of_a_key_and_of_other_keys_differ() -> None:
    rows = [
        mask.reshape(-1)[: BATCH * TIME].tobytes()
        for key in (0, 1, KEY, 2**63 - 1)
        for mask in draw_masks(DROPPING, BATCH, TIME, key).values()
    ]
    assert len(set(rows)) == len(rows) == 4 * 7
