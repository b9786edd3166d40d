"""Find the sizes of a matmul's blocks that suit this processor, for `tinygpt doctor --tune`.

One size after the other is varied. In each round, every choice runs the matmuls of feed-forward
layers on one thread. Only gradients of weights are timed, because the sizes concern nothing else.
Each run has new scratch memory, because the place of an array in memory changes a time by some
percent. A choice replaces the size so far only if it is at least GAIN times as fast, because the
fastest of several has often only been lucky.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.kernels.matmul import PACKED, PANELS, PLAIN, TRANSPOSED
from tinygpt_np.compiled.simd.blocks import CHOICES, Blocks
from tinygpt_np.compiled.simd.memory import Arena

ROUNDS, GAIN = 40, 1.02
# Rows of a micro-batch, channels, and whether weights are packed: of the presets, and of GPT-2.
MICRO_BATCHES = ((192, 128, True), (512, 384, True), (128, 768, False))

# The arguments of a matmul without its scratch memory.
Call = tuple[Any, ...]


class Tried(NamedTuple):
    """A choice of a size, its speed as a multiple of the first one's, and whether it is taken."""

    name: str
    size: int
    gain: float
    taken: bool


def calls(micro_batches: Sequence[tuple[int, int, bool]]) -> Iterator[Call]:
    """Yield the matmuls of a feed-forward layer: forward, dx and dweight, up and down."""
    arena = Arena()

    def filled(*shape: int) -> np.ndarray:
        array = arena.zeros(*shape)
        array[...] = 0.001
        return array

    nothing = np.zeros((0, 1), np.float32)
    for rows, width, is_packed in micro_batches:
        for C, K in ((width, 4 * width), (4 * width, width)):
            x, weight, dy = filled(rows, C), filled(C, K), filled(rows, K)
            y, dx, dweight = filled(rows, K), filled(rows, C), filled(C, K)
            operands = [(weight, PLAIN), (weight, TRANSPOSED)]
            if is_packed:
                operands = [(packed(weight, form, arena), PACKED) for _, form in operands]
            yield x, False, *operands[0], nothing, y
            yield dy, False, *operands[1], nothing, dx
            yield x, True, dy, PLAIN, dweight, dweight


def packed(weight: np.ndarray, form: int, arena: Arena) -> np.ndarray:
    """Return a weight packed as B."""
    depth, columns = weight.shape if form == PLAIN else weight.shape[::-1]
    panels = arena.zeros(1, matmul.packed_size(depth, columns))
    matmul.pack_matrix(weight, form, panels)
    return panels


def seconds(blocks: Blocks, matmuls: Sequence[Call]) -> list[float]:
    """Return the seconds that each matmul with A across takes with these sizes."""
    scratch = matmul.make_scratch(Arena(), blocks)
    scratch[PANELS:] = 0  # Pages are given when they are first written.
    found: list[float] = []
    for call in matmuls:
        began = time.perf_counter()
        matmul.matmul(*call, scratch)
        if call[1]:
            found.append(time.perf_counter() - began)
    return found


def gains(times: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Return the speed of each choice as a multiple of the first one's.

    times[choice][round][matmul] in seconds; the geometric mean over matmuls of medians over rounds.
    """
    found = np.array(times)
    ratios = np.median(found[:1] / found, axis=1)
    return np.exp(np.log(ratios).mean(axis=1)).tolist()


def tune(
    start: Blocks,
    report: Callable[[str, float], object],
    micro_batches: Sequence[tuple[int, int, bool]] = MICRO_BATCHES,
    rounds: int = ROUNDS,
) -> tuple[Blocks, list[Tried]]:
    """Return the sizes that are best on this machine, and all trials.

    report: called with the name of the size that is varied and the part of all work that is done.
    """
    best, trials = start, list[Tried]()
    matmuls = list(calls(micro_batches))
    seconds(start, matmuls)  # Compiles, and writes all memory.
    total, done = rounds * sum(map(len, CHOICES.values())), 0
    for name, sizes in CHOICES.items():
        now = getattr(best, name)
        choices = [now, *(size for size in sizes if size != now)]
        times: list[list[list[float]]] = [[] for _ in choices]
        for turn in range(rounds):
            # Backwards in every second round: a run finds what the one before left in the caches.
            for choice in range(len(choices))[:: -1 if turn % 2 else 1]:
                times[choice].append(seconds(best._replace(**{name: choices[choice]}), matmuls))
                done += 1
                report(name, done / total)
        found = gains(times)
        fastest = max(range(len(choices)), key=found.__getitem__)
        taken = fastest if found[fastest] >= GAIN else 0
        trials += [
            Tried(name, size, gain, number == taken)
            for number, (size, gain) in enumerate(zip(choices, found, strict=True))
        ]
        best = best._replace(**{name: choices[taken]})
    return best, trials
