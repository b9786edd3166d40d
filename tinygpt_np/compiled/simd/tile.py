"""The register tile: the part of a matmul's result that is kept in registers while it is summed.

Numba vectorises loops, but does not keep a tile of sums in registers between iterations, so the
tile is generated as LLVM instructions. It holds ROWS x (VECTORS·LANES) sums of C = A·B. At each
step along the depth it loads VECTORS vectors of a row of B and, for each row, one number of A,
copied to all lanes, and does ROWS·VECTORS fused multiply-adds. compiled/README.md compares shapes.

A may be contiguous along the depth, (rows, depth), or across it, (depth, rows).
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""

import functools
from typing import Any, cast

from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types

from tinygpt_np.compiled.simd.linking import MATRIX
from tinygpt_np.compiled.simd.memory import LINE
from tinygpt_np.compiled.simd.vectors import (
    FLOAT,
    FUSED,
    INT,
    LANES,
    ROWS,
    VECTORS,
    Emitter,
    intrinsic,
)

# Numbers that are prefetched of each row of a matrix.
FETCHED = 16 * LINE


def make_tile(vectors: int, rows: int = ROWS, lanes: int = LANES, fused: bool = FUSED) -> Any:
    """Return an intrinsic for a tile of up to `rows` rows and exactly vectors·lanes columns."""

    @intrinsic(
        *(types.void, types.int64, MATRIX, types.int64, MATRIX, MATRIX, MATRIX),
        *(types.int64, MATRIX),
    )
    def tile(
        emit: Emitter, height: Any, a: Any, across: Any, b: Any, start: Any, c: Any, depth: Any,
        fetch: Any,
    ) -> None:  # fmt: skip
        """C = start + A·B, `height` rows of it, each sum in the order of the depth.

        a, b, start, c: Matrix. across: 0, or 1 if the rows of `a` are steps of the depth. fetch: a
        Matrix that will be needed next, and need not be valid; every few steps a cache line is
        prefetched, FETCHED numbers of each of its rows.
        """
        builder = emit.builder
        matrices = [
            (builder.extract_value(each, 0), builder.extract_value(each, 1))
            for each in (a, b, start, c, fetch)
        ]
        stride = matrices[0][1]
        is_across = builder.trunc(across, ir.IntType(1))
        # The bytes from row to row of A and from step to step: along the depth, across it, or as
        # `across` says.
        along, crosswise = (stride, INT(4)), (INT(4), stride)
        either = tuple(map(functools.partial(builder.select, is_across), crosswise, along))
        done = builder.append_basic_block("tile.done")
        impossible = builder.append_basic_block("tile.impossible")
        case = builder.add(height, builder.mul(across, INT(rows)))
        switch = builder.switch(case, impossible)
        builder.position_at_end(impossible)
        builder.unreachable()
        for each in range(1, rows + 1):
            is_main = each == rows and vectors == VECTORS
            # Lower tiles are only used at the edges of C, and each loop takes time to compile, so
            # theirs are for both layouts of A.
            layouts = [([0], along), ([1], crosswise)] if each == rows else [([0, 1], either)]
            for numbers, strides in layouts:
                block = builder.append_basic_block(f"tile.{each}")
                for number in numbers:
                    switch.add_case(INT(each + rows * number), block)
                builder.position_at_end(block)
                tile_emitter = TileEmitter(builder, each, vectors, is_main, lanes, fused)
                tile_emitter.tile(matrices, strides, depth)
                builder.branch(done)
        builder.position_at_end(done)

    return tile


class TileEmitter(Emitter):
    """Emits a tile of one height; is_main: whether most of C is made of such tiles."""

    # Steps along the depth in an iteration of the loop: of the main tile, and of others.
    MANY, FEW = 4, 2
    # Rows of A that share a pointer, unless they are a constant apart; one each would need too many
    # registers.
    SHARING = 4

    def __init__(
        self, builder: Any, height: int, vectors: int, is_main: bool, lanes: int, fused: bool
    ) -> None:
        super().__init__(builder, lanes, fused)
        self.height, self.vectors, self.is_main = height, vectors, is_main

    def tile(self, matrices: list[tuple[Any, Any]], a_strides: tuple[Any, Any], depth: Any) -> None:
        """Emit the tile.

        matrices: address and stride of a, b, start, c and what to fetch. a_strides: the bytes from
        row to row of a, and from step to step.
        """
        (a, _), (b, b_stride), (start, start_stride), (c, c_stride), fetched = matrices
        fetch, fetch_stride = fetched
        builder, width = self.builder, 4 * self.lanes
        every = [(row, vector) for row in range(self.height) for vector in range(self.vectors)]
        sums = [self.load(self.at(start, start_stride, r, v * width)) for r, v in every]
        row_stride, self.step_stride = a_strides
        self.b_stride, self.c_stride, self.fetch_stride = b_stride, c_stride, fetch_stride
        is_constant = isinstance(row_stride, cast(Any, ir).Constant)
        self.sharing = self.height if is_constant else self.SHARING
        self.strides = [builder.mul(row_stride, INT(i)) for i in range(self.sharing)]
        # The tile below comes next; if C is large, it is not in the cache.
        below = self.at(c, c_stride, self.height)
        pointers = [below, self.at(fetch), self.at(fetch, more=4 * FETCHED), self.at(b)]
        shared = range(0, self.height, self.sharing)
        pointers += [self.at(a, row_stride, row) for row in shared]
        self.split = len(pointers)
        state = [*pointers, *sums]
        steps = self.MANY if self.is_main else self.FEW
        rest = builder.and_(depth, INT(steps - 1))
        many = builder.sub(depth, rest)
        if self.is_main:
            most = INT(steps * self.height)
            first = builder.select(builder.icmp_signed("<", many, most), many, most)
            state = self.loop(first, steps, state, fetching=True)
            many = builder.sub(many, first)
        state = self.loop(many, steps, state)
        state = self.loop(rest, 1, state)
        for (r, v), total in zip(every, state[self.split :], strict=True):
            self.store(total, self.at(c, c_stride, r, v * width))

    def loop(self, count: Any, steps: int, state: list[Any], fetching: bool = False) -> list[Any]:
        """Emit a loop over `count` (a multiple of steps) of the depth; return the state after it.

        fetching: whether each iteration prefetches a row of the tile below. More lines at once
        would delay the loads of the next steps.
        """
        builder = self.builder
        before = builder.block
        body, after = (builder.append_basic_block(f"tile.{name}") for name in ("loop", "after"))
        builder.cbranch(builder.icmp_signed(">", count, INT(0)), body, after)
        builder.position_at_end(body)
        left = builder.phi(INT)
        left.add_incoming(count, before)
        inside = [builder.phi(value.type) for value in state]
        for phi, value in zip(inside, state, strict=True):
            phi.add_incoming(value, before)
        (below, fetch, end, *pointers), sums = inside[: self.split], inside[self.split :]
        if fetching:
            for vector in range(self.vectors):
                place = builder.gep(below, [INT(4 * self.lanes * vector)])
                self.prefetch(place, to_write=True)
            below = builder.gep(below, [self.c_stride])
        if steps > 1:
            self.prefetch(fetch)
            fetch = builder.gep(fetch, [INT(4 * LINE)])
            is_over = builder.icmp_unsigned("==", fetch, end)
            next_row = builder.gep(end, [builder.sub(self.fetch_stride, INT(4 * FETCHED))])
            fetch = builder.select(is_over, next_row, fetch)
            end = builder.select(is_over, builder.gep(end, [self.fetch_stride]), end)
        for _ in range(steps):
            pointers, sums = self.step(pointers, sums)
        remaining = builder.sub(left, INT(steps))
        left.add_incoming(remaining, body)
        found = [below, fetch, end, *pointers, *sums]
        for phi, value in zip(inside, found, strict=True):
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed(">", remaining, INT(0)), body, after)
        builder.position_at_end(after)
        merged = [builder.phi(value.type) for value in state]
        for phi, untouched, value in zip(merged, state, found, strict=True):
            phi.add_incoming(untouched, before)
            phi.add_incoming(value, body)
        return merged

    def step(self, pointers: list[Any], sums: list[Any]) -> tuple[list[Any], list[Any]]:
        """Emit one step along the depth."""
        builder, width = self.builder, 4 * self.lanes
        b, *rows = pointers
        vectors = [self.load(builder.gep(b, [INT(v * width)])) for v in range(self.vectors)]
        found: list[Any] = []
        for row in range(self.height):
            shared, offset = divmod(row, self.sharing)
            place = builder.gep(rows[shared], [self.strides[offset]])
            number = self.copied_to_all_lanes(self.load(place, FLOAT))
            for v, vector in enumerate(vectors):
                before = sums[row * self.vectors + v]
                found.append(self.multiplied_and_added(number, vector, before))
        rows = [builder.gep(pointer, [self.step_stride]) for pointer in rows]
        return [builder.gep(b, [self.b_stride]), *rows], found
