"""One micro-batch: its buffers and its masks. test_engine.py tests whole steps."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from helpers.kernel_twins import poisoned
from helpers.small_gpts import (
    GRADIENT,
    LOSS,
    TIME,
    assert_close,
    every_variant,
    generic,
    in_float64,
)

import tinygpt_np as tg
from tinygpt_np.compiled.matmuls import Matmuls
from tinygpt_np.compiled.micro_batch import (
    Layer,
    MicroBatch,
    Step,
    buffer_size,
    draw_masks,
    places,
)
from tinygpt_np.compiled.operations import AttentionState
from tinygpt_np.compiled.threads import ParallelRegion

SEQUENCES, BEFORE, AFTER = 3, 2, 1
KEY = 0xFEDCBA9876543210


def arrays_of(value: Any) -> Iterator[np.ndarray]:
    """Yield the buffers of a micro-batch, without scratch memory, integers and tables of angles."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        if np.issubdtype(array.dtype, np.floating):
            yield array
    elif isinstance(value, list | AttentionState):
        for each in cast("list[Any]", value):
            yield from arrays_of(each)
    elif isinstance(value, MicroBatch | Layer):
        for name, each in vars(value).items():
            if name != "scratch":
                yield from arrays_of(each)


@pytest.mark.parametrize("recorded", [True, False])
@every_variant
def test_in_poisoned_buffers_results_are_true_and_the_second_micro_batch_adds_its_own(
    config: tg.GPTConfig, recorded: bool
) -> None:
    model, tokens, targets = generic(config)
    tokens, targets = tokens[-SEQUENCES:], targets[-SEQUENCES:]
    count = BEFORE + SEQUENCES + AFTER
    masks = draw_masks(config, count, TIME, KEY) if config.dropout else {}
    # The micro-batch is part of a batch, whose other sequences have no targets.
    around = (BEFORE, AFTER), (0, 0)
    padded = np.pad(tokens, around), np.pad(targets, around, constant_values=-1)
    truth = in_float64(model)
    true, expected = truth.loss_and_grads(padded[0], padded[1], masks)
    rows = slice(BEFORE * TIME, (BEFORE + SEQUENCES) * TIME)
    work = MicroBatch(config, SEQUENCES, TIME)
    layers = places(model.params)
    step = Step(
        params=model.params,
        grads={name: poisoned(*param.shape) for name, param in model.params.items()},
        dembedded=poisoned(count * TIME, config.n_embd),
        matmuls=Matmuls(model.params, config.head_name, 1),
        region=ParallelRegion(1, len(layers)),
        places=layers,
        scale=1 / int((targets != -1).sum()),
        dropout_key=KEY,
        recorded=recorded,
    )
    for number in (0, 1):
        for array in arrays_of(work):
            array.fill(np.nan)  # Whatever a pass reads, it must have written before.
        loss = work.loss_and_grads(tokens, targets, step, number, BEFORE)
        assert loss * step.scale == pytest.approx(true, rel=LOSS)
        found = {
            name: grad / (number + 1)
            for name, grad in step.grads.items()
            if name not in ("wte.weight", "wpe.weight")  # The engine adds to these.
        }
        assert_close(found, {name: expected[name] for name in found}, GRADIENT)
        # A tied head has written its part, and another leaves the gradient of wte as it was.
        parts = step.grads["wte.weight"].astype(np.float64) / (number + 1)
        dwte = parts if config.tied_head else np.zeros_like(parts)
        np.add.at(dwte, tokens.reshape(-1), step.dembedded[rows])
        assert_close({"wte": dwte}, {"wte": expected["wte.weight"]}, GRADIENT)
        assert np.isnan(np.delete(step.dembedded, np.r_[rows], axis=0)).all()
    for array in arrays_of(work):
        array.fill(np.nan)
    true = truth.loss(tokens, targets)
    assert work.loss(tokens, targets, step) * step.scale == pytest.approx(true, rel=LOSS)


@every_variant
def test_the_estimate_of_its_buffers_is_right_within_statistics_of_rows(
    config: tg.GPTConfig,
) -> None:
    work = MicroBatch(config, SEQUENCES, config.block_size)
    found = sum(array.size for array in arrays_of(work))
    assert 1 <= found / buffer_size(config, SEQUENCES * config.block_size) < 1.05
