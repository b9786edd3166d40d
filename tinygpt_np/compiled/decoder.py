"""Decoding, compiled: what decode.py does, in one call of a kernel, with windows read ahead.

Past block_size nothing that was kept of a window is true of the next. But all rows of a window
except its last few stand there before its last tokens are drawn. So other threads read those of the
windows to come, while this one reads the last rows of the window whose logits are asked for.

Of a large model nothing is copied: weights are read where they lie, so that a text begins at once,
and all threads share out a long prompt, and each token: one core alone does not read from memory as
fast as all do.
"""

import functools
import itertools
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from tinygpt_np.compiled.kernels import decoding, few_rows, matmul
from tinygpt_np.compiled.kernels.matmul import PACKED, PLAIN, TRANSPOSED
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.barrier import GIVEN_UP
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.threads import check_threads
from tinygpt_np.compiled.waiting import Barrier, Pool, StuckError, run_together, stuck
from tinygpt_np.config import GPTConfig
from tinygpt_np.machine import usable_cores
from tinygpt_np.storage.parameters import Tensors, param_count, param_shapes

# Of the rows of all windows that are read ahead there are at most so many, or those of two windows.
MOST_ROWS = 4096
# Rows that go through the blocks together, if not those of one text are more.
ROWS_AT_ONCE = 128
# From so many parameters on weights are read where they lie: more than stays near the cores.
LARGE = 1 << 25
# Up to so many rows each thread reads a part of every matrix.
FEW = few_rows.MOST
# Of a long text each thread reads at least so many rows.
ROWS_APART = 32


class CompiledDecoder:
    """What a GPT in float32 keeps of the texts it is reading, all of one length. Letter M:
    block_size.

    text: (B, T) the tokens in the window, T ≤ M. begun: the next windows, of which other threads
    read all but the last `left` rows; each window has its part of the cache, in turn.
    threads: how many, None for one on each core. One alone reads nothing ahead: whole windows, when
    they are asked for. The bits are the same.
    The model's parameters must not change as long as this decoder is used.
    """

    def __init__(
        self, config: GPTConfig, params: Tensors, batch: int, threads: int | None = None
    ) -> None:
        threads = usable_cores() if threads is None else threads
        check_threads(threads)
        self.room = config.block_size
        self.windows, self.left = plan(batch, self.room, threads)
        self.text = np.empty((batch, 0), np.int64)
        self.begun: deque[Future[Any]] = deque()
        self.turn = 0
        self.pool: Pool | None = None
        if threads > 1:
            self.pool = Pool(threads - 1)
            # Nobody will ask for what a decoder that is gone has begun.
            weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)
        self.reader = Reader(config, params, batch, self.windows, threads)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, T) integers, the next of each text -> logits (B, V) of the token after."""
        if tokens.shape[1] == 0:
            raise ValueError(f"tokens must be (B, T) with T ≥ 1, not {tokens.shape}")
        if self.pool is not None and self.pool.renew():
            self.begun.clear()  # Begun by threads of the parent process.
        kept = self.text.shape[1]
        text = np.concatenate([self.text, tokens], axis=1)  # (B, ·)
        self.text = text[:, -self.room :]
        if text.shape[1] <= self.room:
            return self.reader.read_together(tokens, kept, self.pool)
        start = 0
        if self.begun and tokens.shape[1] == 1:
            self.turn = (self.turn + 1) % self.windows
            start = self.room - self.left
            self.begun.popleft().result()
        else:
            self.forget()
        logits = self.reader.read(self.text[:, start:], start, self.turn)
        self.look_ahead()
        return logits

    def look_ahead(self) -> None:
        """Has windows begun as far as there is room, the last where the one just read was."""
        if self.pool is None or self.left == self.room:
            return
        for ahead in range(len(self.begun) + 1, self.windows + 1):
            tokens = self.text[:, ahead : ahead + self.room - self.left]
            turn = (self.turn + ahead) % self.windows
            self.begun.append(self.pool.submit(self.reader.read, tokens, 0, turn, asked=False))

    def forget(self) -> None:
        """Gives up the windows that were begun, when nobody writes into them any more."""
        wait([window for window in self.begun if not window.cancel()])
        self.begun.clear()


class Reader:
    """The weights and the cache of several windows of a batch; what calls the kernels.

    Weights of a small model are packed, once; those of a large one are read where they lie.
    """

    def __init__(
        self, config: GPTConfig, params: Tensors, batch: int, windows: int, threads: int
    ) -> None:
        self.params = checked(config, params)
        self.batch, self.exact, self.threads = batch, config.gelu == "exact", threads
        self.tables = self.params["wte.weight"], self.params["wpe.weight"]
        self.large = param_count(config) >= LARGE
        layout = in_place if self.large else packed
        self.weights, self.final, self.kept = layout(config, self.params)
        head_size = config.n_embd // config.n_head
        self.cache = decoding.make_cache(
            config.n_layer, windows * batch, config.n_head, config.block_size, head_size
        )
        self.sizes = max(ROWS_AT_ONCE, config.block_size), config.n_embd, config.block_size
        # What threads share while they read a few tokens: where they wait, and what all read.
        self.counter = np.zeros(1, np.int64)
        self.shared = decoding.make_buffers(Arena(), few_rows.MOST, config.n_embd, 1)

    def read(self, tokens: np.ndarray, start: int, window: int, asked: bool = True) -> np.ndarray:
        """tokens (B, n), from place `start` of a window on -> logits (B, V), or (0, V) unasked."""
        logits = self.logits(self.batch if asked else 0)
        decoding.read_texts(
            np.ascontiguousarray(tokens, np.int64), start, self.tables, self.weights, self.final,
            self.exact, self.cache, window * self.batch, logits, self.buffers(),
        )  # fmt: skip
        return logits

    def read_together(
        self, tokens: np.ndarray, start: int, pool: ThreadPoolExecutor | None
    ) -> np.ndarray:
        """The same of window 0, with the rows of long texts shared out to the threads of a pool."""
        count = tokens.shape[1]
        few = self.batch * count <= min(FEW, self.sizes[0])
        if pool is not None and self.large and few:
            return self.read_few(tokens, start, pool)
        parts = min(self.threads, count // ROWS_APART) if self.large else 1
        if pool is None or parts < 2:
            return self.read(tokens, start, 0)
        ends = [count * part // parts for part in range(parts + 1)]
        logits = self.logits(self.batch)
        for text in range(self.batch):
            row, barrier = np.ascontiguousarray(tokens[text : text + 1], np.int64), Barrier(parts)
            shares = [
                (row[:, a:b], start + a, text, logits[text : text + 1 if b == count else text])
                for a, b in itertools.pairwise(ends)
            ]
            jobs = [functools.partial(self.read_share, barrier, *share) for share in shares[::-1]]
            run_together(pool, jobs, barrier.stop)
        return logits

    def read_few(self, tokens: np.ndarray, start: int, pool: ThreadPoolExecutor) -> np.ndarray:
        """The same of a few tokens (B, n), each product shared out to all threads."""
        logits, ids = self.logits(self.batch), np.ascontiguousarray(tokens, np.int64)
        self.counter[0] = 0

        def read(thread: int) -> None:
            decoding.read_few(
                thread, self.threads, self.counter, ids, start, self.tables, self.weights,
                self.final, self.exact, self.cache, logits, self.shared, self.buffers(),
            )  # fmt: skip

        def give_up() -> None:
            self.counter[0] = GIVEN_UP

        jobs = [functools.partial(read, thread) for thread in range(self.threads)]
        run_together(pool, jobs, give_up)
        if self.counter[0] >= GIVEN_UP:
            raise StuckError(stuck(f"all of {self.threads} threads"))
        return logits

    def read_share(
        self, barrier: Barrier, tokens: np.ndarray, start: int, text: int, logits: np.ndarray
    ) -> None:
        """Reads some rows (1, n) of a text, in step with those that read the others."""
        buffers, capacity, n_layer = self.buffers(), len(self.tables[1]), len(self.cache[0])
        count = tokens.shape[1]
        decoding.embed(tokens, start, self.tables, buffers)
        for layer in range(n_layer):
            wanted = count if layer < n_layer - 1 else len(logits)
            decoding.read_keys(
                1, count, start, capacity, self.weights, layer, self.cache, text, buffers
            )
            barrier.meet()
            decoding.read_on(
                1, count, start, wanted, capacity, self.weights, layer, self.exact, self.cache,
                text, buffers,
            )  # fmt: skip
        if len(logits):
            decoding.score(self.final, logits, buffers)

    def logits(self, rows: int) -> np.ndarray:
        return np.empty((rows, len(self.tables[0])), np.float32)

    def buffers(self) -> Any:
        """This thread's own."""
        return workspace.get(decoding.make_buffers, *self.sizes)


def plan(batch: int, block_size: int, threads: int) -> tuple[int, int]:
    """How many windows are read ahead, and how many rows of each are left for when it is asked for.

    Of a window all but the last so many tokens must be known as it is begun, hence no more windows
    than rows are left. One thread alone leaves all rows, as does a block that is too small.
    """
    if threads == 1:
        return 1, block_size
    # One for each of the other threads, one being waited for, and one for noise.
    windows = min(threads + 1, max(MOST_ROWS // (batch * block_size), 2))
    # To two threads the same work: the one that reads the last rows also draws the tokens.
    left = max(block_size * 3 // 8 // (threads - 1), windows)
    return (windows, left) if left < block_size else (1, block_size)


def checked(config: GPTConfig, params: Tensors) -> Tensors:
    """The parameters of a model. Raises TypeError, ValueError for what kernels would misread."""
    params = {name: floats(param, name) for name, param in params.items()}
    for name, shape in param_shapes(config).items():
        if params[name].shape != shape:
            raise ValueError(f"{name} must be {shape}, not {params[name].shape}")
    return params


def in_place(config: GPTConfig, params: Tensors) -> tuple[Any, Any, Any]:
    """What kernels/decoding.py takes as weights and as final, and what they are addresses of.

    Matrices stay where they are; of q and of k with v there is one, side by side.
    """
    C = config.n_embd
    addresses = [
        [params[f"{h}.{name}.weight"].ctypes.data + offset for name, offset in matrices(C)]
        for h in layers(config)
    ]
    strides = [params[f"h.0.{name}.weight"].strides[0] for name, _ in matrices(C)]
    head = params["wte.weight"]
    weights = stacked(config, params, addresses, strides, PLAIN)
    return weights, (final_norm(params), head.ctypes.data, 4 * C, PLAIN), params


def packed(config: GPTConfig, params: Tensors) -> tuple[Any, Any, Any]:
    """The same, with matrices in panels."""
    C, arena = config.n_embd, Arena()

    def found(name: str, part: slice = slice(None)) -> np.ndarray:
        """(L, 1, ·), in panels."""
        weights = [params[f"{h}.{name}.weight"][:, part] for h in layers(config)]
        return panels(weights, PLAIN, arena)

    five = [found("attn.c_attn", slice(0, C)), found("attn.c_attn", slice(C, None))]
    five += [found(name) for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    addresses = [[each[layer].ctypes.data for each in five] for layer in range(config.n_layer)]
    head = panels([params["wte.weight"]], TRANSPOSED, arena)
    weights = stacked(config, params, addresses, [0] * 5, PACKED)
    return weights, (final_norm(params), head.ctypes.data, 0, PACKED), (five, head)


def matrices(width: int) -> list[tuple[str, int]]:
    """The five matrices of a block, and how many bytes into its row each begins."""
    return [
        *(("attn.c_attn", 0), ("attn.c_attn", 4 * width)),
        *(("attn.c_proj", 0), ("mlp.c_fc", 0), ("mlp.c_proj", 0)),
    ]


def layers(config: GPTConfig) -> list[str]:
    return [f"h.{layer}" for layer in range(config.n_layer)]


def stacked(
    config: GPTConfig, params: Tensors, addresses: list[list[int]], strides: list[int], form: int
) -> tuple[Any, ...]:
    """What kernels/decoding.py takes as weights."""
    C = config.n_embd

    def biases(name: str, columns: slice = slice(None)) -> np.ndarray:
        """(L, 1, K); zeros where the model has none."""
        none = np.zeros(param_shapes(config)[f"h.0.{name}.weight"][1], np.float32)
        found = np.stack([params.get(f"{h}.{name}.bias", none) for h in layers(config)])  # (L, ·)
        return found[:, None, columns].copy()

    norms = np.stack(
        [norm(params, f"{h}.ln_1") + norm(params, f"{h}.ln_2") for h in layers(config)]
    )
    return (
        norms, np.array(addresses, np.int64), np.array(strides, np.int64), form,
        biases("attn.c_attn", slice(0, C)), biases("attn.c_attn", slice(C, None)),
        biases("attn.c_proj"), biases("mlp.c_fc"), biases("mlp.c_proj"),
    )  # fmt: skip


def norm(params: Tensors, name: str) -> list[np.ndarray]:
    """Scale and bias of a layer norm, (C,) each; zeros where it has no bias."""
    weight = params[f"{name}.weight"]
    return [weight, params.get(f"{name}.bias", np.zeros_like(weight))]


def final_norm(params: Tensors) -> np.ndarray:
    """(2, C)."""
    return np.stack(norm(params, "ln_f"))


def panels(matrices: list[np.ndarray], form: int, arena: Arena) -> np.ndarray:
    """Matrices of one shape, each packed: (count, 1, ·)."""
    depth, columns = matrices[0].shape if form == PLAIN else matrices[0].shape[::-1]
    found = arena.zeros(len(matrices), 1, matmul.packed_size(depth, columns))
    for matrix, into in zip(matrices, found, strict=True):
        matmul.pack_matrix(np.ascontiguousarray(matrix), form, into)
    return found
