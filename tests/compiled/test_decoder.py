"""The compiled decoder: the logits of the whole window, on any number of threads."""

import gc
import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled import decoder as compiled_decoder
from tinygpt_np.compiled.decoder import CompiledDecoder, plan
from tinygpt_np.compiled.kernels import decoding
from tinygpt_np.compiled.kernels.matmul import PANEL
from tinygpt_np.model.decoder import Decoder

B, V, BLOCK = 3, 11, 9
CONFIG = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=3, n_head=2, n_embd=10, bias=True)
# Long enough for three windows and more where a panel is narrow, as without AVX-512.
TEXT = np.random.default_rng(5).integers(0, V, (7, 5 * PANEL))
# Besides CONFIG: blocks of one token, of fewer than are left, and around a panel's width; heads of
# prime size, and wider than a panel; a width of whole vectors.
CONFIGS = {
    "bias": CONFIG,
    "no-bias": replace(CONFIG, bias=False),
    "exact": replace(CONFIG, gelu="exact"),
    "one-layer": replace(CONFIG, n_layer=1),
    "block-1": replace(CONFIG, block_size=1),
    "block-2": replace(CONFIG, block_size=2),
    "block-4": replace(CONFIG, block_size=4),
    "panel": replace(CONFIG, block_size=PANEL, n_head=3, n_embd=21),
    "panel-1": replace(CONFIG, block_size=PANEL + 1, n_head=2, n_embd=32),
    "panel-6": replace(CONFIG, block_size=PANEL + 6, n_head=1, n_embd=17, vocab_size=71),
    "wide": replace(CONFIG, n_head=1, n_embd=PANEL + 3),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("large", "long")]


@pytest.fixture(params=["small", *SLOW])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are packed; or read in place, with matmuls split by columns or by rows."""
    if request.param != "small":
        monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    if request.param == "long":
        monkeypatch.setattr(compiled_decoder, "ROWS_APART", 2)
        monkeypatch.setattr(compiled_decoder, "FEW", 0)


in_both = pytest.mark.usefixtures("large")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill buffers and caches with NaN, so that reading unwritten memory shows."""
    make_buffers, make_cache = decoding.make_buffers, decoding.make_cache

    def buffers(*args: Any) -> decoding.Buffers:
        found = make_buffers(*args)
        for buffer in found[:-1]:
            buffer.fill(np.nan)
        found.scratch[PANEL:] = np.nan  # Sums start from the zeros before it.
        return found

    def cache(*args: Any) -> decoding.Cache:
        found = make_cache(*args)
        for part in found:
            part.fill(np.nan)
        return found

    monkeypatch.setattr(decoding, "make_buffers", buffers)
    monkeypatch.setattr(decoding, "make_cache", cache)


def decoder_of(model: GPT, batch: int, threads: int | None = None) -> CompiledDecoder:
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


def sequences(config: GPTConfig, batch: int = B) -> np.ndarray:
    return TEXT[:batch] % config.vocab_size


def read_through(decoder: CompiledDecoder, text: np.ndarray, lengths: list[int]) -> np.ndarray:
    """All logits of sequences read in pieces of these lengths, (pieces, B, V)."""
    ends = [0, *itertools.accumulate(lengths)]
    return np.stack([decoder.read(text[:, a:b]) for a, b in itertools.pairwise(ends)])


@in_both
@every_config
def test_every_step_gives_the_logits_of_the_whole_window(config: GPTConfig) -> None:
    model, text = generic(config), sequences(config)
    decoder = decoder_of(model, B, 2)
    text = text[:, : 2 * config.block_size + 3]
    found = read_through(decoder, text, [1] * text.shape[1])
    for end, (logits, true) in enumerate(zip(found, truth(model, text), strict=True), 1):
        assert relative_error(logits, true) < 1e-5, f"after {end} tokens"


@in_both
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("lengths", [
    [4, 1, 1], [BLOCK, 1, 1, 1], [BLOCK + 1, 1, 1, 1], [3 * BLOCK, 1, 1, 1, 1, 1],
    [1, 3, 1, 2, 1, 1], [BLOCK - 1, 2, 1, 1], [BLOCK, 1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1],
    [BLOCK, 1, 1, BLOCK, 1, 1, BLOCK + 4, 1, 1],
])  # fmt: skip
def test_tokens_may_come_several_at_once(lengths: list[int], threads: int) -> None:
    model, text = generic(), sequences(CONFIG)
    found, true = read_through(decoder_of(model, B, threads), text, lengths), truth(model, text)
    for logits, end in zip(found, np.cumsum(lengths), strict=True):
        assert relative_error(logits, true[end - 1]) < 1e-5, f"after {end} tokens"


@in_both
@every_config
def test_the_bits_depend_neither_on_threads_nor_on_what_is_read_together(config: GPTConfig) -> None:
    model, text, M = generic(config), sequences(config), config.block_size
    lengths = [1] * (3 * M + 2)
    expected = read_through(decoder_of(model, B, 1), text, lengths)
    for threads in (2, 3):
        found = read_through(decoder_of(model, B, threads), text, lengths)
        np.testing.assert_array_equal(found, expected)
    alone = read_through(decoder_of(model, 1, 2), text[1:2], lengths)
    np.testing.assert_array_equal(alone, expected[:, 1:2])
    at_once = decoder_of(model, B, 2).read(text[:, : 2 * M])
    np.testing.assert_array_equal(at_once, expected[2 * M - 1])


@in_both
def test_more_sequences_than_fit_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_decoder, "ROWS_AT_ONCE", 1)
    model, text = generic(replace(CONFIG, block_size=3)), sequences(CONFIG, 7)
    found = read_through(decoder_of(model, 7, 2), text[:, :6], [2, 1, 1, 1, 1])
    for logits, true in zip(found, truth(model, text[:, :6])[1:], strict=True):
        assert relative_error(logits, true) < 1e-5


@in_both
@pytest.mark.parametrize("threads", [1, 3])
def test_two_decoders_of_one_model_do_not_disturb_each_other(threads: int) -> None:
    model, text = generic(), sequences(CONFIG)
    one, other = (decoder_of(model, B, threads) for _ in range(2))
    for place, true in enumerate(truth(model, text[:, : 2 * BLOCK])):
        found = one.read(text[:, place : place + 1])
        other.read(text[:, place + 4 : place + 5])
        assert relative_error(found, true) < 1e-5


def test_logits_are_the_callers_own() -> None:
    decoder, text = decoder_of(generic(), B), sequences(CONFIG)
    first = decoder.read(text[:, :2])
    before = first.copy()
    decoder.read(text[:, 2:3])
    np.testing.assert_array_equal(first, before)


@in_both
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0, None, None), (0.3, None, None), (2, 50, 0.8)]
)
def test_both_backends_generate_the_same_text(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    config, prompts = replace(CONFIG, vocab_size=71), np.array([[3], [1]])

    def written(backend: str, **rules: Any) -> np.ndarray:
        made = generic(config, backend).generate(prompts, 4 * BLOCK, temperature, seed=1, **rules)
        return np.array(list(made))

    true = written("numpy", top_k=top_k, top_p=top_p)
    np.testing.assert_array_equal(written("numba", top_k=top_k, top_p=top_p), true)
    assert np.array_equal(written("numpy", top_k=top_k), true) == (top_p is None)


def test_each_backend_has_its_decoder() -> None:
    for backend, kind in (("numpy", Decoder), ("numba", CompiledDecoder)):
        read: Any = generic(backend=backend).decoder(1)
        assert type(read.__self__) is kind


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_plan_is_possible(batch: int, threads: int) -> None:
    for block_size in (1, 2, 3, 4, 5, 8, 64, 256, 1024):
        windows, left = plan(batch, block_size, threads)
        assert 1 <= windows <= left <= block_size
        if 1 < threads < block_size // 4:
            assert left < block_size
            assert windows >= 2
            assert windows == 2 or windows * batch * block_size <= compiled_decoder.MOST_ROWS


def test_a_large_model_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    monkeypatch.setattr(compiled_decoder, "panels", None)
    model, text = generic(), sequences(CONFIG)
    decoder_of(model, B).read(text[:, :5])
    # A decoder that is made after an update uses the new weights.
    before = decoder_of(model, B).read(text[:, :5])
    model.params["h.1.mlp.c_fc.weight"][3] += 1
    after = decoder_of(model, B).read(text[:, :5])
    assert relative_error(after, truth(model, text[:, :5])[-1]) < 1e-5
    assert relative_error(after, before) > 1e-3


@pytest.mark.parametrize("offset", [4, 20])
def test_weights_may_be_memory_maps_at_any_offset(
    tmp_path: Path, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    model, text = generic(), sequences(CONFIG)
    expected = decoder_of(model, B).read(text[:, :7])
    for name, param in model.params.items():
        path = tmp_path / name
        path.write_bytes(b"x" * offset + param.tobytes())
        model.params[name] = np.memmap(path, np.float32, "c", offset, param.shape)
    np.testing.assert_array_equal(decoder_of(model, B).read(text[:, :7]), expected)


# What goes wrong


def fail_once_on_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before, errors = decoding.read, [MemoryError("out of memory")]

    def failing(*args: Any) -> None:
        if threading.current_thread() is not threading.main_thread() and errors:
            raise errors.pop()
        before(*args)

    monkeypatch.setattr(decoding, "read", failing)


@pytest.mark.parametrize("few", [32, 0], ids=["split columns", "split rows"])
def test_an_error_in_one_of_the_threads_that_read_together_is_raised_and_stops_the_others(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_decoder, "LARGE", 0)
    monkeypatch.setattr(compiled_decoder, "ROWS_APART", 2)
    monkeypatch.setattr(compiled_decoder, "FEW", few)
    fail_once_on_another_thread(monkeypatch)
    model, text = generic(), sequences(CONFIG)[:, :BLOCK]
    with pytest.raises(MemoryError, match="out of memory"):
        decoder_of(model, B, 2).read(text)
    assert relative_error(decoder_of(model, B, 2).read(text), truth(model, text)[-1]) < 1e-5


def test_parameters_of_another_dtype_or_shape_are_refused() -> None:
    model = generic()
    model.params["wpe.weight"] = model.params["wpe.weight"][1:]
    with pytest.raises(ValueError, match=r"wpe\.weight must be \(9, 10\), not \(8, 10\)"):
        decoder_of(model, 1)
    model.params["ln_f.weight"] = model.params["ln_f.weight"].astype(np.float64)
    with pytest.raises(TypeError, match=r"ln_f\.weight must be an array of float32, not float64"):
        decoder_of(model, 1)


def test_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\) with T ≥ 1"):
        decoder_of(generic(), B).read(np.zeros((B, 0), np.int64))


@in_both
def test_parameters_may_have_any_memory_layout() -> None:
    model, text = generic(), sequences(CONFIG)
    expected = decoder_of(model, B).read(text[:, :5])
    for name, param in model.params.items():
        model.params[name] = np.asfortranarray(param)
        model.params[name].flags.writeable = False
    np.testing.assert_array_equal(decoder_of(model, B).read(text[:, :5]), expected)


def test_an_error_while_reading_ahead_is_raised_once_when_its_window_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_once_on_another_thread(monkeypatch)
    model, text = generic(), sequences(CONFIG)[:, : 2 * BLOCK]
    decoder, true = decoder_of(model, B, 2), truth(model, text)
    decoder.read(text[:, : BLOCK + 1])
    with pytest.raises(MemoryError, match="out of memory"):
        decoder.read(text[:, BLOCK + 1 : BLOCK + 2])
    for place in range(BLOCK + 2, 2 * BLOCK):
        assert relative_error(decoder.read(text[:, place : place + 1]), true[place]) < 1e-5


def test_a_discarded_window_is_not_written_to_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_before, first, late = decoding.read, [True], threading.Event()

    def slow_once(*args: Any) -> None:
        if threading.current_thread() is threading.main_thread() or not first:
            read_before(*args)
            return
        first.pop()
        time.sleep(0.3)
        read_before(*args)
        late.set()

    monkeypatch.setattr(decoding, "read", slow_once)
    model, text = generic(), sequences(CONFIG)[:, : 2 * BLOCK]
    # Two others: one is slow, and the next window of its part of the cache is the other's.
    decoder, true = decoder_of(model, B, 3), truth(model, text)
    decoder.read(text[:, : BLOCK + 1])
    while first:
        time.sleep(0.001)
    decoder.read(text[:, BLOCK + 1 : BLOCK + 3])
    assert late.wait(20)
    for place in range(BLOCK + 3, 2 * BLOCK):
        assert relative_error(decoder.read(text[:, place : place + 1]), true[place]) < 1e-5


def test_a_deleted_decoder_leaves_no_threads_and_no_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, started = threading.Event(), 0
    read_before = decoding.read

    def slow(*args: Any) -> None:
        nonlocal started
        if threading.current_thread() is not threading.main_thread():
            started += 1
            assert gate.wait(20)
        read_before(*args)

    monkeypatch.setattr(decoding, "read", slow)
    before = set(threading.enumerate())
    decoder = decoder_of(generic(), B, 2)
    assert decoder.windows == 3
    decoder.read(TEXT[:B, : BLOCK + 1])
    (thread,) = set(threading.enumerate()) - before
    while not started:
        time.sleep(0.001)
    del decoder
    gc.collect()
    gate.set()
    thread.join(20)
    assert not thread.is_alive()
    assert started == 1
