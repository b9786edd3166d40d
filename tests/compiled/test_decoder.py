"""The compiled decoder: the logits of the whole window, on any number of threads."""

import gc
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.config_fields import combined, one_by_one
from helpers.errors import relative_error
from helpers.processes import LIMIT

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled import decoder as compiled_decoder
from tinygpt_np.compiled.decoder import CompiledDecoder, plan
from tinygpt_np.compiled.kernels import decoding, matmul
from tinygpt_np.compiled.kernels.matmul import PANEL

Patch = pytest.MonkeyPatch
B, V, BLOCK = 3, 11, 9
CONFIG = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=3, n_head=2, n_embd=10, bias=True)
# Long enough for three windows and more where a panel is narrow, as without AVX-512.
TEXT = np.random.default_rng(5).integers(0, V, (7, 5 * PANEL))
# Besides CONFIG: blocks of one token, of fewer than are left, and around a panel's width; heads of
# prime size, and wider than a panel; a width of whole vectors.
CONFIGS = {
    "bias": CONFIG,
    "no-bias": replace(CONFIG, bias=False, n_layer=1),
    "exact": replace(CONFIG, activation="gelu_exact"),
    "block-1": replace(CONFIG, block_size=1),
    "block-2": replace(CONFIG, block_size=2),
    "block-4": replace(CONFIG, block_size=4),
    "panel": replace(CONFIG, block_size=PANEL, n_head=3, n_embd=21),
    "panel-1": replace(CONFIG, block_size=PANEL + 1, n_head=2, n_embd=32),
    "panel-6": replace(CONFIG, block_size=PANEL + 6, n_head=1, n_embd=17, vocab_size=71),
    "wide": replace(CONFIG, n_head=1, n_embd=PANEL + 3),
}
# Enough heads for each number of heads of keys and values, and an even head size.
GROUPED = replace(CONFIG, n_head=4, n_embd=24)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("large", "long")]


@pytest.fixture(params=["small", *SLOW])
def large(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    """Weights that are packed; or read in place, with matmuls split by columns or by rows."""
    if request.param != "small":
        monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    if request.param == "long":
        monkeypatch.setattr(compiled_decoder, "ROWS_APART", 2)
        monkeypatch.setattr(compiled_decoder, "FEW", 0)


in_both = pytest.mark.usefixtures("large")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: Patch) -> None:
    """Fill buffers and caches with NaN, so that reading unwritten memory shows."""

    def filled(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any) -> Any:
            found = make(*args)
            for array in found:
                array.fill(np.nan)
            if isinstance(found, decoding.Buffers):
                found.scratch[:PANEL] = 0  # Sums start from these.
            return found

        return made

    for name in ("make_buffers", "make_cache"):
        monkeypatch.setattr(decoding, name, filled(getattr(decoding, name)))


def decoder_of(model: GPT, batch: int = B, threads: int | None = None) -> CompiledDecoder:
    return CompiledDecoder(model.config, model.params, batch, threads)


def generic(config: GPTConfig = CONFIG, backend: str = "numba") -> GPT:
    """Return a model whose weights keep activations at order one, so that attention is spread."""
    rng = np.random.default_rng(3)
    model = GPT(config, backend=backend)
    for name, param in model.params.items():
        fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
        model.params[name] = (rng.standard_normal(param.shape) / fan_in**0.5).astype(np.float32)
    return model


def truth(model: GPT, text: np.ndarray) -> np.ndarray:
    """Return the logits (T, B, V) after each token, in float64, from the whole window."""
    exact, size = GPT(model.config, dtype="float64"), model.block_size
    exact.params = {name: param.astype(np.float64) for name, param in model.params.items()}
    growing = exact.logits(text[:, :size]).swapaxes(0, 1)
    if text.shape[1] <= size:
        return growing
    windows = np.lib.stride_tricks.sliding_window_view(text[:, 1:], size, 1)  # (B, ·, M)
    full = exact.logits(windows.reshape(-1, size))[:, -1].reshape(*windows.shape[:2], -1)
    return np.concatenate([growing, full.swapaxes(0, 1)])


def read_through(decoder: CompiledDecoder, text: np.ndarray, lengths: list[int]) -> np.ndarray:
    """All logits of sequences read in pieces of these lengths, (pieces, B, V)."""
    ends = [0, *itertools.accumulate(lengths)]
    return np.stack([decoder.read(text[:, a:b]) for a, b in itertools.pairwise(ends)])


def assert_true(found: np.ndarray, true: np.ndarray) -> None:
    """Compare logits (·, B, V) after each token."""
    for number, (logits, expected) in enumerate(zip(found, true, strict=True)):
        assert relative_error(logits, expected) < 1e-5, number


@in_both
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_are_those_of_the_whole_window_with_equal_bits_however_they_are_read(
    config: GPTConfig,
) -> None:
    model, text, M = generic(config), TEXT[:B] % config.vocab_size, config.block_size
    lengths = [1] * (3 * M + 2)
    text = text[:, : len(lengths)]
    expected = read_through(decoder_of(model, B, 1), text, lengths)
    assert_true(expected, truth(model, text))
    for threads in (2, 3):
        found = read_through(decoder_of(model, B, threads), text, lengths)
        np.testing.assert_array_equal(found, expected)
    alone = read_through(decoder_of(model, 1, 2), text[1:2], lengths)
    np.testing.assert_array_equal(alone, expected[:, 1:2])
    at_once = decoder_of(model, B, 2).read(text[:, : 2 * M])
    np.testing.assert_array_equal(at_once, expected[2 * M - 1])


@in_both
@pytest.mark.parametrize("name", one_by_one(GROUPED))
def test_every_value_of_every_field_gives_true_logits_with_equal_bits(name: str) -> None:
    assert_true_and_equal(one_by_one(GROUPED)[name])


@in_both
@pytest.mark.parametrize("seed", range(12))
def test_combined_fields_give_true_logits_with_equal_bits(seed: int) -> None:
    assert_true_and_equal(combined(GROUPED, seed))


def assert_true_and_equal(config: GPTConfig) -> None:
    """Read several tokens, then single ones to past block_size, on 1, 2 and 3 threads."""
    model, text = generic(config), TEXT[:B, : BLOCK + 5]
    lengths = [5] + [1] * BLOCK
    expected = read_through(decoder_of(model, B, 1), text, lengths)
    assert_true(expected, truth(model, text)[4:])
    for threads in (2, 3):
        found = read_through(decoder_of(model, B, threads), text, lengths)
        np.testing.assert_array_equal(found, expected)
    at_once = decoder_of(model, B, 2).read(text)
    np.testing.assert_array_equal(at_once, expected[-1])


@in_both
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("lengths", [
    [4, 1, 1], [BLOCK + 1, 1, 1, 1], [3 * BLOCK, 1, 1, 1, 1, 1], [1, 3, 1, 2, 1, 1],
    [BLOCK, 1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1], [BLOCK, 1, 1, BLOCK, 1, 1, BLOCK + 4, 1, 1],
])  # fmt: skip
def test_tokens_may_come_several_at_once_to_two_decoders(lengths: list[int], threads: int) -> None:
    model, text = generic(), TEXT[:B]
    one, other = (decoder_of(model, B, threads) for _ in range(2))
    true, start = truth(model, text), 0
    for end in itertools.accumulate(lengths):
        found = one.read(text[:, start:end])
        other.read(text[:, start + 4 : end + 4])
        assert relative_error(found, true[end - 1]) < 1e-5, f"after {end} tokens"
        start = end


@in_both
def test_more_sequences_than_fit_are_read_in_parts(monkeypatch: Patch) -> None:
    monkeypatch.setattr(compiled_decoder, "ROWS_AT_ONCE", 1)
    model, text = generic(replace(CONFIG, block_size=3)), TEXT[:, :6]
    found = read_through(decoder_of(model, 7, 2), text, [2, 1, 1, 1, 1])
    assert_true(found, truth(model, text)[1:])


@in_both
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.3, None, None), (2, 50, 0.8)])
def test_both_backends_generate_the_same_text(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    config, prompts = replace(CONFIG, vocab_size=71), np.array([[3], [1]])

    def written(backend: str) -> np.ndarray:
        model = generic(config, backend)
        assert ("compiled" in model.decoder(1).__module__) == (backend == "numba")
        made = model.generate(prompts, 4 * BLOCK, temperature, top_k=top_k, top_p=top_p, seed=1)
        return np.array(list(made))

    np.testing.assert_array_equal(written("numba"), written("numpy"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("top_k", [1, 50])
def test_both_backends_generate_the_same_text_with_combined_fields(seed: int, top_k: int) -> None:
    config, prompts = combined(replace(GROUPED, vocab_size=71), seed), TEXT[:, :3] * 6

    def written(backend: str) -> np.ndarray:
        made = generic(config, backend).generate(prompts, 2 * BLOCK, top_k=top_k, seed=1)
        return np.array(list(made))

    text = written("numba")
    np.testing.assert_array_equal(text, written("numpy"))
    assert len(np.unique(text)) > 1


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5, 8, 64, 1024])
def test_a_plan_is_possible(block_size: int) -> None:
    for batch, threads in itertools.product((1, 3, 64), (1, 2, 3, 8, 64)):
        windows, left = plan(batch, block_size, threads)
        assert 1 <= windows <= left <= block_size
        if 1 < threads < block_size // 4:
            assert left < block_size
            assert windows >= 2
            assert windows == 2 or windows * batch * block_size <= compiled_decoder.MOST_ROWS


def test_a_large_model_is_not_copied_and_a_new_decoder_sees_an_update(monkeypatch: Patch) -> None:
    monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    monkeypatch.setattr(matmul, "pack_matrix", None)
    model, text = generic(), TEXT[:B, :5]
    before = decoder_of(model).read(text)
    model.params["h.1.mlp.c_fc.weight"][3] += 1
    after = decoder_of(model).read(text)
    assert relative_error(after, truth(model, text)[-1]) < 1e-5
    assert relative_error(after, before) > 1e-3


@in_both
def test_parameters_may_have_any_memory_layout() -> None:
    model, text = generic(), TEXT[:B, :7]
    expected = decoder_of(model).read(text)
    for name, param in model.params.items():
        model.params[name] = np.asfortranarray(param)
        model.params[name].flags.writeable = False
    np.testing.assert_array_equal(decoder_of(model).read(text), expected)


# Errors


def elsewhere(monkeypatch: Patch, event: Callable[[], None]) -> None:
    """Call a function before each call of the kernel on another thread than this one."""
    read = decoding.read

    def after(*args: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            event()
        read(*args)

    monkeypatch.setattr(decoding, "read", after)


def failing_once() -> Callable[[], None]:
    errors = [MemoryError("out of memory")]

    def fail() -> None:
        if errors:
            raise errors.pop()

    return fail


@pytest.mark.parametrize("few", [32, 0], ids=["split columns", "split rows"])
def test_an_error_in_one_of_the_threads_that_read_together_is_raised_and_stops_the_others(
    few: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    monkeypatch.setattr(compiled_decoder, "ROWS_APART", 2)
    monkeypatch.setattr(compiled_decoder, "FEW", few)
    elsewhere(monkeypatch, failing_once())
    model, text = generic(), TEXT[:B, :BLOCK]
    with pytest.raises(MemoryError, match="out of memory"):
        decoder_of(model, B, 2).read(text)
    assert relative_error(decoder_of(model, B, 2).read(text), truth(model, text)[-1]) < 1e-5


def test_wrong_parameters_and_no_tokens_are_refused() -> None:
    model = generic()
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\) with T ≥ 1"):
        decoder_of(model).read(np.zeros((B, 0), np.int64))
    model.params["wpe.weight"] = model.params["wpe.weight"][1:]
    with pytest.raises(ValueError, match=r"wpe\.weight must be \(9, 10\), not \(8, 10\)"):
        decoder_of(model)
    model.params["ln_f.weight"] = model.params["ln_f.weight"].astype(np.float64)
    with pytest.raises(TypeError, match=r"ln_f\.weight must be an array of float32, not float64"):
        decoder_of(model)


def test_an_error_while_reading_ahead_is_raised_once_when_its_window_is_used(
    monkeypatch: Patch,
) -> None:
    elsewhere(monkeypatch, failing_once())
    model, text = generic(), TEXT[:B, : 2 * BLOCK]
    decoder, true = decoder_of(model, B, 2), truth(model, text)
    decoder.read(text[:, : BLOCK + 1])
    with pytest.raises(MemoryError, match="out of memory"):
        decoder.read(text[:, BLOCK + 1 : BLOCK + 2])
    rest = [1] * (BLOCK - 2)
    assert_true(read_through(decoder, text[:, BLOCK + 2 :], rest), true[BLOCK + 2 :])


def test_a_discarded_window_is_not_written_to_later(monkeypatch: Patch) -> None:
    begun: list[threading.Thread] = []

    def wait_once() -> None:
        if not begun:
            begun.append(threading.current_thread())
            time.sleep(0.3)

    elsewhere(monkeypatch, wait_once)
    model, text = generic(), TEXT[:B, : 2 * BLOCK]
    # Two others: one is slow, and the next window of its part of the cache is the other's.
    decoder, true = decoder_of(model, B, 3), truth(model, text)
    decoder.read(text[:, : BLOCK + 1])
    while not begun:
        time.sleep(0.001)
    decoder.read(text[:, BLOCK + 1 : BLOCK + 3])
    time.sleep(0.4)
    rest = [1] * (BLOCK - 3)
    assert_true(read_through(decoder, text[:, BLOCK + 3 :], rest), true[BLOCK + 3 :])


def test_a_deleted_decoder_leaves_no_threads_and_no_work(monkeypatch: Patch) -> None:
    gate, begun = threading.Event(), list[threading.Thread]()

    def wait() -> None:
        begun.append(threading.current_thread())
        assert gate.wait(LIMIT)

    elsewhere(monkeypatch, wait)
    decoder = decoder_of(generic(), B, 2)
    assert decoder.windows == 3
    decoder.read(TEXT[:B, : BLOCK + 1])
    while not begun:
        time.sleep(0.001)
    del decoder
    gc.collect()
    gate.set()
    begun[0].join(LIMIT)
    assert not begun[0].is_alive()
    assert len(begun) == 1
