"""The matrix products of a training step, in Numba or in BLAS: y = x W, dx = dy Wᵀ, dW = xᵀ dy.

The head is the token embedding transposed: its name here is "head", its matrix wte.weight.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.kernels.matmul import PACKED, PANEL, PLAIN, TRANSPOSED
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.team import ALONE, Team
from tinygpt_np.storage.parameters import Tensors

HEAD, TOKENS = "head", "wte.weight"
# From so many uses a step on, packing a weight once is worth the memory that its panels take.
PACK_FROM = 4
# Columns that are packed at once, for several threads to share the work: whole panels.
AT_ONCE = 8 * PANEL

# A matrix as it lies there, and as what a product takes it.
Operand = tuple[np.ndarray, int]


class Products(Protocol):
    """Of matrices by the names of their parameters. All arrays are float32, C-contiguous.

    start is what a product is added to: (0, 1) nothing, (1, K) a bias, or a matrix, also the result
    itself. room is of kernels.matmul.make_room, one for each thread. team: who shares the work.
    """

    def prepare(self) -> list[Callable[[], None]]:
        """What is to be done, in any order, after the weights have changed."""
        ...

    def forward(
        self, x: np.ndarray, name: str, start: np.ndarray, y: np.ndarray, room: np.ndarray,
        team: Team = ALONE,
    ) -> None:  # fmt: skip
        """y (N, K) = start + x (N, C) · weight (C, K)."""
        ...

    def backward(
        self, dy: np.ndarray, name: str, dx: np.ndarray, room: np.ndarray, team: Team = ALONE
    ) -> None:
        """dx (N, C) = dy (N, K) · weightᵀ."""
        ...

    def gradient(
        self, x: np.ndarray, dy: np.ndarray, start: np.ndarray, dweight: np.ndarray,
        room: np.ndarray, team: Team = ALONE,
    ) -> None:  # fmt: skip
        """dweight (C, K) = start + x (N, C)ᵀ · dy (N, K)."""
        ...


class NumbaProducts:
    """Our own, kernels/matmul.py. uses: how many micro-batches use the weights of a step."""

    def __init__(self, params: Tensors, uses: int) -> None:
        plain = {name: (param, PLAIN) for name, param in matrices(params)}
        turned = {name: (param, TRANSPOSED) for name, param in matrices(params)}
        head = params[TOKENS]
        self.operands: list[dict[str, Operand]] = [
            plain | {HEAD: (head, TRANSPOSED)},
            turned | {HEAD: (head, PLAIN)},
        ]
        self.packings: list[tuple[np.ndarray, int, int, int, int, np.ndarray]] = []
        if uses >= PACK_FROM:
            arena = Arena()
            self.operands = [self.packed(each, arena) for each in self.operands]

    def packed(self, operands: dict[str, Operand], arena: Arena) -> dict[str, Operand]:
        found: dict[str, Operand] = {}
        for name, (matrix, form) in operands.items():
            depth, columns = matrix.shape if form == PLAIN else matrix.shape[::-1]
            panels = arena.zeros(1, matmul.packed_size(depth, columns))
            for first in range(0, columns, AT_ONCE):
                end = min(first + AT_ONCE, columns)
                self.packings.append((matrix, form, depth, first, end, panels))
            found[name] = panels, PACKED
        return found

    def prepare(self) -> list[Callable[[], None]]:
        return [functools.partial(matmul.pack_columns, *each) for each in self.packings]

    def forward(
        self, x: np.ndarray, name: str, start: np.ndarray, y: np.ndarray, room: np.ndarray,
        team: Team = ALONE,
    ) -> None:  # fmt: skip
        matrix, form = self.operands[0][name]
        multiply(x, False, matrix, form, start, y, room, team)

    def backward(
        self, dy: np.ndarray, name: str, dx: np.ndarray, room: np.ndarray, team: Team = ALONE
    ) -> None:
        matrix, form = self.operands[1][name]
        multiply(dy, False, matrix, form, NOTHING, dx, room, team)

    def gradient(
        self, x: np.ndarray, dy: np.ndarray, start: np.ndarray, dweight: np.ndarray,
        room: np.ndarray, team: Team = ALONE,
    ) -> None:  # fmt: skip
        multiply(x, True, dy, PLAIN, start, dweight, room, team)


def multiply(
    a: np.ndarray, across: bool, b: np.ndarray, form: int, start: np.ndarray, c: np.ndarray,
    room: np.ndarray, team: Team,
) -> None:  # fmt: skip
    """matmul.matmul, its result cut along its longer side: what both then pack twice is less."""
    if team.count == 1:
        matmul.matmul(a, across, b, form, start, c, room)
        return
    rows, columns = c.shape

    def part(top: int, bottom: int, left: int, right: int) -> None:
        own = workspace.get(matmul.make_room)
        matmul.part_of_matmul(a, across, b, form, start, c, top, bottom, left, right, own)

    if rows > columns:
        team.over(rows, PANEL, lambda cut: part(cut.start, cut.stop, 0, columns))
    else:
        team.over(columns, PANEL, lambda cut: part(0, rows, cut.start, cut.stop))


class BlasProducts:
    """NumPy's, for comparison; its threads must be set to one by whoever runs it.

    Nothing is shared out: what it adds up in which order depends on the shape of a matrix.
    """

    def __init__(self, params: Tensors) -> None:
        self.weights = dict(matrices(params)) | {HEAD: params[TOKENS].T}

    def prepare(self) -> list[Callable[[], None]]:
        return []

    def forward(
        self, x: np.ndarray, name: str, start: np.ndarray, y: np.ndarray, room: np.ndarray,
        team: Team = ALONE,
    ) -> None:  # fmt: skip
        add_product(x, self.weights[name], start, y)

    def backward(
        self, dy: np.ndarray, name: str, dx: np.ndarray, room: np.ndarray, team: Team = ALONE
    ) -> None:
        np.matmul(dy, self.weights[name].T, out=dx)

    def gradient(
        self, x: np.ndarray, dy: np.ndarray, start: np.ndarray, dweight: np.ndarray,
        room: np.ndarray, team: Team = ALONE,
    ) -> None:  # fmt: skip
        add_product(x.T, dy, start, dweight)


NOTHING = np.zeros((0, 1), np.float32)


def add_product(a: np.ndarray, b: np.ndarray, start: np.ndarray, c: np.ndarray) -> None:
    if start is c:
        c += a @ b
        return
    np.matmul(a, b, out=c)
    if len(start):
        c += start


def matrices(params: Tensors) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of linear layers, by name."""
    for name, param in params.items():
        if param.ndim == 2 and name not in (TOKENS, "wpe.weight"):
            yield name, param


def make(kind: str, params: Tensors, uses: int) -> Products:
    """Products by their name, "numba" or "blas". Raises ValueError for another."""
    if kind not in ("numba", "blas"):
        raise ValueError(f"matmul must be numba or blas, not {kind!r}")
    chosen: Any = NumbaProducts(params, uses) if kind == "numba" else BlasProducts(params)
    return chosen
