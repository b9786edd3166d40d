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
    exact,
    generic,
)

import tinygpt_np as tg
from tinygpt_np.compiled import products
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, draw_masks
from tinygpt_np.compiled.waiting import Turns

TEXTS = 3
KEY = 0xFEDCBA9876543210


def few_texts(config: tg.GPTConfig) -> tuple[tg.GPT, np.ndarray, np.ndarray]:
    """A model, and TEXTS of its texts of which some targets are not counted."""
    model, tokens, targets = generic(config)
    return model, tokens[-TEXTS:], targets[-TEXTS:]


def poisoned_step(model: tg.GPT, targets: np.ndarray, rows: int) -> Step:
    """A step whose results are all still to be written; its micro-batches have `rows` rows."""
    grads = {name: poisoned(*param.shape) for name, param in model.params.items()}
    dembedded, scale = poisoned(rows, model.config.n_embd), 1 / int((targets != -1).sum())
    chosen = products.make("numba", model.params, 1)
    return Step(model.params, grads, dembedded, chosen, Turns(), scale, KEY)


def poison(work: MicroBatch) -> None:
    """NaN wherever a pass must write before it reads."""
    for holder in (work, *work.layers):
        values: list[Any] = list(vars(holder).values())
        for value in values:
            arrays: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
            for array in arrays:
                # What the products have for room begins with zeros that stay.
                if isinstance(array, np.ndarray) and array is not work.room:
                    array.fill(np.nan)


@every_variant
def test_the_loss_is_the_sum_of_the_models(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_texts(config)
    work = MicroBatch(config, TEXTS, TIME)
    poison(work)
    step = poisoned_step(model, targets, tokens.size)
    found = work.loss(tokens.reshape(-1), targets.reshape(-1), step)
    assert found * step.scale == pytest.approx(exact(model).loss(tokens, targets), rel=LOSS)


@every_variant
def test_the_gradients_are_those_of_the_model_but_for_the_embedding(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_texts(config)
    masks = draw_masks(config, TEXTS, TIME, KEY) if config.dropout else {}
    loss, grads = exact(model).loss_and_grads(tokens, targets, masks)
    work = MicroBatch(config, TEXTS, TIME)
    poison(work)
    step = poisoned_step(model, targets, tokens.size)
    found = work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, 0, 0)
    assert found * step.scale == pytest.approx(loss, rel=LOSS)
    for name in grads:
        if name not in ("wte.weight", "wpe.weight"):
            assert relative_error(step.grads[name], grads[name]) < GRADIENT, name
    dembedded = step.dembedded.reshape(TEXTS, TIME, -1).sum(0, dtype=np.float64)
    assert relative_error(dembedded, grads["wpe.weight"][:TIME]) < GRADIENT


@every_variant
def test_what_lay_in_the_buffers_does_not_matter(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_texts(config)
    work = MicroBatch(config, TEXTS, TIME)
    runs: list[tuple[float, Step]] = []
    for _ in range(2):
        step = poisoned_step(model, targets, tokens.size)
        loss = work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, 0, 0)
        runs.append((loss, step))
        poison(work)
    (one, first), (other, second) = runs
    assert one == other
    for name in first.grads.keys() - {"wpe.weight"}:
        np.testing.assert_array_equal(first.grads[name], second.grads[name], err_msg=name)
    np.testing.assert_array_equal(first.dembedded, second.dembedded)


@every_variant
def test_the_second_adds_what_it_would_give_alone(config: tg.GPTConfig) -> None:
    model, tokens, targets = few_texts(config)
    # Dropout masks are those of the place in the batch, so twice the same texts stand at one place.
    alone, both = (poisoned_step(model, targets, tokens.size) for _ in range(2))
    work = MicroBatch(config, TEXTS, TIME)
    for step, numbers in ((alone, [0]), (both, [0, 1])):
        for number in numbers:
            work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, number, 0)
    for name in alone.grads.keys() - {"wpe.weight"}:
        assert relative_error(both.grads[name], 2 * alone.grads[name]) < 1e-6, name


def test_each_writes_its_own_rows_of_the_embeddings_gradient() -> None:
    model, tokens, targets = few_texts(CONFIG)
    step = poisoned_step(model, targets, (TEXTS + 3) * TIME)
    work = MicroBatch(CONFIG, TEXTS, TIME)
    work.loss_and_grads(tokens.reshape(-1), targets.reshape(-1), step, 0, 2)
    written = np.isfinite(step.dembedded).all(axis=1)
    np.testing.assert_array_equal(np.nonzero(written)[0], np.arange(2 * TIME, 5 * TIME))
    assert np.isnan(step.dembedded[~written]).all()


@pytest.mark.parametrize("texts", [1, 2, 3, BATCH])
def test_the_masks_of_a_batch_are_those_its_micro_batches_draw(texts: int) -> None:
    whole = draw_masks(DROPPING, BATCH, TIME, KEY)
    for first in range(BATCH - texts + 1):
        work = MicroBatch(DROPPING, texts, TIME)
        poison(work)
        work.draw_masks(KEY, first)
        rows = slice(first * TIME, (first + texts) * TIME)
        np.testing.assert_array_equal(work.mask, whole["drop"][rows])
        for number, layer in enumerate(work.layers):
            h = f"h.{number}"
            np.testing.assert_array_equal(
                layer.attention_mask, whole[f"{h}.attn"][first : first + texts]
            )
            np.testing.assert_array_equal(layer.masks[0], whole[f"{h}.attn.c_proj"][rows])
            np.testing.assert_array_equal(layer.masks[1], whole[f"{h}.mlp.c_proj"][rows])


def test_the_masks_are_those_that_the_model_takes() -> None:
    theirs = tg.GPT(DROPPING).draw_masks(BATCH, TIME, np.random.default_rng(0))
    ours = draw_masks(DROPPING, BATCH, TIME, KEY)
    assert {n: (m.shape, m.dtype) for n, m in ours.items()} == {
        n: (m.shape, m.dtype) for n, m in theirs.items()
    }
    for name, mask in ours.items():
        assert set(mask.flat) == {np.float32(0), np.float32(1 / 0.7)}, name


def test_no_two_places_and_no_two_keys_share_a_mask() -> None:
    rows = [
        mask.reshape(-1)[: BATCH * TIME].tobytes()
        for key in (0, 1, KEY, 2**63 - 1)
        for mask in draw_masks(DROPPING, BATCH, TIME, key).values()
    ]
    assert len(set(rows)) == len(rows) == 4 * 7
