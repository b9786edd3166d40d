"""The register tile: the part of a matrix product that is kept in registers while it grows.

Numba vectorises loops, but does not keep a tile of sums in registers from step to step; here LLVM
is told to, in its own language. Of C = A·B the tile holds ROWS x (VECTORS·LANES) sums; at each step
along the depth it loads VECTORS vectors of a row of B, and for each row one number of A, copied to
all lanes, and does ROWS·VECTORS fused multiply-adds. More sums for each load means fewer
instructions between them: with 32 registers, 6 x 4 sums take 1.4 instructions a multiply-add,
14 x 2 take 1.9 and are a third slower wherever the core is shared (both reach the peak where it is
not).

A may lie along memory, (rows, depth) with the depth contiguous, or across it, (depth, rows).
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""

from typing import Any

from numba import types

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


def make_tile(vectors: int, rows: int = ROWS, lanes: int = LANES, fused: bool = FUSED) -> Any:
    """The intrinsic that makes a tile of C of up to `rows` rows and vectors·lanes columns."""

    @intrinsic
    def tile(
        context: Any,
        height: Any,
        a: Any,
        a_stride: Any,
        across: Any,
        b: Any,
        b_stride: Any,
        start: Any,
        start_stride: Any,
        c: Any,
        c_stride: Any,
        depth: Any,
        fetch: Any,
        fetch_stride: Any,
    ) -> Any:
        """C = start + A·B, `height` rows of it, each sum in the order of the depth.

        across: 0, or 1 where A lies across memory, so that a_stride leads from step to step.
        fetch: the address of what will be needed next, which need not be valid; every few steps a
        line is asked for, and the next lies fetch_stride behind it.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            height, a, a_stride, across, *places = args
            done = builder.append_basic_block("tile.done")
            impossible = builder.append_basic_block("tile.impossible")
            case = builder.add(height, builder.mul(across, INT(rows)))
            switch = builder.switch(case, impossible)
            builder.position_at_end(impossible)
            builder.unreachable()
            for is_across in (False, True):
                for each in range(1, rows + 1):
                    block = builder.append_basic_block(f"tile.{each}")
                    switch.add_case(INT(each + rows * is_across), block)
                    builder.position_at_end(block)
                    # Others are at the edges of C only, and each takes time to compile.
                    whole = each == rows and vectors == VECTORS
                    emit = TileEmitter(builder, each, vectors, is_across, whole, lanes, fused)
                    emit.tile(a, a_stride, *places)
                    builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), codegen

    return tile


class TileEmitter(Emitter):
    """Writes a tile of a given height; whole: whether it is the one that most of C is made of."""

    # Steps along the depth between two jumps: of a whole tile, and of one that is rare.
    MANY, FEW = 4, 2
    # Rows of A along memory that share a pointer; one each would need too many registers.
    SHARING = 4

    def __init__(
        self, builder: Any, height: int, vectors: int, across: bool, whole: bool, lanes: int,
        fused: bool,
    ) -> None:  # fmt: skip
        super().__init__(builder, lanes, fused)
        self.height, self.vectors, self.across, self.whole = height, vectors, across, whole

    def tile(
        self, a: Any, a_stride: Any, b: Any, b_stride: Any, start: Any, start_stride: Any,
        c: Any, c_stride: Any, depth: Any, fetch: Any, fetch_stride: Any,
    ) -> None:  # fmt: skip
        builder, width = self.builder, 4 * self.lanes
        every = [(row, vector) for row in range(self.height) for vector in range(self.vectors)]
        sums = [self.load(self.at(start, start_stride, r, v * width)) for r, v in every]
        self.a_stride, self.b_stride, self.c_stride = a_stride, b_stride, c_stride
        self.fetch_stride = fetch_stride
        self.strides = [builder.mul(a_stride, INT(i)) for i in range(self.SHARING)]
        sharing = range(0, 1 if self.across else self.height, self.SHARING)
        # The tile below is next; where C is large, it is far away.
        below = self.at(c, c_stride, self.height)
        pointers = [below, self.at(fetch), self.at(b)]
        pointers += [self.at(a, a_stride, row) for row in sharing]
        self.split = len(pointers)
        state = [*pointers, *sums]
        steps = self.MANY if self.whole else self.FEW
        rest = builder.and_(depth, INT(steps - 1))
        many = builder.sub(depth, rest)
        if self.whole:
            most = INT(steps * self.height)
            first = builder.select(builder.icmp_signed("<", many, most), many, most)
            state = self.loop(first, steps, state, fetching=True)
            many = builder.sub(many, first)
        state = self.loop(many, steps, state)
        state = self.loop(rest, 1, state)
        for (r, v), total in zip(every, state[self.split :], strict=True):
            self.store(total, self.at(c, c_stride, r, v * width))

    def loop(self, count: Any, steps: int, state: list[Any], fetching: bool = False) -> list[Any]:
        """A loop over `count` (a multiple of steps) of the depth; the state before and after.

        fetching: whether it asks for a row of the tile below each time. A few lines at once only:
        more would be in the way of what the next steps read.
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
        (below, fetch, *pointers), sums = inside[: self.split], inside[self.split :]
        if fetching:
            for vector in range(self.vectors):
                place = builder.gep(below, [INT(4 * self.lanes * vector)])
                self.prefetch(place, to_write=True)
            below = builder.gep(below, [self.c_stride])
        if steps > 1:
            self.prefetch(fetch)
            fetch = builder.gep(fetch, [self.fetch_stride])
        for step in range(steps):
            pointers, sums = self.step(pointers, sums, step, steps)
        remaining = builder.sub(left, INT(steps))
        left.add_incoming(remaining, body)
        found = [below, fetch, *pointers, *sums]
        for phi, value in zip(inside, found, strict=True):
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed(">", remaining, INT(0)), body, after)
        builder.position_at_end(after)
        merged = [builder.phi(value.type) for value in state]
        for phi, untouched, value in zip(merged, state, found, strict=True):
            phi.add_incoming(untouched, before)
            phi.add_incoming(value, body)
        return merged

    def step(
        self, pointers: list[Any], sums: list[Any], step: int, steps: int
    ) -> tuple[list[Any], list[Any]]:
        """One step along the depth; pointers along memory move at the last of `steps`."""
        builder, width = self.builder, 4 * self.lanes
        b, *rows = pointers
        vectors = [self.load(builder.gep(b, [INT(v * width)])) for v in range(self.vectors)]
        found: list[Any] = []
        for row in range(self.height):
            if self.across:
                place = builder.gep(rows[0], [INT(4 * row)])
            else:
                shared, offset = divmod(row, self.SHARING)
                place = builder.gep(rows[shared], [self.strides[offset]])
                place = builder.gep(place, [INT(4 * step)])
            number = self.copied_to_all_lanes(self.load(place, FLOAT))
            for v, vector in enumerate(vectors):
                before = sums[row * self.vectors + v]
                found.append(self.multiplied_and_added(number, vector, before))
        if self.across:
            rows = [builder.gep(rows[0], [self.a_stride])]
        elif step == steps - 1:
            rows = [builder.gep(pointer, [INT(4 * steps)]) for pointer in rows]
        return [builder.gep(b, [self.b_stride]), *rows], found
