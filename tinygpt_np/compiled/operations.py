"""Operations that a configuration selects: the norm, attention with its positions, the activation.

The threads of a team split them by rows, heads or ranges of elements. Sums do not cross these, so
the bits do not depend on the number of threads.
"""

from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled import kernels
from tinygpt_np.compiled.kernels import attention, rms_norm, rotary, swiglu
from tinygpt_np.compiled.recording import Team
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Tensors

NO_BIAS = np.zeros(0, np.float32)
# Elementwise work is split at multiples of this, so that vectorised loops do not change.
ELEMENTS = 1 << 12
# About how many FLOPs an element takes in the forward and in the backward of an operation with an
# exp, which alone takes 23; and a number in a normalization or a rotation.
FORWARD, BACKWARD, PREPARE = 30, 60, 10


class Norm:
    """Layer norm or RMS norm of rows."""

    def __init__(self, config: GPTConfig) -> None:
        self.kernel: Any = getattr(kernels, config.norm)
        self.epsilon = float(config.norm_epsilon)
        # Layer norm has a bias and saves the mean of each row; both norms save 1/s.
        self.centered = config.norm == "layer_norm"

    def make_stats(self, rows: int, arena: Arena) -> list[np.ndarray]:
        """Return memory for what the forward saves of each row."""
        return list(arena.zeros(1 + self.centered, rows))

    def affine(self, tensors: Tensors, name: str) -> list[np.ndarray]:
        """Return the weight and, of layer norm, the bias, which is (0,) if there is none."""
        bias = [tensors.get(f"{name}.bias", NO_BIAS)] if self.centered else []
        return [tensors[f"{name}.weight"], *bias]

    def forward(
        self, x: np.ndarray, affine: list[np.ndarray], y: np.ndarray, stats: list[np.ndarray],
        team: Team,
    ) -> None:  # fmt: skip
        """x (N, C) -> y (N, C), stats."""
        team.call(self.kernel.forward_rows, x, *affine, self.epsilon, y, *stats)

    def backward(
        self, dy: np.ndarray, x: np.ndarray, affine: list[np.ndarray], stats: list[np.ndarray],
        dx: np.ndarray, daffine: list[np.ndarray], team: Team,
    ) -> None:  # fmt: skip
        """Add to dx (N, C) and to the gradients of weight and bias."""
        team.call(self.kernel.backward_rows, dy, x, affine[0], *stats, dx, *daffine)


class AttentionState(NamedTuple):
    """A block's dropout mask (B, H, T, T), and what its forward saves of queries and heads.

    stats are (B, H, T, 2), and rstd is (N, H + J), or (0, H + J) without QK-norm.
    """

    mask: np.ndarray
    stats: np.ndarray
    rstd: np.ndarray


class Attention:
    """Attention of B sequences of T tokens, with QK-norm and rotary positions, which are in place.

    Rotated queries and keys have the dot products with rotated gradients that QK-norm's backward
    needs, so gradients are rotated back after it and nothing else is.
    """

    def __init__(self, config: GPTConfig, batch: int, time: int, arena: Arena) -> None:
        self.config, self.batch, self.time = config, batch, time
        self.scratch = attention.make_scratch(arena, time, config.head_size)
        self.heads = config.n_head, config.kv_heads
        # The columns of queries and keys, as kernels take them.
        self.qk = sum(self.heads), config.head_size
        self.rotation: tuple[Any, ...] = ()
        if config.positions != "learned":
            angles = rotary.tables(np.arange(time), config.head_size // 2, config.rope_theta)
            self.rotation = *angles, config.positions == "rotary_pairs"
        self.prepares = config.qk_norm or bool(self.rotation)

    def make_state(self, arena: Arena) -> AttentionState:
        """Return memory for a block's state."""
        config, stats = self.config, (self.batch, self.config.n_head, self.time)
        mask = arena.zeros(*stats, self.time) if config.dropout else attention.NO_MASK
        rows = self.batch * self.time if config.qk_norm else 0
        return AttentionState(mask, arena.zeros(*stats, 2), arena.zeros(rows, self.qk[0]))

    def forward(
        self, qkv: np.ndarray, dropping: bool, y: np.ndarray, state: AttentionState,
        team: Team,
    ) -> None:  # fmt: skip
        """qkv (N, E) -> y (N, C), state; QK-norm and positions are applied to qkv."""
        mask = state.mask if dropping else attention.NO_MASK

        def prepare(rows: slice) -> None:
            if self.config.qk_norm:
                epsilon = float(self.config.norm_epsilon)
                team.call(rms_norm.forward_heads, qkv[rows], *self.qk, epsilon, state.rstd[rows])
            if self.rotation:
                team.call(rotary.forward_heads, qkv[rows], *self.qk, *self.rotation, rows.start)

        def attend(part: slice) -> None:
            team.call(
                attention.forward_heads,
                qkv,
                *self.heads,
                mask,
                y,
                state.stats,
                part.start,
                part.stop,
                self.scratch_of(team),
            )

        if self.prepares:
            team.split(len(qkv), 1, prepare, PREPARE * qkv.size)
        flops = state.stats.size * self.time * (self.qk[1] + FORWARD / 4)
        team.split(self.batch * self.config.kv_heads, 1, attend, flops)

    def backward(
        self, dy: np.ndarray, qkv: np.ndarray, dropping: bool, state: AttentionState,
        dqkv: np.ndarray, team: Team,
    ) -> None:  # fmt: skip
        """dy (N, C), the forward's arguments and state -> dqkv (N, E)."""
        mask = state.mask if dropping else attention.NO_MASK

        def attend(part: slice) -> None:
            team.call(
                attention.backward_heads, dy, qkv, *self.heads, mask, state.stats, dqkv,
                part.start, part.stop, self.scratch_of(team),
            )  # fmt: skip

        def prepare(rows: slice) -> None:
            if self.config.qk_norm:
                team.call(
                    rms_norm.backward_heads, dqkv[rows], qkv[rows], *self.qk, state.rstd[rows]
                )
            if self.rotation:
                team.call(rotary.backward_heads, dqkv[rows], *self.qk, *self.rotation, rows.start)

        flops = state.stats.size * self.time * (2.5 * self.qk[1] + BACKWARD / 4)
        team.split(self.batch * self.config.kv_heads, 1, attend, flops)
        if self.prepares:
            team.split(len(qkv), 1, prepare, PREPARE * qkv.size)

    def scratch_of(self, team: Team) -> attention.Scratch:
        """Return scratch memory for this thread: the micro-batch's own unless work is split."""
        if team.size == 1:
            return self.scratch
        return workspace.get(attention.make_scratch, self.time, self.config.head_size)


class Activation:
    """An activation of values, or of rows of 2F, one half of which is the gate of the other."""

    def __init__(self, config: GPTConfig) -> None:
        self.kernel: Any = getattr(kernels, config.activation)

    def forward(self, x: np.ndarray, y: np.ndarray, team: Team) -> None:
        """x (N, F) or (N, 2F) -> y (N, F)."""
        if self.kernel is swiglu:
            team.split(
                len(x), 1, lambda rows: team.call(swiglu.forward_rows, x[rows], y[rows]),
                FORWARD * y.size,
            )  # fmt: skip
            return
        x, y, forward = x.reshape(-1), y.reshape(-1), self.kernel.forward_values
        team.split(
            len(x), ELEMENTS, lambda part: team.call(forward, x[part], y[part]), FORWARD * y.size
        )

    def backward(self, dy: np.ndarray, x: np.ndarray, team: Team) -> np.ndarray:
        """dy (N, F) -> dx like x, in the memory of dy or, if it is too small, of x."""
        if self.kernel is swiglu:
            team.split(
                len(x), 1,
                lambda rows: team.call(swiglu.backward_rows, dy[rows], x[rows], x[rows]),
                BACKWARD * dy.size,
            )  # fmt: skip
            return x
        x, dx, backward = x.reshape(-1), dy.reshape(-1), self.kernel.backward_values
        team.split(
            len(x), ELEMENTS, lambda part: team.call(backward, dx[part], x[part], dx[part]),
            BACKWARD * x.size,
        )  # fmt: skip
        return dy
