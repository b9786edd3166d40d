"""The compiled decoder: what model/decoder.py does, in kernels, with windows read ahead.

Past block_size the cache is invalid with every token, because every position shifts. But all rows
of a window except its last few are known before its last tokens are drawn. So other threads read
those rows of the next windows, while this thread reads the last rows of the window whose logits are
asked for.

The weights of a large model are not copied but read in place, so that generation starts at once,
and all threads split a long prompt and each token, because one core alone cannot use the whole
memory bandwidth.
"""

import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any

import numpy as np

from tinygpt_np.compiled.kernels import decoding, few_rows, matmul, rotary
from tinygpt_np.compiled.kernels.decoding import NO_SPLIT, Buffers, Split, Weights
from tinygpt_np.compiled.kernels.matmul import PACKED, PLAIN, TRANSPOSED
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.threads import ParallelRegion, ThreadTeam
from tinygpt_np.config import GPTConfig
from tinygpt_np.machine import usable_cores
from tinygpt_np.storage.parameters import Tensors, param_count, param_shapes

# Most rows of all windows that are read ahead, except that there are always two windows.
MOST_ROWS = 4096
# Rows that go through the blocks together, unless one sequence has more.
ROWS_AT_ONCE = 128
# Number of parameters from which weights are read in place, because they do not fit in the caches.
LARGE = 1 << 25
# Threads split the columns of every matmul up to this many rows, and the rows of a long prompt if
# each has at least ROWS_APART.
FEW = few_rows.MOST
ROWS_APART = 32


class CompiledDecoder:
    """The state of a float32 GPT that is reading a batch of sequences of one length.

    tokens: (B, T) the tokens in the window, T ≤ M = block_size. ahead: the next windows, of which
    other threads read all but the last `left` rows; each window has its part of the cache, in turn.
    The parameters must not change as long as the decoder is used. threads: None for one per core.
    One alone reads nothing ahead. The logits have the same bits.
    """

    def __init__(
        self, config: GPTConfig, params: Tensors, batch: int, threads: int | None = None
    ) -> None:
        self.team = ThreadTeam(usable_cores() if threads is None else threads)
        # Cancel what was begun for a decoder that is no longer used.
        weakref.finalize(self, self.team.close, wait=False)
        self.block_size = config.block_size
        self.windows, self.left = plan(batch, self.block_size, self.team.size)
        self.tokens = np.empty((batch, 0), np.int64)
        self.ahead: deque[Future[Any]] = deque()
        self.turn = 0
        self.reader = Reader(config, params, batch, self.windows)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, n) integers, the next of each sequence -> logits (B, V) of the token after."""
        if tokens.shape[1] == 0:
            raise ValueError(f"tokens must be (B, T) with T ≥ 1, not {tokens.shape}")
        if self.team.renew():
            self.ahead.clear()  # Begun by threads of the parent process.
        kept = self.tokens.shape[1]
        sequences = np.concatenate([self.tokens, tokens], axis=1)  # (B, ·)
        self.tokens = sequences[:, -self.block_size :]
        if sequences.shape[1] <= self.block_size:
            return self.reader.read_together(tokens, kept, self.team)
        start = 0
        if self.ahead and tokens.shape[1] == 1:
            self.turn = (self.turn + 1) % self.windows
            start = self.block_size - self.left
            self.ahead.popleft().result()
        else:
            # Discard the windows that were begun, and wait until no thread writes to them.
            wait([window for window in self.ahead if not window.cancel()])
            self.ahead.clear()
        logits = self.reader.read(self.tokens[:, start:], start, self.turn)
        self.look_ahead()
        return logits

    def look_ahead(self) -> None:
        """Begin the next windows, up to one that uses the cache of the window just read."""
        if self.left == self.block_size:
            return
        for number in range(len(self.ahead) + 1, self.windows + 1):
            tokens = self.tokens[:, number : number + self.block_size - self.left]
            turn = (self.turn + number) % self.windows
            self.ahead.append(self.team.submit(self.reader.read, tokens, 0, turn, wanted=False))


class Reader:
    """The weights of a model, the cache of several windows of a batch, and the calls of kernels."""

    def __init__(self, config: GPTConfig, params: Tensors, batch: int, windows: int) -> None:
        self.batch, self.large = batch, param_count(config) >= LARGE
        # The kernels take addresses, so the matrices must be kept.
        self.weights, self.matrices = weights_of(config, checked(config, params), self.large)
        self.cache = decoding.make_cache(
            config.n_layer, windows * batch, config.kv_heads, config.block_size, config.head_size
        )
        kv_width = config.qkv_width - config.n_embd
        widths = config.n_embd, kv_width, config.hidden_width, config.inner_width
        self.sizes = max(ROWS_AT_ONCE, config.block_size), config.block_size, *widths
        # Activations that threads share when they split columns.
        shared = decoding.make_buffers(Arena(), few_rows.MOST, 1, *widths)
        self.shared = {name: getattr(shared, name) for name in ("x", "mid", "heads", "activated")}

    def read(self, tokens: np.ndarray, start: int, window: int, wanted: bool = True) -> np.ndarray:
        """tokens (B, n) from position start of a window -> logits (B, V), (0, V) if not wanted."""
        logits = self.logits(self.batch if wanted else 0)
        self.call(tokens, start, window * self.batch, logits)
        return logits

    def read_together(self, tokens: np.ndarray, start: int, team: ThreadTeam) -> np.ndarray:
        """tokens (B, n) from position start of window 0 -> logits (B, V), by all threads."""
        count = tokens.shape[1]
        if team.size > 1 and self.large and self.batch * count <= min(FEW, self.sizes[0]):
            return self.split_columns(tokens, start, team)
        parts = min(team.size, count // ROWS_APART) if self.large else 1
        if parts < 2:
            return self.read(tokens, start, 0)
        return self.split_rows(tokens, start, team, parts)

    def split_columns(self, tokens: np.ndarray, start: int, team: ThreadTeam) -> np.ndarray:
        """read_together, with every matmul split by its columns."""
        logits, region = self.logits(self.batch), ParallelRegion(team.size)

        def job(thread: int) -> None:
            split = Split(thread, team.size, 1, region.counter)
            self.call(tokens, start, 0, logits, split, self.shared)

        team.run(job, region)
        return logits

    def split_rows(
        self, tokens: np.ndarray, start: int, team: ThreadTeam, parts: int
    ) -> np.ndarray:
        """read_together, with each sequence split into parts that are read at the same time."""
        count = tokens.shape[1]
        logits = self.logits(self.batch)
        # The last part comes first, on this thread: only it computes logits.
        ends = [count * part // parts for part in range(parts, -1, -1)]
        for sequence in range(self.batch):
            region = ParallelRegion(parts)

            def job(thread: int, region: Any = region, sequence: int = sequence) -> None:
                first, end = ends[thread + 1], ends[thread]
                part = tokens[sequence : sequence + 1, first:end]
                wanted = logits[sequence : sequence + (thread == 0)]
                split = Split(0, 1, parts, region.counter)
                self.call(part, start + first, sequence, wanted, split)

            team.run(job, region)
        return logits

    def call(
        self, tokens: np.ndarray, start: int, first: int, logits: np.ndarray,
        split: Split = NO_SPLIT, shared: Tensors | None = None,
    ) -> None:  # fmt: skip
        """Call decoding.read with this thread's buffers, except those that are shared."""
        buffers: Buffers = workspace.get(decoding.make_buffers, *self.sizes)
        if shared:
            buffers = buffers._replace(**shared)
        decoding.read(
            np.ascontiguousarray(tokens, np.int64), start, tuple(self.weights), tuple(self.cache),
            first, logits, tuple(buffers), tuple(split),
        )  # fmt: skip

    def logits(self, rows: int) -> np.ndarray:
        """Return memory for logits (rows, V)."""
        return np.empty((rows, len(self.weights.tokens)), np.float32)


def plan(batch: int, block_size: int, threads: int) -> tuple[int, int]:
    """Return how many windows are read ahead, and how many rows of each are left for later.

    A window is begun before its last `left` tokens are known, so there are at most `left` windows.
    One thread alone leaves all rows, and so does any number if the block is too small.
    """
    if threads == 1:
        return 1, block_size
    # One for each of the other threads, one that is waited for, and one in reserve.
    windows = min(threads + 1, max(MOST_ROWS // (batch * block_size), 2))
    # With two threads, about equal work: the one that reads the last rows also draws tokens.
    left = max(block_size * 3 // 8 // (threads - 1), windows)
    return (windows, left) if left < block_size else (1, block_size)


def checked(config: GPTConfig, params: Tensors) -> Tensors:
    """Return a model's parameters. Raise TypeError or ValueError if kernels would misread them."""
    params = {name: floats(param, name) for name, param in params.items()}
    for name, shape in param_shapes(config).items():
        if params[name].shape != shape:
            raise ValueError(f"{name} must be {shape}, not {params[name].shape}")
    return params


def weights_of(config: GPTConfig, params: Tensors, in_place: bool) -> tuple[Weights, Any]:
    """Return a model's weights, and the matrices they refer to, packed unless read in place."""
    C, arena, form = config.n_embd, Arena(), PLAIN if in_place else PACKED
    layers = [f"h.{layer}" for layer in range(config.n_layer)]

    def operand(matrix: np.ndarray, form: int) -> np.ndarray:
        if in_place:
            return matrix
        depth, columns = matrix.shape if form == PLAIN else matrix.shape[::-1]
        panels = arena.zeros(1, matmul.packed_size(depth, columns))
        matmul.pack_matrix(np.ascontiguousarray(matrix), form, panels)
        return panels

    def bias(name: str) -> np.ndarray:
        """(K,) of a matrix or a norm; zeros if it has none."""
        none = np.zeros(params[f"{name}.weight"].shape[-1], np.float32)
        return params.get(f"{name}.bias", none)

    def linear(h: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return matrices and biases of a block in the order of Weights; c_attn is Q and KV."""
        names = [f"{h}.{name}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
        c_attn, *others = (params[f"{name}.weight"] for name in names)
        c_attn_bias, *other_biases = (bias(name) for name in names)
        matrices = [operand(each, PLAIN) for each in (c_attn[:, :C], c_attn[:, C:], *others)]
        return matrices, [c_attn_bias[:C], c_attn_bias[C:], *other_biases]

    def norm(name: str) -> list[np.ndarray]:
        return [params[f"{name}.weight"], bias(name)]

    matrices, biases = zip(*(linear(h) for h in layers), strict=True)
    head = operand(params[config.head_name], TRANSPOSED)
    learned = config.positions == "learned"
    positions, pairs = np.arange(0 if learned else config.block_size), config.head_size // 2
    cos, sin = rotary.tables(positions, pairs, config.rope_theta)  # (M, D/2), or (0, D/2)
    weights = Weights(
        params["wte.weight"],
        params["wpe.weight"] if learned else np.zeros((0, C), np.float32),
        np.array([[norm(f"{h}.ln_1"), norm(f"{h}.ln_2")] for h in layers]),
        addresses(matrices),
        np.array([matrix.strides[0] for matrix in matrices[0]], np.int64),
        form,
        addresses(biases),
        final_norm=np.array(norm("ln_f")),
        head=head.ctypes.data,
        head_stride=head.strides[0],
        block_size=config.block_size,
        head_size=config.head_size,
        cos=cos,
        sin=sin,
        interleaved=config.positions == "rotary_pairs",
        qk_norm=config.qk_norm,
        rms_norm=config.norm == "rms_norm",
        epsilon=float(config.norm_epsilon),
        activation=decoding.ACTIVATIONS.index(config.activation),
        soft_cap=float(config.logit_soft_cap),
    )
    return weights, (params, matrices, biases, head)


def addresses(arrays: Iterable[list[np.ndarray]]) -> np.ndarray:
    """Return the addresses of arrays, which must be kept."""
    return np.array([[array.ctypes.data for array in each] for each in arrays], np.int64)
