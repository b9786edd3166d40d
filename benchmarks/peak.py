"""The most multiply-adds that the machine does: a loop of nothing but independent vector FMAs.

A fused multiply-add takes about four cycles and two can start in each, so with fewer than eight in
flight a core waits; with more accumulators than registers it spills.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs]
from numba import njit, types
from numba.extending import intrinsic

from benchmarks import machine
from benchmarks.worker import Job

ROUNDS_OF_LOOP = 3_000_000


# Floats in a vector, and accumulators that fit the registers: 24 of 32, or 12 of 16.
LANES = machine.vector_bits() // 32
ACCUMULATORS = 24 if LANES == 16 else 12


def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The loop in LLVM: accumulator = accumulator · factor + term, for each accumulator."""
    vector, integer = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
    # fmuladd is fused where the CPU can, and a multiply and an add where it cannot.
    kind = ir.FunctionType(vector, [vector, vector, vector])
    fma = builder.module.declare_intrinsic(f"llvm.fmuladd.v{LANES}f32", fnty=kind)
    factor, term = (ir.Constant(vector, [value] * LANES) for value in (1.000001, 1e-7))
    before = builder.block
    loop, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    count = builder.phi(integer)
    count.add_incoming(integer(0), before)
    accumulators = [builder.phi(vector) for _ in range(ACCUMULATORS)]
    for start, accumulator in enumerate(accumulators):
        accumulator.add_incoming(ir.Constant(vector, [float(start)] * LANES), before)
    sums = [builder.call(fma, [accumulator, factor, term]) for accumulator in accumulators]
    for accumulator, total in zip(accumulators, sums, strict=True):
        accumulator.add_incoming(total, loop)
    counted = builder.add(count, integer(1))
    count.add_incoming(counted, loop)
    builder.cbranch(builder.icmp_signed("<", counted, arguments[0]), loop, end)
    builder.position_at_end(end)
    # All of them are returned, or the compiler would drop them.
    total = sums[0]
    for other in sums[1:]:
        total = builder.fadd(total, other)
    return builder.extract_element(total, ir.IntType(32)(0))


def fma_loop(typing_context: Any, rounds: Any) -> Any:
    return types.float32(types.int64), generate


LOOP: Any = intrinsic(fma_loop)


@njit(nogil=True)
def multiply_add(rounds: int) -> Any:
    """Goes `rounds` times around the loop; returns a number that depends on all of it."""
    return LOOP(rounds)


def build(threads: int) -> Job:
    """The peak of so many threads, as a job: a step is a fixed number of FMAs on each."""
    pool = ThreadPoolExecutor(threads)
    flops = 2.0 * LANES * ACCUMULATORS * ROUNDS_OF_LOOP * threads

    def step() -> None:
        list(pool.map(multiply_add, [ROUNDS_OF_LOOP] * threads))

    def agreement(_: None) -> list[float]:
        return []

    return Job(flops, lambda: (), step, agreement)
