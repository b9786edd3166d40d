"""The parameters that a user's kernel may have, and the operation that they fit.

A kernel takes the arrays of a case, inputs then outputs, or in Python the inputs only if it returns
the outputs. It may also take sizes by their letters, `threads`, the numbers of AdamW, and what an
untimed function has `saved`. If parameters have these names, their order is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks import cases
from benchmarks.cases import Direction, adamw
from benchmarks.cases.shapes import USUAL
from tinygpt_np.config import ADAM_EPSILON

THREADS, SAVED = "threads", "saved"
# The arrays of int64; all others are of float32.
INTEGERS = ("targets",)
NUMBERS = {
    "adamw": {
        "scale": adamw.SCALE, "learning_rate": adamw.LEARNING_RATE,
        "weight_decay": adamw.WEIGHT_DECAY, "beta1": adamw.BETA1, "beta2": adamw.BETA2,
        "epsilon": ADAM_EPSILON,
        "correction1": adamw.CORRECTION1, "correction2": adamw.CORRECTION2,
    }
}  # fmt: skip


class Parameter(NamedTuple):
    """A parameter of a function, with its type in C such as "float *"."""

    name: str
    type: str = ""


@dataclass(frozen=True)
class Signature:
    """The parameters that a kernel of an operation in one direction may have."""

    operation: str
    direction: str

    @property
    def how(self) -> Direction:
        """Shapes of the inputs and outputs."""
        return cases.module(self.operation).DIRECTIONS[self.direction]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Inputs, then outputs."""
        return (*self.how.inputs, *self.how.outputs)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The letters of the sizes."""
        return tuple(cases.sizes(self.operation, USUAL))

    @property
    def numbers(self) -> dict[str, float]:
        """Numbers that the formula needs, by name."""
        return NUMBERS.get(self.operation, {})

    @property
    def identifier(self) -> str:
        """The direction as a name in Python and C."""
        return self.direction.replace(" ", "_")

    @property
    def savable(self) -> tuple[str, ...]:
        """The inputs of a backward from which something may be saved, untimed."""
        return () if self.direction == "forward" else self.how.known

    def parameters(self, in_c: bool) -> list[Parameter]:
        """Return what a kernel takes, except threads and what was saved."""
        if not in_c:
            return [Parameter(name) for name in (*self.arrays, *self.numbers)]
        arrays = [Parameter(name, self.pointer(name)) for name in self.arrays]
        numbers = [Parameter(name, "float") for name in self.numbers]
        return [*arrays, *numbers, *(Parameter(letter, "int64_t") for letter in self.sizes)]

    def pointer(self, name: str) -> str:
        """Return the type of an array in C."""
        constant = name in self.how.inputs and name not in self.how.changed
        return f"{'const ' * constant}{'int64_t' if name in INTEGERS else 'float'} *"

    def by_name(self, parameters: Sequence[Parameter]) -> list[str] | None:
        """Return the names of the parameters if these are names of what a kernel takes."""
        names = [parameter.name for parameter in parameters]
        arrays = {*names} - {*self.numbers, *self.sizes, THREADS, SAVED}
        returns = arrays == {*self.how.inputs} and not any(each.type for each in parameters)
        fits = len({*names}) == len(names) and (arrays == {*self.arrays} or returns)
        return names if fits and SAVED not in names[:-1] else None

    def by_position(self, parameters: Sequence[Parameter]) -> list[str] | None:
        """Return what the parameters stand for if there are as many as a kernel takes."""
        more = [each.name for each in parameters[-2:] if each.name in (THREADS, SAVED)]
        full = [each.name for each in self.parameters(any(each.type for each in parameters))]
        for values in (full, [*self.arrays]):
            if len(values) + len(more) == len(parameters):
                return [*values, *more]
        return None

    def definition(self, function: str, in_c: bool) -> str:
        """Return the first line of a kernel."""
        parameters = ", ".join(
            f"{each.type} {each.name}".replace("* ", "*").strip() for each in self.parameters(in_c)
        )
        return f"{'void' if in_c else 'def'} {function}({parameters})"


def signatures(operations: Sequence[str]) -> list[Signature]:
    """Return the signatures of all directions of operations."""
    return [
        Signature(operation, direction)
        for operation in operations
        for direction in cases.directions(operation)
    ]
