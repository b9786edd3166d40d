"""Vectors of the host's width, and loads and stores by address.

Numba vectorises loops over arrays, but often with half the width, and computes the remainder number
by number: half of the work for a row of 40 scores. A Vector is a type of its own: LANES float32,
with + - * / and the functions below, mixed freely with single numbers. Operations are never
reassociated. An address is an int64; strides are in bytes.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # pyright: ignore[reportMissingTypeStubs]
from numba import extending, types
from numba.core import cgutils, typeconv
from numba.core.typing import templates

# Numba has no types to offer.
extend, templating, convert = cast(Any, extending), cast(Any, templates), cast(Any, typeconv)
find_or_declare: Any = cast(Any, cgutils).get_or_insert_function


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

# A page: the processor's own prefetching ends with each, and starts again in the next.
AHEAD = 4096

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
        undefined: Any = ir.Constant(
            ir.VectorType(number.type, self.lanes), cast(Any, ir).Undefined
        )
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        return self.shuffled(first, undefined, [0] * self.lanes)

    def shuffled(self, a: Any, b: Any, places: list[int]) -> Any:
        """Emit a vector of lanes of a and b, which are numbered together."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), places)
        return self.builder.shuffle_vector(a, b, mask)

    def call(self, name: str, result: Any, arguments: list[Any], flags: Any = ()) -> Any:
        """Emit a call of a function of LLVM or of the system, with fastmath flags."""
        kind = ir.FunctionType(result, [each.type for each in arguments])
        function = find_or_declare(self.builder.module, kind, name)
        return self.builder.call(function, arguments, fastmath=flags)

    def prefetch(self, pointer: Any, to_write: bool = False, soon: bool = False) -> None:
        """Emit a prefetch of a line: into L1 if it is used soon or written to, else into L2."""
        numbers = int(to_write), 3 if soon or to_write else 2, 1
        options = [ir.IntType(32)(number) for number in numbers]
        self.call("llvm.prefetch.p0", ir.VoidType(), [pointer, *options])

    def masked(self, count: Any) -> Any:
        """Emit a mask of the first `count` lanes."""
        lanes = ir.Constant(ir.VectorType(INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lanes, self.copied_to_all_lanes(count))

    def multiplied_and_added(self, a: Any, b: Any, c: Any) -> Any:
        """Emit a·b + c, fused if the processor has FMA."""
        if not self.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self.fma(a, b, c)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Emit a·b + c, rounded once."""
        return self.call(f"llvm.fma.{self.kind(a)}", a.type, [a, b, c])

    def kind(self, value: Any) -> str:
        """Return the suffix of LLVM's functions for a number or a vector."""
        return "f32" if value.type == FLOAT else f"v{value.type.count}f32"

    def larger(self, x: Any, bound: Any) -> Any:
        """Emit bound where x is below it, else x, which may be NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, bound), bound, x)

    def folded(self, vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
        """Emit a reduction of all lanes: of the two halves, lane by lane, and so on."""
        half = self.lanes // 2
        while half:
            upper = [half + lane if lane < half else lane for lane in range(self.lanes)]
            vector = operation(vector, self.shuffled(vector, vector, upper))
            half //= 2
        return self.builder.extract_element(vector, ir.IntType(32)(0))


def defined(emit_with: Callable[..., Any], signature_of: Callable[..., Any]) -> Any:
    """Return an intrinsic whose instructions a function (emitter, *arguments) emits."""

    @functools.wraps(emit_with)  # Numba reads the names of the arguments.
    def define(context: Any, *kinds: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = emit_with(Emitter(builder), *args)
            return context.get_dummy_value() if value is None else value

        return signature_of(*kinds), codegen

    return extend.intrinsic(define)


def intrinsic(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes an intrinsic of these types."""
    return lambda function: defined(function, lambda *_: result(*arguments))


def lanewise(function: Callable[..., Any]) -> Any:
    """Make an intrinsic for single numbers and, lane by lane, for vectors."""

    def signature_of(*kinds: Any) -> Any:
        kind = Vector if Vector in kinds else types.float32
        return kind(*[kind] * len(kinds))

    return defined(function, signature_of)


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


@intrinsic(types.float32, types.int64)
def load(emit: Emitter, address: Any) -> Any:
    """Return the float32 at an address."""
    return emit.load(emit.at(address), FLOAT)


@intrinsic(types.void, types.int64, types.float32)
def store(emit: Emitter, address: Any, value: Any) -> None:
    """Write a float32 to an address."""
    emit.store(value, emit.at(address))


@intrinsic(Vector, types.int64)
def load_vector(emit: Emitter, address: Any) -> Any:
    """Return the LANES float32 from an address on."""
    return emit.load(emit.at(address))


@intrinsic(types.void, types.int64, Vector)
def store_vector(emit: Emitter, address: Any, value: Any) -> None:
    """Write a vector, or LANES copies of a float32, to an address."""
    emit.store(value, emit.at(address))


@intrinsic(Vector, types.int64, types.int64)
def load_lanes(emit: Emitter, address: Any, count: Any) -> Any:
    """Return the `count` float32 from an address on, or LANES if they are fewer; else zeros."""
    pointer, zeros = emit.at(address), ir.Constant(emit.vector, [0.0] * LANES)
    with emit.builder.if_else(emit.builder.icmp_signed(">=", count, INT(LANES))) as (every, some):
        with every:
            whole, after_whole = emit.load(pointer), emit.builder.block
        with some:
            name, align = f"llvm.masked.load.v{LANES}f32.p0", ir.IntType(32)(4)
            pointed = emit.builder.bitcast(pointer, emit.vector.as_pointer())
            part = emit.call(name, emit.vector, [pointed, align, emit.masked(count), zeros])
            after_part = emit.builder.block
    vector = emit.builder.phi(emit.vector)
    vector.add_incoming(whole, after_whole)
    vector.add_incoming(part, after_part)
    return vector


@intrinsic(types.void, types.int64, Vector, types.int64)
def store_lanes(emit: Emitter, address: Any, vector: Any, count: Any) -> None:
    """Write the first `count` lanes of a vector to an address, or all if they are fewer."""
    pointer = emit.at(address)
    with emit.builder.if_else(emit.builder.icmp_signed(">=", count, INT(LANES))) as (every, some):
        with every:
            emit.store(vector, pointer)
        with some:
            name, align = f"llvm.masked.store.v{LANES}f32.p0", ir.IntType(32)(4)
            pointed = emit.builder.bitcast(pointer, emit.vector.as_pointer())
            emit.call(name, ir.VoidType(), [vector, pointed, align, emit.masked(count)])


@intrinsic(types.void, types.int64)
def prefetch_ahead(emit: Emitter, address: Any) -> None:
    """Prefetch what a loop reads AHEAD bytes after this address; any address is allowed."""
    emit.prefetch(emit.at(address, more=AHEAD), soon=True)


@intrinsic(types.void, types.int64)
def prefetch_target_ahead(emit: Emitter, address: Any) -> None:
    """Prefetch what a loop writes AHEAD bytes after this address; any address is allowed."""
    emit.prefetch(emit.at(address, more=AHEAD), to_write=True)


@intrinsic(types.void, types.int64, types.int64)
def copy_vector(emit: Emitter, source: Any, target: Any) -> None:
    """Copy LANES float32 from one address to another."""
    emit.store(emit.load(emit.at(source)), emit.at(target))


@intrinsic(types.void, *[types.int64] * 4)
def transpose_block(
    emit: Emitter, source: Any, source_stride: Any, target: Any, target_stride: Any
) -> None:
    """Write a block of LANES x LANES float32 transposed, in registers.

    The off-diagonal blocks of its 2 x 2 are exchanged; then the same within each block.
    """
    rows = [emit.load(emit.at(source, source_stride, row)) for row in range(LANES)]
    size, lanes = LANES // 2, range(LANES)
    while size:
        for row in (row for row in lanes if not row & size):
            upper, lower = rows[row], rows[row + size]
            rows[row] = emit.shuffled(
                upper, lower, [LANES + lane - size if lane & size else lane for lane in lanes]
            )
            rows[row + size] = emit.shuffled(
                upper, lower, [LANES + lane if lane & size else lane + size for lane in lanes]
            )
        size //= 2
    for row in lanes:
        emit.store(rows[row], emit.at(target, target_stride, row))


@intrinsic(Vector, Vector, Vector)
def even_lanes(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the even lanes of a, then those of b."""
    return emit.shuffled(a, b, list(range(0, 2 * LANES, 2)))


@intrinsic(Vector, Vector, Vector)
def odd_lanes(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the odd lanes of a, then those of b."""
    return emit.shuffled(a, b, list(range(1, 2 * LANES, 2)))


@intrinsic(Vector, Vector, Vector)
def lower_pairs(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the first lane of a, that of b, the second of a, and so on: a vector of pairs."""
    return emit.shuffled(a, b, [lane // 2 + lane % 2 * LANES for lane in range(LANES)])


@intrinsic(Vector, Vector, Vector)
def upper_pairs(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the pairs that follow those of lower_pairs."""
    half = LANES // 2
    return emit.shuffled(a, b, [half + lane // 2 + lane % 2 * LANES for lane in range(LANES)])


@intrinsic(Vector, Vector)
def all_lanes(emit: Emitter, number: Any) -> Any:
    """Return a vector of copies of a float32, to which Numba converts it."""
    return number


@lanewise
def fma(emit: Emitter, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, rounded once."""
    return emit.fma(a, b, c)


@lanewise
def multiply_add(emit: Emitter, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, rounded once if the processor has FMA, as in the tiles of matmuls."""
    return emit.multiplied_and_added(a, b, c)


@lanewise
def sqrt(emit: Emitter, x: Any) -> Any:
    """Return the square root."""
    return emit.call(f"llvm.sqrt.{emit.kind(x)}", x.type, [x])


@lanewise
def at_least(emit: Emitter, x: Any, low: Any) -> Any:
    """Return the larger of the two; NaN if x is NaN."""
    return emit.larger(x, low)


@lanewise
def at_most(emit: Emitter, x: Any, high: Any) -> Any:
    """Return the smaller of the two; NaN if x is NaN."""
    return emit.builder.select(emit.builder.fcmp_ordered(">", x, high), high, x)


@lanewise
def where_positive(emit: Emitter, x: Any, value: Any) -> Any:
    """Return 0 where x <= 0, else the value, also where x is NaN."""
    zero = ir.Constant(x.type, None if x.type != FLOAT else 0.0)
    return emit.builder.select(emit.builder.fcmp_ordered("<=", x, zero), zero, value)


@lanewise
def copysign(emit: Emitter, size: Any, sign: Any) -> Any:
    """Return |size| with the sign of `sign`."""
    return emit.call(f"llvm.copysign.{emit.kind(size)}", size.type, [size, sign])


@lanewise
def power_of_two(emit: Emitter, exponent: Any) -> Any:
    """Return the float32 whose biased exponent is in the lowest 8 bits of another."""
    integer: Any = ir.IntType(32)
    places = integer(23)
    if exponent.type != FLOAT:
        integer = ir.VectorType(integer, LANES)
        places = ir.Constant(integer, [23] * LANES)
    shifted = emit.builder.shl(emit.builder.bitcast(exponent, integer), places)
    return emit.builder.bitcast(shifted, exponent.type)


@intrinsic(types.float32, Vector)
def sum_of(emit: Emitter, vector: Any) -> Any:
    """Return the sum of a vector's lanes: of the two halves, lane by lane, and so on."""
    return emit.folded(vector, emit.builder.fadd)


@intrinsic(types.float32, Vector)
def largest_of(emit: Emitter, vector: Any) -> Any:
    """Return the largest of a vector's lanes; any lane if one of them is NaN."""
    return emit.folded(vector, emit.larger)


@intrinsic(Vector, Vector, types.int64, Vector)
def first_lanes(emit: Emitter, vector: Any, count: Any, rest: Any) -> Any:
    """Return the first `count` lanes of a vector, with `rest` in the others."""
    return emit.builder.select(emit.masked(count), vector, rest)
