"""Threads that share out one micro-batch: everything once, the same bits, errors that come out."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.small_gpts import assert_same_bits, copied, generic

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.engine import CompiledEngine, micro_batch_count
from tinygpt_np.compiled.kernels import attention, cross_entropy, gelu, matmul
from tinygpt_np.compiled.team import ALONE, Team

# One text, and more rows, columns and numbers than one thread is given at once.
CONFIG = GPTConfig(vocab_size=150, block_size=70, n_layer=2, n_head=5, n_embd=80, bias=True)
VARIANTS = {
    "bias": {}, "no-bias": {"bias": False}, "exact": {"gelu": "exact"}, "dropout": {"dropout": 0.2},
}  # fmt: skip


def parts(count: int, total: int, unit: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    shared: list[int] = []

    def share(tasks: Sequence[Callable[[], Any]]) -> None:
        shared.append(len(tasks))
        for task in tasks:
            task()

    Team(count, share).over(total, unit, lambda part: found.append((part.start, part.stop)))
    assert shared == ([len(found)] if len(found) > 1 else [])
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(("total", "unit"), [(1, 1), (2, 1), (64, 64), (65, 64), (999, 64), (7, 1)])
def test_everything_is_done_once_in_parts_that_begin_at_units(
    count: int, total: int, unit: int
) -> None:
    found = parts(count, total, unit)
    assert [place for a, b in found for place in range(a, b)] == list(range(total))
    assert all(a % unit == 0 for a, _ in found)
    assert len(found) <= count
    if total >= count * unit:
        assert len(found) == count


def test_one_alone_does_it_all_at_once() -> None:
    found: list[slice] = []
    ALONE.over(100, 3, found.append)
    assert found == [slice(0, 100)]


def batch(config: GPTConfig) -> tuple[GPT, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    model, _, _ = generic(config)
    tokens, targets = rng.integers(0, config.vocab_size, (2, 1, config.block_size))
    targets[0, :3] = -1
    return model, tokens, targets


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_one_text_gives_the_same_bits_on_any_number_of_threads(change: dict[str, Any]) -> None:
    config = GPTConfig(**{**vars(CONFIG), **change})
    model, tokens, targets = batch(config)
    expected: Any = None
    for count in (1, 2, 3, 4):
        with CompiledEngine(model, 1, count) as engine:
            noise = engine.draw(np.random.default_rng(6))
            loss, grads = engine.loss_and_grads(tokens, targets, noise)
            found = [loss, engine.loss(tokens, targets)], copied(grads)
        expected = expected or found
        assert found[0] == expected[0]
        assert_same_bits(found[1], expected[1])


def test_thirty_steps_on_one_text_have_the_bits_of_one_thread() -> None:
    # So large that two threads pack their operands at the same time.
    config = GPTConfig(vocab_size=65, block_size=256, n_layer=1, n_head=6, n_embd=192)
    model, tokens, targets = batch(config)
    with CompiledEngine(model, 1, 1) as alone, CompiledEngine(model, 1, 2) as team:
        loss, grads = alone.loss_and_grads(tokens, targets)
        for _ in range(30):
            found_loss, found = team.loss_and_grads(tokens, targets)
            assert found_loss == loss
            assert_same_bits(found, grads)


def test_what_is_shared_out_has_the_gradients_of_the_truth() -> None:
    model, tokens, targets = batch(CONFIG)
    truth = GPT(CONFIG, dtype="float64")
    truth.params = {name: param.astype(np.float64) for name, param in model.params.items()}
    expected_loss, expected = truth.loss_and_grads(tokens, targets)
    with CompiledEngine(model, 1, 3) as engine:
        loss, grads = engine.loss_and_grads(tokens, targets)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for name, grad in expected.items():
        assert relative_error(grads[name], grad) < 2e-5, name


def test_the_threads_do_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant to be shared out is done by more than one thread."""
    seen: dict[str, set[int]] = {}

    def watched(module: Any, name: str) -> None:
        before: Callable[..., Any] = getattr(module, name)

        def after(*args: Any) -> Any:
            seen.setdefault(name, set()).add(threading.get_ident())
            return before(*args)

        monkeypatch.setattr(module, name, after)

    watched(matmul, "part_of_matmul")
    watched(attention, "forward_texts")
    watched(attention, "backward_texts")
    watched(cross_entropy, "loss_and_dlogits")
    watched(gelu, "forward_values")
    watched(gelu, "backward_values")
    model, tokens, targets = batch(CONFIG)
    with CompiledEngine(model, 1, 2) as engine:
        engine.loss_and_grads(tokens, targets)
    assert {name: len(threads) for name, threads in seen.items()} == dict.fromkeys(seen, 2)
    assert len(seen) == 6


def test_with_more_micro_batches_than_one_nothing_is_shared_out() -> None:
    model, _, _ = batch(CONFIG)
    with CompiledEngine(model, 8, 4) as engine:
        assert engine.team((1, 70)).count == 4
        assert engine.team((8, 70)) is ALONE
    with CompiledEngine(model, 1, 2, "blas") as engine:
        assert engine.team((1, 70)) is ALONE


def test_an_error_in_one_of_the_threads_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, targets = batch(CONFIG)
    before: Any = attention.backward_texts

    def failing(*args: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room")
        before(*args)

    with CompiledEngine(model, 1, 2) as engine:
        expected = copied(engine.loss_and_grads(tokens, targets)[1])
        with monkeypatch.context() as patched:
            patched.setattr(attention, "backward_texts", failing)
            with pytest.raises(MemoryError, match="no room"):
                engine.loss_and_grads(tokens, targets)
        assert_same_bits(engine.loss_and_grads(tokens, targets)[1], expected)


@pytest.mark.parametrize(
    ("texts", "time", "count"),
    [(64, 256, 32), (12, 64, 4), (8, 65, 4), (2, 128, 2), (1, 1024, 1), (4, 31, 1), (3, 1024, 3)],
)
def test_the_split_of_a_batch_stays_what_it_is_because_it_decides_the_bits_of_a_training(
    texts: int, time: int, count: int
) -> None:
    assert micro_batch_count(texts, time) == count
