"""`tinygpt gradcheck`: check gradients numerically, or the checks against planted bugs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from tinygpt_np.cli.flags import Argument, Switch
from tinygpt_np.config import require
from tinygpt_np.gradcheck.command import run_mutants, run_suite
from tinygpt_np.gradcheck.measure import Method


@dataclass(frozen=True, kw_only=True)
class Gradcheck:
    """Check every hand-written gradient against a numerical one.

    The exit status is 1 if any is wrong.
    """

    names: Annotated[tuple[str, ...], Argument("NAME", positional=True)] = ()
    """An operation (softmax, ...), block, bigram, gpt or step, tensor by tensor; by default
    everything, one line per check."""
    method: Method = "complex"
    """The oracle: complex step, central differences, Richardson extrapolation, Taylor slope."""
    seed: int = 0
    """Seed of the weights, inputs, upstream gradients and directions."""
    json: Switch = False
    """Print the results as JSON."""
    mutants: Switch = False
    """Plant each bug in turn and show which checks detect it."""
    libraries: Switch = False
    """Also use the checks of PyTorch, JAX and autograd, if they are installed; minutes more."""
    html: Annotated[Path | None, Argument("FILE")] = None
    """Also write the matrix of bugs and checks as an HTML page."""

    def __post_init__(self) -> None:
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2**32)")

    def execute(self, console: Console) -> None:
        """Check gradients, or the checks; exit with 1 if something is wrong."""
        if self.mutants and self.method != "complex":
            raise ValueError("--mutants tries every oracle; leave out --method")
        if self.libraries and not self.mutants:
            raise ValueError("--libraries tries checks on planted bugs; it goes with --mutants")
        if self.html is not None and not self.mutants:
            raise ValueError("--html shows the matrix of planted bugs; it goes with --mutants")
        if self.mutants:
            right = run_mutants(
                self.names, self.seed, self.libraries, self.json, self.html, console
            )
        else:
            right = run_suite(self.names, self.method, self.seed, self.json, console)
        if not right:
            sys.exit(1)
