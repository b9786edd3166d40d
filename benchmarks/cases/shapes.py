"""Shapes: the sizes of a case, by a name or typed as N=512,C=K=384, lecture,N=64 and the like.

A new shape is a line in MICRO_BATCHES, from which each operation computes its sizes.
"""

from collections.abc import Callable
from typing import NamedTuple

Sizes = dict[str, int]


class MicroBatch(NamedTuple):
    """A micro-batch of training. uses: how many of them a step has."""

    batch: int
    time: int
    heads: int
    width: int
    vocab: int
    uses: int

    @property
    def rows(self) -> int:
        """Tokens, the rows of most arrays."""
        return self.batch * self.time


# Those of the workloads of these names; see models/workloads.py.
MICRO_BATCHES = {
    "cpu": MicroBatch(batch=3, time=64, heads=4, width=128, vocab=65, uses=4),
    "lecture": MicroBatch(batch=2, time=256, heads=6, width=384, vocab=65, uses=32),
    "gpt2": MicroBatch(batch=2, time=64, heads=12, width=768, vocab=50257, uses=2),
}
# Sizes that no vector or tile divides.
AWKWARD = {
    "N": 101, "C": 97, "K": 389, "F": 211, "V": 67, "B": 2, "T": 61, "H": 3, "D": 37, "R": 19,
    "P": 10007,
}  # fmt: skip
SHAPES = (*MICRO_BATCHES, "awkward")
USUAL = "cpu"  # The shape that sizes are of unless they are typed.
MOST = 10**9


def sizes(operation: str, of: Callable[[MicroBatch], Sizes], shape: str) -> Sizes:
    """Return the sizes of an operation, given those that it has `of` a micro-batch.

    Raises ValueError with one line if the shape is not one of this operation.
    """
    name, comma, typed = shape.partition(",")
    if "=" in name:
        name, comma, typed = USUAL, ",", shape
    if name in MICRO_BATCHES:
        found = of(MICRO_BATCHES[name])
    elif name in SHAPES:
        found = {letter: AWKWARD[letter] for letter in of(MICRO_BATCHES[USUAL])}
    else:
        known = f"{', '.join(SHAPES)} or sizes such as N=512,C=384"
        raise ValueError(f"must be {known}, not {name or 'nothing'}")
    for part in typed.split(",") if comma else ():
        *letters, number = part.replace(" ", "").split("=")
        for letter in letters or [number]:
            if letter not in found:
                known = ", ".join(found)
                raise ValueError(f"{operation} has the sizes {known}, not {letter or 'nothing'}")
            found[letter] = size(number, letter)
    return found


def size(text: str, letter: str) -> int:
    """Return a size, or raise ValueError."""
    if not (text.isdecimal() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise ValueError(f"{letter} must be from 1 to {MOST:,}, not {text or 'nothing'}")
    return int(text)
