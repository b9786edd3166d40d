"""The compiled step against the NumPy model in float64: loss, gradients, update."""

import math
from typing import Any, cast

import numpy as np
import pytest
from helpers.small_gpts import (
    BATCH,
    CONFIG,
    DROPPING,
    GRADIENT,
    LOSS,
    MOST_ROWS,
    SPLIT,
    TIME,
    assert_close,
    assert_same_bits,
    copied,
    every_variant,
    exact,
    generic,
)

import tinygpt_np as tg
from tinygpt_np.compiled import engine as parallel
from tinygpt_np.compiled import products
from tinygpt_np.compiled.engine import CompiledEngine, micro_batches
from tinygpt_np.model.optimizer import AdamW, clip, global_norm

every_packing = pytest.mark.parametrize("pack_from", [1, 99], ids=["packed", "on the fly"])


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_ROWS", MOST_ROWS)
    assert micro_batches(BATCH, TIME) == SPLIT


def assert_true(
    engine: CompiledEngine, tokens: np.ndarray, targets: np.ndarray, noise: Any = None
) -> None:
    """Loss and gradients are those of the NumPy model in float64."""
    loss, grads = engine.loss_and_grads(tokens, targets, noise)
    masks = engine.masks(tokens.shape, noise)
    expected, expected_grads = exact(cast(tg.GPT, engine.model)).loss_and_grads(
        tokens, targets, masks
    )
    assert loss == pytest.approx(expected, rel=LOSS)
    assert_close(grads, expected_grads, GRADIENT)


@every_variant
@every_packing
@pytest.mark.parametrize("matmul", ["numba", "blas"])
def test_loss_and_gradients_are_those_of_the_model_in_float64(
    config: tg.GPTConfig, pack_from: int, matmul: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PACK_FROM", pack_from)
    model, tokens, targets = generic(config)
    with CompiledEngine(model, BATCH, 2, matmul) as engine:
        for grad in engine.grads.values():
            grad.fill(np.nan)
        assert_true(engine, tokens, targets, engine.draw(np.random.default_rng(3)))


def test_without_noise_there_is_no_dropout() -> None:
    model, tokens, targets = generic(DROPPING)
    with CompiledEngine(model, BATCH, 2) as engine:
        assert_true(engine, tokens, targets, None)


def test_positions_that_no_text_reaches_have_no_gradient() -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        long_tokens = np.zeros((2, CONFIG.block_size), np.int64)
        engine.loss_and_grads(long_tokens, long_tokens)
        _, grads = engine.loss_and_grads(tokens, targets)
        assert (grads["wpe.weight"][TIME:] == 0).all()
        assert (grads["wpe.weight"][:TIME] != 0).any(axis=1).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_loss_is_that_of_the_model_on_any_shape(count: int) -> None:
    model, _, _ = generic(DROPPING)
    rng = np.random.default_rng(4)
    with CompiledEngine(model, BATCH, count) as engine:
        for shape in [(7, 17), (7, 17), (3, 17), (1, 5), (1, 1), (9, 4), (7, 17)]:
            tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, *shape))
            targets[0, 1:3] = -1
            expected = exact(model).loss(tokens, targets)
            assert engine.loss(tokens, targets) == pytest.approx(expected, rel=LOSS), shape


def test_a_step_is_the_same_after_steps_and_losses_of_other_shapes() -> None:
    model, tokens, targets = generic(DROPPING)
    with CompiledEngine(model, BATCH, 2) as engine:
        loss, grads = engine.loss_and_grads(tokens, targets, 5)
        expected = copied(grads)
        for shape in [(3, 17), (1, 5), (9, 4)]:
            engine.loss(np.ones(shape, int), np.ones(shape, int))
            engine.loss_and_grads(np.ones(shape, int), np.ones(shape, int), 6)
        again, grads = engine.loss_and_grads(tokens, targets, 5)
    assert again == loss
    assert_same_bits(grads, expected)


@every_packing
def test_parameters_assigned_anew_are_those_of_the_next_call(
    pack_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PACK_FROM", pack_from)
    model, tokens, targets = generic(CONFIG)
    other, _, _ = generic(CONFIG, seed=1)
    with CompiledEngine(model, BATCH, 2) as engine:
        engine.loss_and_grads(tokens, targets)
        for name in model.params:
            model.params[name] = other.params[name]
            assert_true(engine, tokens, targets)
        model.params = copied(generic(CONFIG, seed=2)[0].params)
        assert engine.loss(tokens, targets) == pytest.approx(
            exact(model).loss(tokens, targets), rel=LOSS
        )


def test_a_parameter_assigned_in_float64_is_refused_by_name() -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        name = "h.1.mlp.c_fc.weight"
        model.params[name] = model.params[name].astype(np.float64)
        for call in (engine.loss, engine.loss_and_grads):
            with pytest.raises(TypeError, match=f"{name} must be float32"):
                call(tokens, targets)


def test_a_parameter_assigned_in_another_shape_is_refused_by_name() -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        name = "h.1.mlp.c_fc.weight"
        model.params[name] = np.ones((40, 150), np.float32)
        for call in (engine.loss, engine.loss_and_grads):
            with pytest.raises(ValueError, match=f"{name} must be"):
                call(tokens, targets)


@pytest.mark.parametrize("layout", ["columns first", "every other row", "read-only"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_parameter_in_another_layout_is_used_or_refused_but_not_misread(
    layout: str, when: str
) -> None:
    model, tokens, targets = generic(CONFIG)
    found = model.params["h.0.mlp.c_fc.weight"].copy()
    if layout == "columns first":
        found = np.asfortranarray(found)
    elif layout == "every other row":
        found = np.repeat(found, 2, axis=0)[::2]
    else:
        found.flags.writeable = False
    if when == "before":
        model.params["h.0.mlp.c_fc.weight"] = found
    try:
        with CompiledEngine(model, BATCH, 2) as engine:
            model.params["h.0.mlp.c_fc.weight"] = found
            assert_true(engine, tokens, targets)
            grads = engine.loss_and_grads(tokens, targets)[1]
            before = found.copy()
            optimizer = AdamW(model.params, 0.9, 0.99, 0.1)
            engine.update(optimizer, grads, 1.0, 1e-3, 0.0)
            assert (model.params["h.0.mlp.c_fc.weight"] != before).any()
    except (TypeError, ValueError) as error:
        assert "h.0.mlp.c_fc.weight" in str(error)  # noqa: PT017


@every_packing
def test_an_update_moves_the_models_own_parameters_and_the_next_call_sees_it(
    pack_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PACK_FROM", pack_from)
    model, tokens, targets = generic(CONFIG)
    own, before = dict(model.params), copied(model.params)
    with CompiledEngine(model, BATCH, 2) as engine:
        _, grads = engine.loss_and_grads(tokens, targets)
        engine.update(AdamW(model.params, 0.9, 0.99, 0.1), grads, 1.0, 0.1, 0.0)
        for name, param in model.params.items():
            assert param is own[name]
            assert (param != before[name]).any()
        assert_true(engine, tokens, targets)


@pytest.mark.parametrize("grad_clip", [0.0, 0.3, 1e9], ids=["none", "clips", "too large"])
@pytest.mark.parametrize("chunk", [1000, 1 << 18])
def test_an_update_is_that_of_the_optimizer_in_float64(
    grad_clip: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "CHUNK", chunk)
    model, _, _ = generic(CONFIG)
    truth = exact(model)
    settings = 0.8, 0.95, 0.3
    ours, theirs = AdamW(model.params, *settings), AdamW(truth.params, *settings)
    with CompiledEngine(model, BATCH, 2) as engine:
        for step in range(4):
            grads, rate = generic(CONFIG, seed=10 + step)[0].params, 0.1 / (step + 1)
            norm = global_norm(grads)
            engine.update(ours, grads, norm, rate, grad_clip)
            doubles = {name: grad.astype(np.float64) for name, grad in grads.items()}
            theirs.update(truth.params, clip(doubles, norm, grad_clip), rate)
    assert ours.steps == theirs.steps == 4
    # Four steps of some ten roundings of 6e-8, which for the most part undo each other.
    assert_close(ours.first, theirs.first, 1e-6)
    assert_close(ours.second, theirs.second, 1e-6)
    assert_close(model.params, truth.params, 1e-6)


@pytest.mark.parametrize("chunk", [1000, 1 << 18])
def test_the_norm_is_that_of_the_optimizer(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CHUNK", chunk)
    model, _, _ = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        # Sums of n terms in float64, each rounded n times, and half of it after the root.
        terms = sum(param.size for param in model.params.values())
        found = engine.norm(model.params)
        assert found == pytest.approx(global_norm(model.params), rel=terms * 2.0**-53)
        model.params["ln_f.bias"][3] = np.nan
        assert math.isnan(engine.norm(model.params))


def test_a_key_of_masks_is_drawn_for_each_step() -> None:
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    with CompiledEngine(generic(DROPPING)[0], BATCH, 1) as engine:
        keys = [engine.draw(rng) for _ in range(3)]
        assert keys == [engine.draw(same) for _ in range(3)]
    assert len(set(keys)) == 3


def test_without_dropout_no_key_is_drawn() -> None:
    rng = np.random.default_rng(5)
    with CompiledEngine(generic(CONFIG)[0], BATCH, 1) as engine:
        assert engine.draw(rng) is None
        assert engine.masks((BATCH, TIME), None) == {}
    assert rng.random() == np.random.default_rng(5).random()


def test_warming_up_changes_nothing() -> None:
    model, _, _ = generic(DROPPING)
    before = copied(model.params)
    with CompiledEngine(model, BATCH, 2) as engine:
        engine.warm_up()
    assert_same_bits(model.params, before)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_tokens_of_any_integers_and_layout_are_read_and_left_alone(dtype: Any) -> None:
    model, tokens, targets = generic(CONFIG)
    targets = np.abs(targets)
    odd_tokens, odd_targets = (np.asfortranarray(x.astype(dtype)) for x in (tokens, targets))
    odd_tokens.flags.writeable = odd_targets.flags.writeable = False
    with CompiledEngine(model, BATCH, 2) as engine:
        loss, grads = engine.loss_and_grads(tokens, targets)
        expected = copied(grads)
        assert engine.loss_and_grads(odd_tokens, odd_targets)[0] == loss
        assert_same_bits(engine.grads, expected)
        engine.loss(odd_tokens, odd_targets)
    np.testing.assert_array_equal(odd_tokens, tokens)
    np.testing.assert_array_equal(odd_targets, targets)


@pytest.mark.parametrize("call", ["loss", "loss_and_grads"])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 71, r"tokens must be in \[0, 71\)"),
        (0, -1, r"tokens must be in \[0, 71\)"),
        (1, 71, r"targets must be in \[-1, 71\)"),
        (1, -2, r"targets must be in \[-1, 71\)"),
    ],
)
def test_what_the_model_refuses_the_engine_refuses(
    call: str, place: int, value: int, message: str
) -> None:
    model, *given = generic(CONFIG)
    given[place][2, 3] = value
    with CompiledEngine(model, BATCH, 2) as engine, pytest.raises(ValueError, match=message):
        getattr(engine, call)(*given)


@pytest.mark.parametrize("call", ["loss", "loss_and_grads"])
def test_shapes_that_do_not_fit_are_refused(call: str) -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        for given, message in [
            ((tokens, targets[:-1]), "targets must be"),
            ((tokens, np.full_like(targets, -1)), "every target is -1"),
            ((np.zeros((2, 18), int), np.zeros((2, 18), int)), "block_size = 17"),
        ]:
            with pytest.raises(ValueError, match=message):
                getattr(engine, call)(*given)


def test_a_float64_model_is_refused_with_the_name_of_a_parameter() -> None:
    message = r"^wte.weight must be float32 to be trained by Numba, not float64$"
    with pytest.raises(TypeError, match=message):
        CompiledEngine(tg.GPT(CONFIG, dtype="float64"), BATCH, 1)


def test_an_unknown_matmul_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^matmul must be numba or blas, not 'mkl'$"):
        CompiledEngine(tg.GPT(CONFIG), BATCH, 1, "mkl")


@pytest.mark.parametrize("rows", [1, 20, 192])
def test_micro_batches_are_all_texts_in_order_and_evenly(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MOST_ROWS", rows)
    for batch in range(1, 40):
        for length in (1, 2, 3, 13, 64, 191, 192, 193, 300):
            parts = micro_batches(batch, length)
            texts = [text for part in parts for text in range(part.start, part.stop)]
            assert texts == list(range(batch))
            sizes = {part.stop - part.start for part in parts}
            assert max(sizes) - min(sizes) <= 1
            # As many rows as were meant, to a whole text.
            assert max(sizes) == 1 or max(sizes) * length < rows + length
