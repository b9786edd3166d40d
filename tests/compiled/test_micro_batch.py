"""One micro-batch: its buffers and its masks. test_engine.py tests whole steps."""

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
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, draw_masks
from tinygpt_np.compiled.threads import ParallelRegion

SEQUENCES, BEFORE, AFTER = 3, 2, 1
KEY = 0xFEDCBA9876543210


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
def test_in_poisoned_buffers_results_are_true_and_the_second_micro_batch_adds_its_own(
    config: tg.GPTConfig,
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
    step = Step(
        params=model.params,
        grads={name: poisoned(*param.shape) for name, param in model.params.items()},
        dembedded=poisoned(count * TIME, config.n_embd),
        matmuls=Matmuls(model.params, config.head_name, 1),
        region=ParallelRegion(1),
        scale=1 / int((targets != -1).sum()),
        dropout_key=KEY,
    )
    flat = tokens.reshape(-1), targets.reshape(-1)
    for number in (0, 1):
        poison(work)
        loss = work.loss_and_grads(*flat, step, number, BEFORE)
        assert loss * step.scale == pytest.approx(true, rel=LOSS)
        found = {
            name: grad / (number + 1)
            for name, grad in step.grads.items()
            if name not in ("wte.weight", "wpe.weight")  # The engine adds to these.
        }
        assert_close(found, {name: expected[name] for name in found}, GRADIENT)
        dwpe = step.dembedded[rows].reshape(SEQUENCES, TIME, -1).sum(0, dtype=np.float64)
        assert_close({"wpe": dwpe}, {"wpe": expected["wpe.weight"][:TIME]}, GRADIENT)
        assert np.isnan(np.delete(step.dembedded, np.r_[rows], axis=0)).all()
    poison(work)
    true = truth.loss(tokens, targets)
    assert work.loss(*flat, step) * step.scale == pytest.approx(true, rel=LOSS)
