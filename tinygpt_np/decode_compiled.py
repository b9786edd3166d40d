"""Decoding, compiled: what decode.py does, in one call of a kernel, with windows read ahead.

Past block_size nothing that was kept of a window is true of the next. But all rows of a window
except its last few stand there before its last tokens are drawn. So other threads read those of the
windows to come, while this one reads the last rows of the window whose logits are asked for.
"""

import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.kernels import decoding, matmul
from tinygpt_np.kernels.arrays import floats
from tinygpt_np.kernels.matmul import PLAIN, TRANSPOSED
from tinygpt_np.kernels.memory import Arena, workspace
from tinygpt_np.model import GPT, param_shapes
from tinygpt_np.threads import check_threads, usable_cores

# Of the rows of all windows that are read ahead there are at most so many, or those of two windows.
MOST_ROWS = 4096
# Rows that go through the blocks together, if not those of one text are more.
ROWS_AT_ONCE = 128

Tensors = dict[str, np.ndarray]


class CompiledDecoder:
    """What a GPT in float32 keeps of the texts it is reading, all of one length. Letter M:
    block_size.

    text: (B, T) the tokens in the window, T ≤ M. begun: the next windows, of which other threads
    read all but the last `left` rows; each window has its part of the cache, in turn.
    threads: how many, None for one on each core. One alone reads nothing ahead: whole windows, when
    they are asked for. The bits are the same.
    The model's parameters are packed once, and must not change afterwards.
    """

    def __init__(self, model: GPT, batch: int, threads: int | None = None) -> None:
        threads = usable_cores() if threads is None else threads
        check_threads(threads)
        self.room = model.block_size
        self.windows, self.left = plan(batch, self.room, threads)
        self.reader = Reader(model, batch, self.windows)
        self.text = np.empty((batch, 0), np.int64)
        self.begun: deque[Future[Any]] = deque()
        self.turn = 0
        self.pool: ThreadPoolExecutor | None = None
        if self.left < self.room:
            self.pool = ThreadPoolExecutor(threads - 1)
            # Nobody will ask for what a decoder that is gone has begun.
            weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, T) integers, the next of each text -> logits (B, V) of the token after."""
        if tokens.shape[1] == 0:
            raise ValueError(f"tokens must be (B, T) with T ≥ 1, not {tokens.shape}")
        kept = self.text.shape[1]
        text = np.concatenate([self.text, tokens], axis=1)  # (B, ·)
        self.text = text[:, -self.room :]
        if text.shape[1] <= self.room:
            return self.reader.read(tokens, kept, 0)
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
        if self.pool is None:
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
    """Packed weights and the cache of several windows of a batch; what calls the kernel."""

    def __init__(self, model: GPT, batch: int, windows: int) -> None:
        config, params = model.config, checked(model)
        self.batch, self.exact = batch, config.gelu == "exact"
        self.tables = params["wte.weight"], params["wpe.weight"]
        self.weights, self.final = packed(config, params)
        head_size = config.n_embd // config.n_head
        self.cache = decoding.make_cache(
            config.n_layer, windows * batch, config.n_head, config.block_size, head_size
        )
        self.sizes = max(ROWS_AT_ONCE, config.block_size), config.n_embd, config.block_size

    def read(self, tokens: np.ndarray, start: int, window: int, asked: bool = True) -> np.ndarray:
        """tokens (B, n), from place `start` of a window on -> logits (B, V), or (0, V) unasked."""
        vocab_size = len(self.tables[0])
        logits = np.empty((self.batch if asked else 0, vocab_size), np.float32)
        decoding.read_texts(
            np.ascontiguousarray(tokens, np.int64), start, self.tables, self.weights, self.final,
            self.exact, self.cache, window * self.batch, logits,
            workspace.get(decoding.make_buffers, *self.sizes),
        )  # fmt: skip
        return logits


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


def checked(model: GPT) -> Tensors:
    """The parameters of a model. Raises TypeError, ValueError for what kernels would misread."""
    params = {name: floats(param, name) for name, param in model.params.items()}
    for name, shape in param_shapes(model.config).items():
        if params[name].shape != shape:
            raise ValueError(f"{name} must be {shape}, not {params[name].shape}")
    return params


def packed(config: GPTConfig, params: Tensors) -> tuple[tuple[np.ndarray, ...], ...]:
    """What kernels/decoding.py takes as weights and as final."""
    C, arena = config.n_embd, Arena()
    blocks = [f"h.{layer}" for layer in range(config.n_layer)]

    def weights(name: str, columns: slice = slice(None)) -> np.ndarray:
        """(L, 1, ·), in panels."""
        return panels([params[f"{h}.{name}.weight"][:, columns] for h in blocks], PLAIN, arena)

    def biases(name: str, columns: slice = slice(None)) -> np.ndarray:
        """(L, 1, K); zeros where the model has none."""
        width = param_shapes(config)[f"h.0.{name}.weight"][1]
        none = np.zeros(width, np.float32)
        found = np.stack([params.get(f"{h}.{name}.bias", none) for h in blocks])  # (L, ·)
        return found[:, None, columns].copy()

    def norm(name: str) -> list[np.ndarray]:
        return [params[f"{name}.weight"], params.get(f"{name}.bias", np.zeros(C, np.float32))]

    norms = np.stack([norm(f"{h}.ln_1") + norm(f"{h}.ln_2") for h in blocks])  # (L, 4, C)
    q, kv = slice(0, C), slice(C, None)
    products = [("attn.c_attn", q), ("attn.c_attn", kv)]
    products += [(name, slice(None)) for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    both = [part(*product) for product in products for part in (weights, biases)]
    head = panels([params["wte.weight"]], TRANSPOSED, arena)[0]  # (1, ·)
    return (norms, *both), (np.stack(norm("ln_f")), head)


def panels(matrices: list[np.ndarray], form: int, arena: Arena) -> np.ndarray:
    """Matrices of one shape, each packed: (count, 1, ·)."""
    depth, columns = matrices[0].shape if form == PLAIN else matrices[0].shape[::-1]
    found = arena.zeros(len(matrices), 1, matmul.packed_size(depth, columns))
    for matrix, into in zip(matrices, found, strict=True):
        matmul.pack_matrix(np.ascontiguousarray(matrix), form, into)
    return found
