"""Vectors of the host's width, and loads and stores by address.

Numba vectorises loops over arrays, but often with half the width, and computes the remainder number
by number: half of the work for a row of 40 scores. A Vector is a type of its own: LANES float32,
with + - * / and the functions below, mixed freely with single numbers. Operations are never
reassociated. An address is an int64; strides are in bytes.
"""

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import extending, types
from numba.core import typeconv
from numba.core.typing import templates

# Numba has no types to offer.
extend, templating, convert = cast(Any, extending), cast(Any, templates), cast(Any, typeconv)
intrinsic: Any = extend.intrinsic


def tile_of_host(machine: str, features: dict[str, bool]) -> tuple[int, int, int, bool]:
    """Return lanes of float32 in a vector, rows and vectors of a tile, and whether FMA is fused."""
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


class Emitter:
    """Emits the instructions that intrinsics have in common."""

    def __init__(self, builder: Any, lanes: int = LANES, fused: bool = FUSED) -> None:
        self.builder, self.lanes, self.fused = builder, lanes, fused
        self.vector: Any = ir.VectorType(FLOAT, lanes)

    def at(self, address: Any, stride: Any = None, times: int = 0, more: int = 0) -> Any:
        """Emit a pointer to address + stride·times + more."""
        if times:
            address = self.builder.add(address, self.builder.mul(stride, INT(times)))
        pointer = self.builder.inttoptr(address, BYTES)
        return self.builder.gep(pointer, [INT(more)]) if more else pointer

    def load(self, pointer: Any, kind: Any = None) -> Any:
        """Emit a load of a vector, or of another type."""
        kind = self.vector if kind is None else kind
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=4)

    def store(self, value: Any, pointer: Any) -> None:
        """Emit a store."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def copied_to_all_lanes(self, number: Any) -> Any:
        """Emit a vector of copies of a number."""
        undefined: Any = ir.Constant(self.vector, cast(Any, ir).Undefined)
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        return self.shuffled(first, undefined, [0] * self.lanes)

    def shuffled(self, a: Any, b: Any, places: list[int]) -> Any:
        """Emit a vector of lanes of a and b, which are numbered together."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), places)
        return self.builder.shuffle_vector(a, b, mask)

    def prefetch(self, pointer: Any, to_write: bool = False) -> None:
        """Emit a prefetch of a line: into L1 if it will be written to, else into L2."""
        name, number = "llvm.prefetch.p0", ir.IntType(32)
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(ir.VoidType(), [BYTES, number, number, number]), name
        )
        write, near = (1, 3) if to_write else (0, 2)
        self.builder.call(function, [pointer, number(write), number(near), number(1)])

    def multiplied_and_added(self, a: Any, b: Any, c: Any) -> Any:
        """Emit a·b + c, fused if the processor has FMA."""
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self.fma(a, b, c)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Emit a·b + c, rounded once."""
        name = "llvm.fma.f32" if a.type == FLOAT else f"llvm.fma.v{a.type.count}f32"
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(a.type, [a.type] * 3), name
        )
        return self.builder.call(function, [a, b, c])

    def larger(self, x: Any, bound: Any) -> Any:
        """Emit bound where x is below it, else x, which may be NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, bound), bound, x)

    def smaller(self, x: Any, bound: Any) -> Any:
        """Emit bound where x is above it, else x, which may be NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, bound), bound, x)

    def power_of_two(self, exponent: Any) -> Any:
        """Emit the float32 with a given biased exponent; see the function power_of_two."""
        integer: Any = ir.IntType(32)
        places = integer(23)
        if exponent.type != FLOAT:
            integer = ir.VectorType(integer, self.lanes)
            places = ir.Constant(integer, [23] * self.lanes)
        shifted = self.builder.shl(self.builder.bitcast(exponent, integer), places)
        return self.builder.bitcast(shifted, exponent.type)

    def folded(self, vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
        """Emit a reduction of all lanes: of the two halves, lane by lane, and so on."""
        half = self.lanes // 2
        while half:
            upper = [half + lane if lane < half else lane for lane in range(self.lanes)]
            vector = operation(vector, self.shuffled(vector, vector, upper))
            half //= 2
        return self.builder.extract_element(vector, ir.IntType(32)(0))

    def first_lanes(self, vector: Any, count: Any, rest: Any) -> Any:
        """Emit the first `count` lanes of a vector, with `rest` in the others."""
        numbers = ir.VectorType(INT, self.lanes)
        undefined: Any = ir.Constant(numbers, cast(Any, ir).Undefined)
        counts = self.builder.insert_element(undefined, count, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        counts = self.builder.shuffle_vector(counts, undefined, zeros)
        lanes = ir.Constant(numbers, list(range(self.lanes)))
        return self.builder.select(self.builder.icmp_signed("<", lanes, counts), vector, rest)


def typed(result: Any, arguments: int, emit: Callable[..., Any]) -> Any:
    """Return signature and code of an intrinsic whose arguments are addresses and strides."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = emit(Emitter(builder), *args)
        return context.get_dummy_value() if value is None else value

    return result(*[types.int64] * arguments), codegen


@intrinsic
def load(context: Any, address: Any) -> Any:
    """Return the float32 at an address."""

    def emit_load(emit: Emitter, address: Any) -> Any:
        return emit.load(emit.at(address), FLOAT)

    return typed(types.float32, 1, emit_load)


@intrinsic
def store(context: Any, address: Any, value: Any) -> Any:
    """Write a float32 to an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(builder)
        emit.store(args[1], emit.at(args[0]))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def copy_vector(context: Any, source: Any, target: Any) -> Any:
    """Copy LANES float32 from one address to another."""

    def emit_copy(emit: Emitter, source: Any, target: Any) -> None:
        emit.store(emit.load(emit.at(source)), emit.at(target))

    return typed(types.void, 2, emit_copy)


@intrinsic
def transpose_block(
    context: Any, source: Any, source_stride: Any, target: Any, target_stride: Any
) -> Any:
    """Write a block of LANES x LANES float32 transposed, in registers.

    Of its 2 x 2 blocks, the off-diagonal ones are exchanged; then the same within each block.
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


class VectorType(types.Type):
    """The type of LANES float32; a single float32 converts to a vector of copies."""

    def can_convert_from(self, typingctx: Any, other: Any) -> Any:
        """Let a float32 be used as a vector."""
        return convert.Conversion.safe if other == types.float32 else None


Vector: Any = VectorType(name=f"float32 x {LANES}")


@extend.register_model(VectorType)
class VectorModel(extend.models.PrimitiveModel):
    """The representation of a Vector in LLVM."""

    def __init__(self, manager: Any, kind: Any) -> None:
        base: Any = super()
        base.__init__(manager, kind, ir.VectorType(FLOAT, LANES))


@extend.lower_cast(types.float32, VectorType)
def copied_to_all_lanes(context: Any, builder: Any, source: Any, target: Any, value: Any) -> Any:
    """Convert a float32 to a Vector."""
    return Emitter(builder).copied_to_all_lanes(value)


def arithmetic(operation: Callable[..., Any], instruction: str) -> None:
    """Define an operator for two vectors, or a vector and a number."""

    @templating.infer_global(operation)
    class Typing(templating.AbstractTemplate):  # pyright: ignore[reportUnusedClass]
        def generic(self, args: Any, kws: Any) -> Any:
            if Vector in args and all(kind in (Vector, types.float32) for kind in args):
                return templating.signature(Vector, Vector, Vector)
            return None

    @extend.lower_builtin(operation, VectorType, VectorType)
    def lower(  # pyright: ignore[reportUnusedFunction]
        context: Any, builder: Any, signature: Any, args: Any
    ) -> Any:
        return getattr(builder, instruction)(*args)


operators: Any = operator
arithmetic(operators.add, "fadd")
arithmetic(operators.sub, "fsub")
arithmetic(operators.mul, "fmul")
arithmetic(operators.truediv, "fdiv")


@intrinsic
def load_vector(context: Any, address: Any) -> Any:
    """Return the LANES float32 from an address on."""

    def emit_load(emit: Emitter, address: Any) -> Any:
        return emit.load(emit.at(address))

    return typed(Vector, 1, emit_load)


@intrinsic
def store_vector(context: Any, address: Any, value: Any) -> Any:
    """Write a vector, or LANES copies of a float32, to an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(builder)
        emit.store(args[1], emit.at(args[0]))
        return context.get_dummy_value()

    return types.void(types.int64, Vector), codegen


@intrinsic
def all_lanes(context: Any, number: Any) -> Any:
    """Return a vector of copies of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return Vector(Vector), codegen


def lanewise(emit: Callable[..., Any], *kinds: Any) -> Any:
    """Return the code of an intrinsic for single numbers and, lane by lane, for vectors."""
    kind = Vector if Vector in kinds else types.float32

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit(Emitter(builder), *args)

    return kind(*[kind] * len(kinds)), codegen


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, rounded once."""
    return lanewise(Emitter.fma, a, b, c)


@intrinsic
def multiply_add(context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, rounded once if the processor has FMA, as in the tiles of matmuls."""
    return lanewise(Emitter.multiplied_and_added, a, b, c)


@intrinsic
def at_least(context: Any, x: Any, low: Any) -> Any:
    """Return the larger of the two; NaN if x is NaN."""
    return lanewise(Emitter.larger, x, low)


@intrinsic
def at_most(context: Any, x: Any, high: Any) -> Any:
    """Return the smaller of the two; NaN if x is NaN."""
    return lanewise(Emitter.smaller, x, high)


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """Return the float32 whose biased exponent is in the lowest 8 bits of another."""
    return lanewise(Emitter.power_of_two, exponent)


@intrinsic
def sum_of(context: Any, vector: Any) -> Any:
    """Return the sum of a vector's lanes: of the two halves, lane by lane, and so on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return Emitter(builder).folded(args[0], builder.fadd)

    return types.float32(Vector), codegen


@intrinsic
def largest_of(context: Any, vector: Any) -> Any:
    """Return the largest of a vector's lanes; any lane if one of them is NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(builder)
        return emit.folded(args[0], emit.larger)

    return types.float32(Vector), codegen


@intrinsic
def first_lanes(context: Any, vector: Any, count: Any, rest: Any) -> Any:
    """Return the first `count` lanes of a vector, with `rest` in the others."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, count, rest = args
        return Emitter(builder).first_lanes(vector, count, rest)

    return Vector(Vector, types.int64, Vector), codegen
