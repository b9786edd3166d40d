"""The matmuls of a training step, by Numba or by BLAS: y = x W, dx = dy Wᵀ, dW = xᵀ dy.

The weight of the output head is (V, C), as that of the embedding, and is multiplied transposed.
"""

import functools

import numpy as np

from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.kernels.matmul import PACKED, PANEL, PLAIN, TRANSPOSED
from tinygpt_np.compiled.recording import Recorder, Recording, Team
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.threads import ALONE
from tinygpt_np.storage.parameters import Tensors

TABLES = ("wte.weight", "wpe.weight")
# Weights are packed once per step if at least this many micro-batches use them.
PACK_FROM = 4
# Columns packed by one task.
COLUMNS_AT_ONCE = 8 * PANEL
# The start of a matmul that is added to nothing.
NOTHING = np.zeros((0, 1), np.float32)

# A matrix in memory, and its form for kernels/matmul.py.
Operand = tuple[np.ndarray, int]


class Matmuls:
    """Matmuls with the weights of a model, by parameter name.

    All arrays are float32 and C-contiguous. `start` is added to the result: (0, 1) for nothing, a
    bias (1, K), or a matrix, which may be the result itself. `scratch` is of matmul.make_scratch,
    one for each thread. `team` are the threads that split the work.

    Parameters
    ----------
    head
        The name of the output head's weight.
    micro_batches
        The weights are packed if at least PACK_FROM use them.
    kind
        "numba", or "blas" for comparison; the caller limits BLAS to one thread.
    """

    def __init__(self, params: Tensors, head: str, micro_batches: int, kind: str = "numba") -> None:
        if kind not in ("numba", "blas"):
            raise ValueError(f"matmul must be numba or blas, not {kind!r}")
        self.multiply = split_matmul if kind == "numba" else blas_matmul
        # Those of the forward, and of the backward.
        self.operands: list[dict[str, Operand]] = [{}, {}]
        for name, param in params.items():
            if name == head or (param.ndim == 2 and name not in TABLES):
                forms = (TRANSPOSED, PLAIN) if name == head else (PLAIN, TRANSPOSED)
                self.operands[0][name], self.operands[1][name] = ((param, form) for form in forms)
        self.packings: list[tuple[np.ndarray, int, int, int, int, np.ndarray]] = []
        if kind == "numba" and micro_batches >= PACK_FROM:
            arena = Arena()
            self.operands = [self.packed(each, arena) for each in self.operands]

    def packed(self, operands: dict[str, Operand], arena: Arena) -> dict[str, Operand]:
        """Return memory for packed operands, and add what packs them to self.packings."""
        found: dict[str, Operand] = {}
        for name, (matrix, form) in operands.items():
            depth, columns = matrix.shape if form == PLAIN else matrix.shape[::-1]
            panels = arena.zeros(1, matmul.packed_size(depth, columns))
            for first in range(0, columns, COLUMNS_AT_ONCE):
                end = min(first + COLUMNS_AT_ONCE, columns)
                self.packings.append((matrix, form, depth, first, end, panels))
            found[name] = panels, PACKED
        return found

    @functools.cached_property
    def packing(self) -> Recording:
        """The calls that pack the weights after they have changed, in any order."""
        recorder = Recorder()
        for each in self.packings:
            recorder.call(matmul.pack_columns, *each)
        return Recording(recorder)

    def forward(
        self, x: np.ndarray, name: str, start: np.ndarray, y: np.ndarray, scratch: np.ndarray,
        team: Team = ALONE,
    ) -> None:  # fmt: skip
        """y (N, K) = start + x (N, C) · weight (C, K)."""
        self.multiply(x, False, *self.operands[0][name], start, y, scratch, team)

    def backward(
        self, dy: np.ndarray, name: str, dx: np.ndarray, scratch: np.ndarray,
        team: Team = ALONE,
    ) -> None:  # fmt: skip
        """dx (N, C) = dy (N, K) · weightᵀ."""
        self.multiply(dy, False, *self.operands[1][name], NOTHING, dx, scratch, team)

    def gradient(
        self, x: np.ndarray, dy: np.ndarray, start: np.ndarray, dweight: np.ndarray,
        scratch: np.ndarray, team: Team = ALONE,
    ) -> None:  # fmt: skip
        """dweight (C, K) = start + x (N, C)ᵀ · dy (N, K)."""
        self.multiply(x, True, dy, PLAIN, start, dweight, scratch, team)


def split_matmul(
    a: np.ndarray, across: bool, b: np.ndarray, form: int, start: np.ndarray, c: np.ndarray,
    scratch: np.ndarray, team: Team,
) -> None:  # fmt: skip
    """matmul.matmul, with the longer side of the result split, so that threads pack less twice."""
    rows, columns = c.shape
    flops = 2 * a.size * columns

    def part(top: int, bottom: int, left: int, right: int) -> None:
        own = scratch if team.size == 1 else workspace.get(matmul.make_scratch)
        bounds = top, bottom, left, right
        team.call(matmul.matmul_part, a, across, b, form, start, c, *bounds, own)

    if rows > columns:
        team.split(rows, PANEL, lambda cut: part(cut.start, cut.stop, 0, columns), flops)
    else:
        team.split(columns, PANEL, lambda cut: part(0, rows, cut.start, cut.stop), flops)


def blas_matmul(
    a: np.ndarray, across: bool, b: np.ndarray, form: int, start: np.ndarray, c: np.ndarray,
    scratch: np.ndarray, team: Team,
) -> None:  # fmt: skip
    """matmul.matmul by NumPy's BLAS, not split: its sums depend on the shapes of its operands."""
    a, b = a.T if across else a, b.T if form == TRANSPOSED else b
    if start is c:
        c += a @ b
        return
    np.matmul(a, b, out=c)
    if len(start):
        c += start
