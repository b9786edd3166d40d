"""The compiled step on threads: the same bits on any number, errors that come out, what is left."""

import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]
from helpers.small_gpts import (
    BATCH,
    CONFIG,
    DROPPING,
    MOST_ROWS,
    SPLIT,
    STUCK,
    TIME,
    Tensors,
    assert_same_bits,
    copied,
    generic,
)

import tinygpt_np as tg
from tinygpt_np.compiled import engine as parallel
from tinygpt_np.compiled import products, threads
from tinygpt_np.compiled.engine import CompiledEngine, micro_batches
from tinygpt_np.compiled.kernels import cross_entropy
from tinygpt_np.compiled.micro_batch import MicroBatch
from tinygpt_np.model.optimizer import AdamW

pools: Callable[[], list[dict[str, Any]]] = threadpoolctl.threadpool_info


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_ROWS", MOST_ROWS)
    assert micro_batches(BATCH, TIME) == SPLIT


def trained(count: int, matmul: str = "numba") -> tuple[list[float], Tensors, Tensors]:
    """Losses and norms, last gradients and weights of 50 steps on changing batches."""
    model, _, _ = generic(DROPPING)
    optimizer = AdamW(model.params, 0.9, 0.99, 0.1)
    rng, dropout = np.random.default_rng(8), np.random.default_rng(9)
    numbers, grads = list[float](), Tensors()
    with CompiledEngine(model, BATCH, count, matmul) as engine:
        for _ in range(50):
            tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, BATCH, TIME))
            loss, grads = engine.loss_and_grads(tokens, targets, engine.draw(dropout))
            norm = engine.norm(grads)
            engine.update(optimizer, grads, norm, 1e-3, 1.0)
            numbers += [loss, norm, engine.loss(tokens, targets)]
    return numbers, grads, model.params


@pytest.fixture(scope="module")
def on_two_threads() -> tuple[list[float], Tensors, Tensors]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_chunks_and_micro_batches(monkeypatch)
        return trained(2)


def small_chunks_and_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_ROWS", MOST_ROWS)
    monkeypatch.setattr(parallel, "CHUNK", 1000)


@pytest.mark.parametrize("pack_from", [1, 99], ids=["packed", "on the fly"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_fifty_steps_give_the_same_bits_on_any_number_of_threads_packed_or_not(
    count: int,
    pack_from: int,
    monkeypatch: pytest.MonkeyPatch,
    on_two_threads: tuple[list[float], Tensors, Tensors],
) -> None:
    small_chunks_and_micro_batches(monkeypatch)
    monkeypatch.setattr(products, "PACK_FROM", pack_from)
    numbers, grads, params = trained(count)
    assert numbers == on_two_threads[0]
    assert_same_bits(grads, on_two_threads[1])
    assert_same_bits(params, on_two_threads[2])


@pytest.mark.parametrize("late", range(len(SPLIT)))
def test_gradients_have_the_same_bits_whichever_micro_batch_comes_last(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, len(SPLIT)) as engine:
        expected = copied(engine.loss_and_grads(tokens, targets)[1])
        in_micro_batch(monkeypatch, targets[SPLIT[late]], lambda: time.sleep(0.03))
        _, grads = engine.loss_and_grads(tokens, targets)
        assert_same_bits(grads, expected)


def in_micro_batch(
    monkeypatch: pytest.MonkeyPatch, targets: np.ndarray, event: Callable[[], None]
) -> None:
    """Makes something happen between forward and backward of the one with these targets."""
    before: Callable[..., None] = cross_entropy.loss_and_dlogits

    def after(logits: Any, given: np.ndarray, *rest: Any) -> None:
        if np.array_equal(given, targets.reshape(-1)):
            event()
        before(logits, given, *rest)

    monkeypatch.setattr(cross_entropy, "loss_and_dlogits", after)


def outcome(engine: CompiledEngine, job: Callable[[], Any]) -> Any:
    """What a call returned, or the exception it raised; fails if it hangs."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(job())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(STUCK)
    if thread.is_alive():
        engine.turns.stop()  # Else the engine would never close.
        pytest.fail("the call hangs")
    return found[0]


def fail() -> None:
    raise ArithmeticError("a kernel broke")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 4])
def test_an_error_in_one_micro_batch_comes_out_and_the_next_step_is_right(
    count: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, count) as engine:
        expected = copied(engine.loss_and_grads(tokens, targets)[1])
        with monkeypatch.context() as broken:
            in_micro_batch(broken, targets[SPLIT[number]], fail)
            error = outcome(engine, lambda: engine.loss_and_grads(tokens, targets))
        assert isinstance(error, ArithmeticError)
        assert str(error) == "a kernel broke"
        _, grads = outcome(engine, lambda: engine.loss_and_grads(tokens, targets))
        assert_same_bits(grads, expected)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_when_an_error_comes_out_no_thread_is_at_work_any_more(failing: int) -> None:
    model, _, _ = generic(CONFIG)
    left: list[int] = []

    def work(thread: int) -> None:
        if thread == failing:
            fail()
        time.sleep(0.1 * thread)
        left.append(thread)

    with CompiledEngine(model, BATCH, 3) as engine:
        with pytest.raises(ArithmeticError, match=r"^a kernel broke$"):
            engine.on_threads(work, 3)
        assert sorted(left) == [thread for thread in range(3) if thread != failing]


REFUSED: list[tuple[Any, type[Exception]]] = [
    *((0, ValueError), (-3, ValueError)),
    *((1.5, TypeError), (True, TypeError), ("2", TypeError)),
]


@pytest.mark.parametrize(("count", "kind"), REFUSED)
def test_what_is_no_number_of_threads_is_refused_and_blas_keeps_its_own(
    count: Any, kind: type[Exception]
) -> None:
    with threads.limited(2):
        before = blas_threads()
        with pytest.raises(kind, match="threads must be a positive integer"):
            CompiledEngine(tg.GPT(CONFIG), BATCH, count)
        assert blas_threads() == before


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in pools() if pool["user_api"] == "blas"]


@pytest.mark.parametrize(("matmul", "inside"), [("blas", 1), ("numba", 2)])
def test_blas_has_one_thread_for_each_of_ours_while_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, matmul: str, inside: int
) -> None:
    model, tokens, targets = generic(CONFIG)
    seen: list[list[int]] = []
    run = MicroBatch.loss_and_grads

    def spy(*args: Any) -> float:
        seen.append(blas_threads())
        return run(*args)

    monkeypatch.setattr(MicroBatch, "loss_and_grads", spy)
    with threads.limited(2), CompiledEngine(model, BATCH, 2, matmul) as engine:
        before = blas_threads()
        engine.loss_and_grads(tokens, targets)
        assert blas_threads() == before
    assert seen
    assert all(each == [inside] * len(before) for each in seen)


def test_blas_has_its_threads_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, targets = generic(CONFIG)

    def fail(*args: Any) -> float:
        raise RuntimeError("in a micro-batch")

    monkeypatch.setattr(MicroBatch, "loss_and_grads", fail)
    with threads.limited(2), CompiledEngine(model, BATCH, 2, "blas") as engine:
        before = blas_threads()
        with pytest.raises(RuntimeError, match="in a micro-batch"):
            engine.loss_and_grads(tokens, targets)
        assert blas_threads() == before


def test_after_closing_none_of_its_threads_is_left() -> None:
    before = threading.active_count()
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 3) as engine:
        engine.loss_and_grads(tokens, targets)
    assert threading.active_count() == before


def test_a_step_in_steady_state_allocates_next_to_nothing() -> None:
    config = replace(DROPPING, n_embd=48, block_size=64)
    model = tg.GPT(config)
    tokens = np.zeros((24, 64), np.int64)
    # What a step saves for its backward: 16 rows of C of each block and more, in float32.
    activations = tokens.size * config.n_layer * 16 * config.n_embd * 4
    optimizer = AdamW(model.params, 0.9, 0.99, 0.1)
    with CompiledEngine(model, len(tokens), 2) as engine:

        def step() -> None:
            _, grads = engine.loss_and_grads(tokens, tokens, 7)
            engine.update(optimizer, grads, engine.norm(grads), 1e-3, 1.0)
            engine.loss(tokens, tokens)

        for _ in range(3):
            step()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            step()
            growth = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert growth < 0.01 * activations
