"""The exercises of the course, by level; each one is generated from a source of this package.

An exercise asks for the lines of a backward. Its forward, its derivation and the right lines are
those of the source: an operation of ops/, a warm-up, or a method of the model.
"""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tinygpt_np.learn import warm_ups
from tinygpt_np.learn.bugs import CHOSEN, ChosenBug

# lines: the gradient lines of a backward, under the forward lines that they reverse. closed: the
# same function in a short form of the learner's own. bug: a backward with one wrong line. training:
# all of the learner's backwards train a model.
Kind = Literal["lines", "closed", "bug", "training"]

LEVELS = {
    1: "warm-ups: one idea each",
    2: "line by line: the operations of GPT-2",
    3: "closed form: derive a short formula",
    4: "the model, and on the side its other operations",
    5: "bug hunt: name the wrong line, then repair it",
    6: "the last one: your backwards train a GPT",
}
# The exercises that the last one trains with.
TRAINED = (
    *("linear", "embedding", "gelu", "softmax", "cross_entropy", "layer_norm", "attention"),
    *("block", "gpt"),
)


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    name: on the command line and of its file. subject: the source that it is generated from. asked:
    the gradients to write, if some lines of the source stay; without any, all of them. is_extra:
    whether the course can be finished without it. bug: the one to hunt.
    """

    name: str
    level: int
    kind: Kind
    subject: str
    asked: tuple[str, ...] = ()
    is_extra: bool = False
    bug: ChosenBug | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.py"

    @property
    def notebook(self) -> str:
        """The name of its notebook."""
        return f"{self.name}.ipynb"


# The lines of attention that share keys and values among queries are an exercise of their own.
GROUPED = ("dvalues", "dkeys")
ATTENTION = ("dheads", "dkept", "dv", "dprobs", "dmasked", "dscores", "dproducts", "dq", "dk")


@cache
def course() -> tuple[Exercise, ...]:
    """Return all exercises in order."""
    lines = ("linear", "embedding", "gelu", "softmax", "cross_entropy", "layer_norm")
    closed = ("softmax", "cross_entropy", "layer_norm")
    more = (
        *("dropout", "relu", "relu_squared", "silu", "gelu_exact", "soft_cap", "rms_norm"),
        *("rotary", "swiglu"),
    )
    bugs = enumerate(CHOSEN, 1)
    return (
        *(Exercise(name, 1, "lines", name) for name in warm_ups.__all__),
        *(Exercise(name, 2, "lines", name) for name in lines),
        Exercise("attention", 2, "lines", "attention", (*ATTENTION, "dparts", "dqkv")),
        *(Exercise(f"{name}_closed", 3, "closed", name) for name in closed),
        *(Exercise(name, 4, "lines", name) for name in ("micro_batches", "block", "gpt")),
        *(Exercise(name, 4, "lines", name, is_extra=True) for name in more),
        Exercise("grouped_queries", 4, "lines", "attention", GROUPED, is_extra=True),
        *(Exercise(f"bug_{n:02}", 5, "bug", bug.subject, bug=bug) for n, bug in bugs),
        Exercise("training", 6, "training", ""),
    )


def find(name: str) -> Exercise:
    """Return the exercise of this name or file. Raise ValueError, which says what is close."""
    names = {each.name: each for each in course()}
    found = names.get(Path(name).name.removesuffix(".py").replace("-", "_"))
    if found is None:
        close = difflib.get_close_matches(name, names, 1)
        guess = f"did you mean {close[0]}?" if close else "tinygpt learn lists them"
        raise ValueError(f"there is no exercise {name}; {guess}")
    return found


def following(exercise: Exercise) -> Exercise | None:
    """Return the next exercise that has a notebook and is not on the side, or None."""
    later = course()[course().index(exercise) + 1 :]
    return next((each for each in later if not each.is_extra and each.kind != "training"), None)
