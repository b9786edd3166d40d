"""The compiled step against the NumPy model in float64, and on any number of threads."""

import gc
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]
from helpers.processes import printed
from helpers.small_gpts import (
    BATCH,
    CONFIG,
    DROPPING,
    GRADIENT,
    LOSS,
    MOST_ROWS,
    SPLIT,
    TIME,
    VARIANTS,
    assert_close,
    assert_same_bits,
    copied,
    every_variant,
    generic,
    in_float64,
)

import tinygpt_np as tg
from tinygpt_np.compiled import engine as compiled_engine
from tinygpt_np.compiled import matmuls, micro_batch, threads
from tinygpt_np.compiled.engine import CompiledEngine, micro_batch_count, micro_batches
from tinygpt_np.compiled.kernels import (
    attention,
    cross_entropy,
    gelu,
    matmul,
    rms_norm,
    rotary,
    soft_cap,
    swiglu,
)
from tinygpt_np.compiled.micro_batch import MicroBatch
from tinygpt_np.compiled.recording import Recording
from tinygpt_np.compiled.threads import ALONE
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.storage import parameters
from tinygpt_np.storage.parameters import Tensors

Patch = pytest.MonkeyPatch
pools: Callable[[], list[dict[str, Any]]] = threadpoolctl.threadpool_info


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: Patch) -> None:
    monkeypatch.setattr(compiled_engine, "MOST_ROWS", MOST_ROWS)
    monkeypatch.setattr(parameters, "BLOCK", 1000)
    assert micro_batches(BATCH, TIME) == SPLIT


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def assert_true(
    engine: CompiledEngine, tokens: np.ndarray, targets: np.ndarray, dropout_key: Any = None
) -> None:
    """Loss and gradients are those of the NumPy model in float64."""
    loss, grads = engine.loss_and_grads(tokens, targets, dropout_key)
    masks = engine.masks(tokens.shape, dropout_key)
    truth = in_float64(cast(tg.GPT, engine.model))
    expected, expected_grads = truth.loss_and_grads(tokens, targets, masks)
    assert loss == pytest.approx(expected, rel=LOSS)
    # Longer sums for more rows.
    assert_close(grads, expected_grads, GRADIENT if tokens.shape[0] > 1 else 2e-5)


def assert_step_is_true(config: tg.GPTConfig, matmul: str) -> None:
    """Check a step with and without dropout, whatever the gradients held before."""
    model, *batch = generic(config)
    # Other integers and another layout than kernels take.
    tokens, targets = (read_only(np.asfortranarray(each.astype(np.int8))) for each in batch)
    with CompiledEngine(model, BATCH, 2, matmul) as engine:
        for grad in engine.grads.values():
            grad.fill(np.nan)
        assert_true(engine, tokens, targets, engine.draw(np.random.default_rng(3)))
        assert_true(engine, tokens, targets, None)
        true = in_float64(model).loss(tokens, targets)
        assert engine.loss(tokens, targets) == pytest.approx(true, rel=LOSS)


@every_variant
def test_loss_and_gradients_are_those_of_the_model_in_float64(config: tg.GPTConfig) -> None:
    assert_step_is_true(config, "numba")


@pytest.mark.parametrize("name", ["default", "dropout=0.3", "tied_head=False", "drawn 0"])
@pytest.mark.parametrize(("matmul", "pack_from"), [("numba", 1), ("blas", 99)])
def test_they_are_with_packed_weights_and_with_blas(
    name: str, matmul: str, pack_from: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(matmuls, "PACK_FROM", pack_from)
    assert_step_is_true(VARIANTS[name], matmul)


@pytest.mark.parametrize("name", ["default", "tied_head=False", "dropout=0.3"])
@pytest.mark.parametrize("count", [1, 2])
def test_micro_batches_in_the_same_buffers_add_to_those_before(
    name: str, count: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(compiled_engine, "MOST_ROWS", TIME)  # A sequence each, 0 to 6.
    model, tokens, targets = generic(VARIANTS[name])
    with CompiledEngine(model, BATCH, count) as engine:
        assert engine.micro_batches == BATCH
        for _ in range(3):
            assert_true(engine, tokens, targets, engine.draw(np.random.default_rng(3)))


def test_losses_of_any_shape_are_true_and_do_not_change_later_steps() -> None:
    model, tokens, targets = generic(DROPPING)
    rng = np.random.default_rng(4)
    with CompiledEngine(model, BATCH, 2) as engine:
        loss, grads = engine.loss_and_grads(tokens, targets, 5)
        expected = copied(grads)
        for shape in [(7, 17), (3, 17), (1, 5), (1, 1), (9, 4)]:
            x, y = rng.integers(0, CONFIG.vocab_size, (2, *shape))
            y[0, 1:3] = -1
            true = in_float64(model).loss(x, y)
            assert engine.loss(x, y) == pytest.approx(true, rel=LOSS), shape
            engine.loss_and_grads(x, y, 6)
        again, grads = engine.loss_and_grads(tokens, targets, 5)
    assert again == loss
    assert_same_bits(grads, expected)


def test_parameters_that_are_updated_or_assigned_anew_are_those_of_the_next_call(
    monkeypatch: Patch,
) -> None:
    monkeypatch.setattr(matmuls, "PACK_FROM", 1)
    model, tokens, targets = generic(CONFIG)
    own, before = dict(model.params), copied(model.params)
    with CompiledEngine(model, BATCH, 2) as engine:
        _, grads = engine.loss_and_grads(tokens, targets)
        engine.update(AdamW(model.params, 0.9, 0.99, 0.1), grads, 1.0, 0.1, 0.0)
        for name, param in model.params.items():
            assert param is own[name]
            assert (param != before[name]).any()
        assert_true(engine, tokens, targets)
        other, _, _ = generic(CONFIG, seed=1)
        for name in ("wte.weight", "h.1.mlp.c_fc.weight", "h.0.attn.c_proj.bias"):
            model.params[name] = other.params[name]
            assert_true(engine, tokens, targets)
        model.params = other.params
        true = in_float64(model).loss(tokens, targets)
        assert engine.loss(tokens, targets) == pytest.approx(true, rel=LOSS)


MISREAD: list[tuple[Callable[[np.ndarray], np.ndarray], type[Exception], str]] = [
    (lambda x: x.astype(np.float64), TypeError, "float32 to be trained by Numba, not float64"),
    (lambda x: x[:, 1:].copy(), ValueError, r"\(40, 160\), not \(40, 159\)"),
    (np.asfortranarray, ValueError, "C-contiguous and writeable"),
    (lambda x: read_only(x.copy()), ValueError, "C-contiguous and writeable"),
]


@pytest.mark.parametrize(("change", "kind", "expected"), MISREAD)
def test_a_parameter_that_kernels_would_misread_is_refused_by_name(
    change: Callable[[np.ndarray], np.ndarray], kind: type[Exception], expected: str
) -> None:
    model, tokens, targets = generic(CONFIG)
    name = "h.1.mlp.c_fc.weight"
    with CompiledEngine(model, BATCH, 2) as engine:
        model.params[name] = change(model.params[name])
        with pytest.raises(kind, match=f"^{name} must be {expected}"):
            engine.loss(tokens, targets)
        with pytest.raises(kind, match=f"^{name} must be {expected}"):
            CompiledEngine(model, BATCH, 1)
        with pytest.raises(ValueError, match=r"tokens must be in \[0, 71\)"):
            engine.loss(tokens + 71, targets)


@pytest.mark.parametrize("grad_clip", [0.0, 0.3, 1e9], ids=["none", "clips", "too large"])
def test_an_update_is_that_of_the_optimizer_in_float64(grad_clip: float) -> None:
    model, _, _ = generic(CONFIG)
    truth = in_float64(model)
    found, expected = (AdamW(each.params, 0.8, 0.95, 0.3) for each in (model, truth))
    with CompiledEngine(model, BATCH, 2) as engine:
        for seed in range(10, 14):
            grads = generic(CONFIG, seed)[0].params
            norm = engine.norm(grads)
            # A sum of some 1e5 terms in float64, whose roundings mostly undo each other.
            assert norm == pytest.approx(global_norm(grads), rel=1e-12)
            engine.update(found, grads, norm, 1 / seed, grad_clip)
            doubles = {name: grad.astype(np.float64) for name, grad in grads.items()}
            expected.update(truth.params, clip(doubles, norm, grad_clip), 1 / seed)
    # Four steps of some ten roundings of 6e-8, which for the most part undo each other.
    assert_close(found.first, expected.first, 1e-6)
    assert_close(found.second, expected.second, 1e-6)
    assert_close(model.params, truth.params, 1e-6)


def test_the_number_of_micro_batches_stays_the_same_because_it_decides_the_bits_of_training(
    monkeypatch: Patch,
) -> None:
    monkeypatch.undo()
    counts = {(64, 256): 32, (12, 64): 4, (8, 65): 4, (2, 128): 2, (1, 1024): 1, (8, 40): 2}
    assert {shape: micro_batch_count(*shape) for shape in counts} == counts


# On threads


@every_variant
def test_a_step_has_the_same_bits_on_any_number_of_threads(config: tg.GPTConfig) -> None:
    model, tokens, targets = generic(config)
    for batch in (slice(0, BATCH), slice(2, 3)):  # Several micro-batches, and one that is split.
        results: list[tuple[float, float, Tensors]] = []
        for count in (1, 2, 3):
            with CompiledEngine(model, BATCH, count) as engine:
                key = engine.draw(np.random.default_rng(3))
                loss, grads = engine.loss_and_grads(tokens[batch], targets[batch], key)
                results.append((loss, engine.loss(tokens[batch], targets[batch]), copied(grads)))
        for found in results[1:]:
            assert found[:2] == results[0][:2]
            assert_same_bits(found[2], results[0][2])


def trained(count: int) -> tuple[list[float], Tensors, Tensors]:
    """Losses and norms, last gradients and weights of 8 steps on changing batches."""
    model, _, _ = generic(DROPPING)
    optimizer = AdamW(model.params, 0.9, 0.99, 0.1)
    rng, dropout = np.random.default_rng(8), np.random.default_rng(9)
    numbers, grads = list[float](), Tensors()
    with CompiledEngine(model, BATCH, count) as engine:
        for _ in range(8):
            tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, BATCH, TIME))
            loss, grads = engine.loss_and_grads(tokens, targets, engine.draw(dropout))
            norm = engine.norm(grads)
            engine.update(optimizer, grads, norm, 1e-3, 1.0)
            numbers += [loss, norm, engine.loss(tokens, targets)]
    return numbers, grads, model.params


def test_training_has_the_same_bits_on_any_number_of_threads_packed_or_not(
    monkeypatch: Patch,
) -> None:
    numbers, grads, params = trained(2)
    for count, pack_from in ((1, 1), (2, 1), (3, 99)):
        monkeypatch.setattr(matmuls, "PACK_FROM", pack_from)
        found_numbers, found_grads, found_params = trained(count)
        assert found_numbers == numbers
        assert_same_bits(found_grads, grads)
        assert_same_bits(found_params, params)


@pytest.mark.parametrize(("count", "number"), [(1, 1), (2, 0), (5, 0), (5, 2), (5, 4)])
def test_after_a_late_micro_batch_and_after_an_error_in_one_the_bits_are_the_same(
    count: int, number: int, monkeypatch: Patch
) -> None:
    model, tokens, targets = generic(CONFIG)
    begin = MicroBatch.begin
    events: list[Callable[[], Any]] = []

    def begin_late(self: MicroBatch, given: np.ndarray, *rest: Any, **more: Any) -> None:
        if events and np.array_equal(given, tokens[SPLIT[number]]):
            events.pop()()
        begin(self, given, *rest, **more)

    monkeypatch.setattr(MicroBatch, "begin", begin_late)
    before = threading.active_count()
    with CompiledEngine(model, BATCH, count) as engine:
        expected = copied(engine.loss_and_grads(tokens, targets)[1])
        events.append(lambda: time.sleep(0.03))
        assert_same_bits(engine.loss_and_grads(tokens, targets)[1], expected)
        events.append(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            engine.loss_and_grads(tokens, targets)
        assert_same_bits(engine.loss_and_grads(tokens, targets)[1], expected)
    assert threading.active_count() == before  # Its threads have ended.


@pytest.mark.parametrize(
    ("tokens", "targets", "message"),
    [([[0, 13]], [[1, 2]], "tokens must be in"),
     ([[0, -1]], [[1, 2]], "tokens must be in"),
     ([[0, 1]], [[1, 13]], "targets must be in"),
     ([[0, 1]], [[1]], "targets must be"),
     ([[0, 1]], [[-1, -1]], "every target is -1")],
)  # fmt: skip
def test_kernels_get_no_tokens_and_targets_that_do_not_fit(
    tokens: Any, targets: Any, message: str
) -> None:
    model = tg.GPT(replace(CONFIG, vocab_size=13))
    with CompiledEngine(model, 1, 1) as engine:
        for step in (engine.loss, engine.loss_and_grads):
            with pytest.raises(ValueError, match=message):
                step(np.array(tokens), np.array(targets))


def test_no_thread_begins_before_another_has_packed_the_weights(monkeypatch: Patch) -> None:
    monkeypatch.setattr(matmuls, "PACK_FROM", 1)
    model, tokens, targets = generic(CONFIG)
    shared, caller = Recording.shared, threading.get_ident()

    def by_another_and_late(self: Recording) -> Callable[[], None]:
        job = shared(self)

        def pack() -> None:
            if threading.get_ident() != caller:
                time.sleep(0.03)
                job()

        return pack

    with CompiledEngine(model, BATCH, 1) as alone, CompiledEngine(model, BATCH, 2) as engine:
        engine.loss(tokens, targets)
        for param in model.params.values():
            param *= np.float32(0.9)
        expected = alone.loss(tokens, targets)
        monkeypatch.setattr(Recording, "shared", by_another_and_late)
        assert engine.loss(tokens, targets) == expected


@pytest.mark.parametrize(("kind", "inside"), [("blas", 1), ("numba", 2)])
def test_blas_is_limited_to_one_thread_while_it_is_used(
    monkeypatch: Patch, kind: str, inside: int
) -> None:
    model, tokens, targets = generic(CONFIG)
    seen: list[int] = []
    run = MicroBatch.loss_and_grads

    def see_threads() -> None:
        seen.extend(pool["num_threads"] for pool in pools() if pool["user_api"] == "blas")

    def spy(*args: Any) -> float:
        see_threads()
        return run(*args)

    monkeypatch.setattr(MicroBatch, "loss_and_grads", spy)
    with threads.limited(2), CompiledEngine(model, BATCH, 2, kind) as engine:
        engine.loss_and_grads(tokens, targets)
        assert set(seen) == {inside}
        seen.clear()
        see_threads()
        assert set(seen) == {2}


def test_a_step_in_steady_state_allocates_next_to_nothing() -> None:
    model = tg.GPT(replace(DROPPING, n_embd=48, block_size=64))
    tokens = np.zeros((24, 64), np.int64)
    optimizer, peaks = AdamW(model.params, 0.9, 0.99, 0.1), list[int]()
    with CompiledEngine(model, len(tokens), 2) as engine:
        for _ in range(9):
            tracemalloc.start()
            _, grads = engine.loss_and_grads(tokens, tokens, 7)
            engine.update(optimizer, grads, engine.norm(grads), 1e-3, 1.0)
            engine.loss(tokens, tokens)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Not in all steps, because a thread makes a recording for each kind of micro-batch it gets.
    # A step saves at least 16 rows of C per token and block for its backward, in float32.
    activations = tokens.size * model.config.n_layer * 16 * model.config.n_embd * 4
    assert min(peaks) < 0.01 * activations


# A batch of one micro-batch, whose operations are split: more rows, columns and numbers than one
# thread is given at once.
ONE = tg.GPTConfig(vocab_size=150, block_size=70, n_layer=2, n_head=4, n_embd=80, bias=True)
NEWER = replace(
    ONE, n_kv_head=2, norm="rms_norm", positions="rotary_pairs", qk_norm=True, activation="swiglu",
    tied_head=False, logit_soft_cap=3.0,
)  # fmt: skip
# So large that two threads pack their operands at the same time.
WIDE = tg.GPTConfig(vocab_size=65, block_size=256, n_layer=1, n_head=6, n_embd=192)


@pytest.fixture
def usual_micro_batches(small_micro_batches: None, monkeypatch: Patch) -> None:
    monkeypatch.undo()


one_sequence = pytest.mark.usefixtures("usual_micro_batches")


def batch_of_one(config: tg.GPTConfig) -> tuple[tg.GPT, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    model, _, _ = generic(config)
    tokens, targets = rng.integers(0, config.vocab_size, (2, 1, config.block_size))
    targets[0, :3] = -1
    return model, tokens, targets


@one_sequence
@pytest.mark.parametrize(
    ("config", "steps"),
    [(ONE, 1), (replace(ONE, bias=False, activation="gelu_exact"), 1),
     (replace(ONE, dropout=0.2), 1), (NEWER, 1), (WIDE, 30)],
    ids=["bias", "no bias, exact", "dropout", "newer", "wide"],
)  # fmt: skip
def test_one_sequence_gives_the_same_bits_on_any_number_of_threads(
    config: tg.GPTConfig, steps: int
) -> None:
    model, tokens, targets = batch_of_one(config)
    with CompiledEngine(model, 1, 1) as alone:
        key, true = alone.draw(np.random.default_rng(6)), alone.loss(tokens, targets)
        expected_loss, expected = alone.loss_and_grads(tokens, targets, key)
        for count in (2, 3):
            with CompiledEngine(model, 1, count) as engine:
                for _ in range(steps):
                    loss, grads = engine.loss_and_grads(tokens, targets, key)
                    assert loss == expected_loss
                    assert_same_bits(grads, expected)
                assert engine.loss(tokens, targets) == true


KERNELS = [(matmul, "matmul_part"), (cross_entropy, "loss_and_dlogits")]
HEADS, VALUES = ("forward_heads", "backward_heads"), ("forward_values", "backward_values")
ROWS = ("forward_rows", "backward_rows")


@one_sequence
@pytest.mark.parametrize(
    ("config", "operations"),
    [(ONE, {attention: HEADS, gelu: VALUES}),
     (NEWER, {attention: HEADS, rms_norm: HEADS, rotary: HEADS, swiglu: ROWS, soft_cap: VALUES})],
    ids=["default", "newer"],
)  # fmt: skip
def test_split_operations_run_on_several_threads_and_are_true(
    config: tg.GPTConfig, operations: dict[Any, tuple[str, str]], monkeypatch: Patch
) -> None:
    split = [*KERNELS, *((module, name) for module in operations for name in operations[module])]
    ran_on = {(module.__name__, name): set[int]() for module, name in split}

    def watched(module: Any, name: str) -> Callable[..., Any]:
        before = getattr(module, name)

        def after(*args: Any) -> Any:
            ran_on[module.__name__, name].add(threading.get_ident())
            return before(*args)

        return after

    for module, name in split:
        monkeypatch.setattr(module, name, watched(module, name))
    model, tokens, targets = batch_of_one(config)
    with CompiledEngine(model, 1, 3) as engine:
        assert_true(engine, tokens, targets)
    assert all(len(found) > 1 for found in ran_on.values()), ran_on


@one_sequence
def test_operations_of_several_micro_batches_and_of_blas_are_not_split() -> None:
    model, _, _ = batch_of_one(ONE)

    def team(engine: CompiledEngine, batch: int) -> threads.ThreadTeam:
        tokens = np.zeros((batch, 70), np.int64)
        return engine.parts([(tokens, tokens)], [{}], tokens.size, None)[0].step.team

    with CompiledEngine(model, 8, 4) as engine:
        assert team(engine, 1).size == 4
        assert team(engine, 8) is ALONE
    with CompiledEngine(model, 1, 2, "blas") as engine:
        assert team(engine, 1) is ALONE


def test_micro_batches_are_recorded_once_and_forget_parameters_that_are_replaced(
    monkeypatch: Patch,
) -> None:
    model, tokens, targets = generic(CONFIG)

    optimizer = AdamW(model.params, 0.9, 0.99, 0.1)

    def update(engine: CompiledEngine) -> None:
        engine.update(optimizer, engine.grads, engine.norm(engine.grads), 1e-3, 1.0)

    def recordings(engine: CompiledEngine) -> set[int]:
        found = [each.recordings for thread in engine.buffers for each in thread.values()]
        return {id(recording) for each in found for recording in each.found.values()}

    with CompiledEngine(model, BATCH, 1) as engine:
        engine.loss(tokens, targets)
        engine.loss_and_grads(tokens, targets)
        before = recordings(engine)
        engine.loss(tokens, targets)
        engine.loss_and_grads(tokens, targets)
        assert recordings(engine) == before
        update(engine)
        old = weakref.ref(model.params["h.0.mlp.c_fc.weight"])
        model.params = {name: param.copy() for name, param in model.params.items()}
        engine.loss_and_grads(tokens, targets)
        gc.collect()
        assert old() is None
        monkeypatch.setattr(micro_batch, "MOST_RECORDINGS", 5)
        engine.buffers.clear()
        for _ in range(9):  # Into other arrays each time.
            grads = {name: np.zeros_like(param) for name, param in model.params.items()}
            engine.accumulate([(tokens, targets)], [grads], tokens.size, None)
        micro_batches = [each for thread in engine.buffers for each in thread.values()]
        assert all(len(each.recordings.found) <= 5 for each in micro_batches)


# Trains after the warm-up in an empty cache, and prints what is compiled then.
TRAINING = """
import numpy as np
from tinygpt_np import GPT, TrainConfig
from tinygpt_np.compiled import cache
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model import optimizer as optim

sizes = {"block_size": 64, "n_layer": 1, "n_head": 2, "n_embd": 16}
config = TrainConfig(optimizer="muon", **sizes, **OPTIONS)
model = GPT(config.gpt(11))
optimizer = optim.make(config, model.params)
tokens = np.arange(16 * 64).reshape(16, 64) % 11
with CompiledEngine(model, 16, 2) as engine:
    engine.warm_up(optimizer)
    with cache.watch(print):
        for batch in (tokens, tokens[:1]):
            engine.loss(batch, batch)
            _, grads = engine.loss_and_grads(batch, batch, engine.draw(np.random.default_rng(1)))
            engine.update(optimizer, grads, engine.norm(grads), 1e-3, 1.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.1, "bias": True},
     {"norm": "rms_norm", "positions": "rotary_pairs", "activation": "swiglu", "qk_norm": True,
      "logit_soft_cap": 9.0}],
    ids=["older", "newer"],
)  # fmt: skip
def test_steps_compile_nothing_after_the_warm_up(
    options: dict[str, Any], tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert printed(f"OPTIONS = {options!r}{TRAINING}") == ""
