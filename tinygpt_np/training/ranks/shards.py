"""The parameters of a model in buckets, each of which one rank owns (ZeRO, stage 1).

The owner of a bucket adds its gradient, keeps its optimizer state, updates it and sends it to all
(Rajbhandari et al. 2020, section 5.1: P_os). Every rank still has all parameters and a gradient of
each. A bucket is about a megabyte: large enough that the latency of a message does not matter, and
small enough that buckets of late layers travel while early layers are still computed.

Gradients and parameters are each in one array (`Layout`), in the order in which a backward
completes them, so that a bucket is a slice that is sent without being copied.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from tinygpt_np.storage import parameters
from tinygpt_np.storage.parameters import Tensors, blocks

# Numbers in a cache line of float32; each tensor begins on one.
LINE = 16
# Buckets per rank at least, if the model is large enough, so that all have about the same work.
PER_RANK = 4
# Tensors whose gradient is complete last: those of the input.
LAST = ("wte.weight", "wpe.weight")


class Layout:
    """The places of tensors in a flat array."""

    def __init__(self, params: Tensors) -> None:
        names = [*(n for n in reversed(list(params)) if n not in LAST), *LAST]
        self.shapes = {name: params[name].shape for name in names if name in params}
        self.dtype = params["wte.weight"].dtype
        self.starts: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.starts[name] = self.size
            self.size += -(-math.prod(shape) // LINE) * LINE

    def zeros(self) -> np.ndarray:
        """Return a flat array that begins on a cache line."""
        array = np.zeros(self.size + LINE, self.dtype)
        skipped = -(array.ctypes.data // array.itemsize) % LINE
        return array[skipped : skipped + self.size]

    def views(self, flat: np.ndarray) -> Tensors:
        """Return the tensors in a flat array."""
        return {
            name: flat[start : start + math.prod(shape)].reshape(shape)
            for (name, shape), start in zip(self.shapes.items(), self.starts.values(), strict=True)
        }


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor."""

    tensor: str
    rows: slice
    whole: bool

    @property
    def name(self) -> str:
        """The name of these rows among those that a rank owns."""
        return self.tensor if self.whole else f"{self.tensor}[{self.rows.start}:{self.rows.stop}]"


@dataclass
class Bucket:
    """Pieces that are next to each other in a flat array, and the rank that owns them."""

    start: int
    stop: int
    pieces: list[Piece]
    owner: int = 0


class Shards:
    """The buckets of a model, and those of one rank.

    matrices: tensors that an optimizer updates as a whole (Muon's).
    """

    def __init__(
        self, layout: Layout, ranks: int = 1, rank: int = 0, matrices: Collection[str] = ()
    ) -> None:
        self.layout, self.ranks, self.rank = layout, ranks, rank
        self.buckets = list(self.cut(matrices))
        self.assign(matrices)

    def cut(self, matrices: Collection[str]) -> Iterator[Bucket]:
        """Yield the buckets; several small tensors share one."""
        most = max(min(parameters.BLOCK, self.layout.size // (PER_RANK * self.ranks)), 1)
        bucket: Bucket | None = None
        for name, shape in self.layout.shapes.items():
            all_rows = [slice(0, shape[0])]
            parts = blocks(shape) if self.ranks > 1 and name not in matrices else all_rows
            row = math.prod(shape[1:])
            for rows in parts:
                piece = Piece(name, rows, parts == all_rows)
                start = self.layout.starts[name] + rows.start * row
                stop = self.layout.starts[name] + rows.stop * row
                if bucket is not None and stop - bucket.start > most:
                    yield bucket
                    bucket = None
                if bucket is None:
                    bucket = Bucket(start, stop, [])
                bucket.stop = stop
                bucket.pieces.append(piece)
        if bucket is not None:
            yield bucket

    def assign(self, matrices: Collection[str]) -> None:
        """Give each bucket to the rank with the least work so far."""
        work = [0.0] * self.ranks
        for bucket in self.buckets:
            bucket.owner = work.index(min(work))
            for piece in bucket.pieces:
                shape = self.layout.shapes[piece.tensor]
                numbers = math.prod(shape[1:]) * (piece.rows.stop - piece.rows.start)
                # The orthogonalization of a matrix takes time in proportion to its shorter side.
                work[bucket.owner] += numbers * (min(shape) if piece.tensor in matrices else 1)

    def own(self, tensors: Tensors) -> Tensors:
        """Return the pieces of tensors that this rank owns, as views."""
        return {
            piece.name: tensors[piece.tensor][piece.rows]
            for bucket in self.buckets
            if bucket.owner == self.rank
            for piece in bucket.pieces
            if piece.tensor in tensors
        }
