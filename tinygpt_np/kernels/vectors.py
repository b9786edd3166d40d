"""Vectors of the host's width, in memory addressed by number: what a matrix product is made of.

Numba vectorises loops, but does not keep a tile of sums in registers from step to step; here LLVM
is told to, in its own language, through intrinsics. An address is an int64; strides are in bytes.

The register tile is the heart. Of C = A·B it holds ROWS x (VECTORS·LANES) sums; at each step along
the depth it loads VECTORS vectors of a row of B, and for each row one number of A, copied to all
lanes, and does ROWS·VECTORS fused multiply-adds. More sums for each load means fewer instructions
between them: with 32 registers, 6 x 4 sums take 1.4 instructions a multiply-add, 14 x 2 take 1.9
and are a third slower wherever the core is shared (both reach the peak where it is not).
Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import extending, types

# Numba has no types to offer.
intrinsic: Any = cast(Any, extending).intrinsic


def tile_of_host(machine: str, features: dict[str, bool]) -> tuple[int, int, int, bool]:
    """Of a CPU: lanes of float32 in a vector, rows and vectors of the tile, fused multiply-add."""
    if features.get("avx512f"):
        return 16, 6, 4, True
    if features.get("avx2") and features.get("fma"):
        return 8, 6, 2, True
    if machine.startswith(("aarch64", "arm64")):
        return 4, 6, 4, True
    return 4, 4, 1, False


LANES, ROWS, VECTORS, FUSED = tile_of_host(
    binding.get_default_triple(), dict(binding.get_host_cpu_features())
)

INT = ir.IntType(64)
FLOAT = ir.FloatType()
BYTES = ir.IntType(8).as_pointer()
Sums = list[list[Any]]


class Emitter:
    """Writes the instructions that intrinsics have in common."""

    def __init__(self, builder: Any, lanes: int = LANES, fused: bool = FUSED) -> None:
        self.builder, self.lanes, self.fused = builder, lanes, fused
        self.vector: Any = ir.VectorType(FLOAT, lanes)

    def at(self, address: Any, stride: Any = None, times: int = 0, more: int = 0) -> Any:
        """A pointer to address + stride·times + more."""
        if times:
            address = self.builder.add(address, self.builder.mul(stride, INT(times)))
        pointer = self.builder.inttoptr(address, BYTES)
        return self.builder.gep(pointer, [INT(more)]) if more else pointer

    def load(self, pointer: Any, kind: Any = None) -> Any:
        kind = self.vector if kind is None else kind
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def copied_to_all_lanes(self, number: Any) -> Any:
        undefined: Any = ir.Constant(self.vector, cast(Any, ir).Undefined)
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        return self.shuffled(first, undefined, [0] * self.lanes)

    def shuffled(self, a: Any, b: Any, places: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), places)
        return self.builder.shuffle_vector(a, b, mask)

    def prefetch(self, pointer: Any) -> None:
        """Asks for a line to be fetched into the nearest cache, to be written to."""
        name, number = "llvm.prefetch.p0", ir.IntType(32)
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(ir.VoidType(), [BYTES, number, number, number]), name
        )
        self.builder.call(function, [pointer, number(1), number(3), number(1)])

    def multiplied_and_added(self, a: Any, b: Any, c: Any) -> Any:
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        name = f"llvm.fma.v{self.lanes}f32"
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )
        return self.builder.call(function, [a, b, c])


def make_tile(vectors: int, rows: int = ROWS, lanes: int = LANES, fused: bool = FUSED) -> Any:
    """The intrinsic that makes a tile of C of up to `rows` rows and vectors·lanes columns."""

    @intrinsic
    def tile(
        context: Any,
        height: Any,
        a: Any,
        a_stride: Any,
        b: Any,
        b_stride: Any,
        start: Any,
        start_stride: Any,
        c: Any,
        c_stride: Any,
        depth: Any,
    ) -> Any:
        """C = start + A·B, `height` rows of it, each sum in the order of the depth."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            height, *places = args
            done = builder.append_basic_block("tile.done")
            impossible = builder.append_basic_block("tile.impossible")
            switch = builder.switch(height, impossible)
            builder.position_at_end(impossible)
            builder.unreachable()
            for each in range(1, rows + 1):
                block = builder.append_basic_block(f"tile.{each}")
                switch.add_case(INT(each), block)
                builder.position_at_end(block)
                emit = TileEmitter(builder, each, vectors, lanes, fused)
                emit.tile(*places)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return tile


class TileEmitter(Emitter):
    """Writes a tile of a given height."""

    # Steps along the depth between two jumps.
    UNROLLED = 4
    # Rows of A that share a pointer; one each would need more registers than there are.
    SHARING = 4

    def __init__(self, builder: Any, height: int, vectors: int, lanes: int, fused: bool) -> None:
        super().__init__(builder, lanes, fused)
        self.height, self.vectors = height, vectors

    def tile(
        self, a: Any, a_stride: Any, b: Any, b_stride: Any, start: Any, start_stride: Any,
        c: Any, c_stride: Any, depth: Any,
    ) -> None:  # fmt: skip
        builder, width = self.builder, 4 * self.lanes
        every = [(row, vector) for row in range(self.height) for vector in range(self.vectors)]
        sums = [self.load(self.at(start, start_stride, r, v * width)) for r, v in every]
        # The tile below is next; where C is large, it is far away.
        for r, v in every:
            self.prefetch(self.at(c, c_stride, self.height + r, v * width))
        self.strides = [builder.mul(a_stride, INT(i)) for i in range(self.SHARING)]
        self.b_stride = b_stride
        sharing = range(0, self.height, self.SHARING)
        pointers = [self.at(b), *(self.at(a, a_stride, row) for row in sharing)]
        rest = builder.and_(depth, INT(self.UNROLLED - 1))
        state = [*pointers, *sums]
        state = self.loop(builder.sub(depth, rest), self.UNROLLED, state, len(pointers))
        state = self.loop(rest, 1, state, len(pointers))
        for (r, v), total in zip(every, state[len(pointers) :], strict=True):
            self.store(total, self.at(c, c_stride, r, v * width))

    def loop(self, count: Any, steps: int, state: list[Any], split: int) -> list[Any]:
        """A loop over `count` (a multiple of steps) of the depth; the state before and after."""
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
        pointers, sums = inside[:split], inside[split:]
        for step in range(steps):
            pointers, sums = self.step(pointers, sums, step, steps)
        remaining = builder.sub(left, INT(steps))
        left.add_incoming(remaining, body)
        found = [*pointers, *sums]
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
        """One step along the depth; A's pointers along memory move at the last of `steps`."""
        builder, width = self.builder, 4 * self.lanes
        b, *rows = pointers
        vectors = [self.load(builder.gep(b, [INT(v * width)])) for v in range(self.vectors)]
        found: list[Any] = []
        for row in range(self.height):
            shared, offset = divmod(row, self.SHARING)
            place = builder.gep(rows[shared], [self.strides[offset]])
            place = builder.gep(place, [INT(4 * step)])
            number = self.copied_to_all_lanes(self.load(place, FLOAT))
            for v, vector in enumerate(vectors):
                before = sums[row * self.vectors + v]
                found.append(self.multiplied_and_added(number, vector, before))
        if step == steps - 1:
            rows = [builder.gep(pointer, [INT(4 * steps)]) for pointer in rows]
        return [builder.gep(b, [self.b_stride]), *rows], found


def typed(result: Any, arguments: int, emit: Callable[..., Any]) -> Any:
    """The signature and code of an intrinsic of addresses (and numbers, last, where it stores)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = emit(Emitter(builder), *args)
        return context.get_dummy_value() if value is None else value

    return result(*[types.int64] * arguments), codegen


@intrinsic
def load(context: Any, address: Any) -> Any:
    """The float32 at an address."""

    def emit_load(emit: Emitter, address: Any) -> Any:
        return emit.load(emit.at(address), FLOAT)

    return typed(types.float32, 1, emit_load)


@intrinsic
def store(context: Any, address: Any, value: Any) -> Any:
    """Writes a float32 to an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(builder)
        emit.store(args[1], emit.at(args[0]))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def copy_vector(context: Any, source: Any, target: Any) -> Any:
    """Copies LANES float32 from one address to another."""

    def emit_copy(emit: Emitter, source: Any, target: Any) -> None:
        emit.store(emit.load(emit.at(source)), emit.at(target))

    return typed(types.void, 2, emit_copy)


@intrinsic
def transpose_block(
    context: Any, source: Any, source_stride: Any, target: Any, target_stride: Any
) -> Any:
    """Writes a block of LANES x LANES float32 transposed, without leaving the registers.

    Seen as 2 x 2 blocks, the off-diagonal ones change places; then the same within each.
    """

    def emit_transpose(
        emit: Emitter, source: Any, source_stride: Any, target: Any, target_stride: Any
    ) -> None:
        rows = [emit.load(emit.at(source, source_stride, row)) for row in range(LANES)]
        size = LANES // 2
        while size:
            for row in range(LANES):
                if row & size:
                    continue
                upper, lower = rows[row], rows[row + size]
                columns = range(LANES)
                rows[row] = emit.shuffled(
                    upper, lower, [LANES + c - size if c & size else c for c in columns]
                )
                rows[row + size] = emit.shuffled(
                    upper, lower, [LANES + c if c & size else c + size for c in columns]
                )
            size //= 2
        for row in range(LANES):
            emit.store(rows[row], emit.at(target, target_stride, row))

    return typed(types.void, 4, emit_transpose)
