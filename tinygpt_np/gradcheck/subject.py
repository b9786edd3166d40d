"""The subject of a derivative: a loss as a function of named tensors, at a point."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.oracles import EPS, Curve
from tinygpt_np.gradcheck.probes import typical
from tinygpt_np.gradcheck.rounding import FACTOR, Rounding, bare, noisy_view
from tinygpt_np.storage.parameters import Tensors


@dataclass(frozen=True)
class Subject:
    """A loss as a function of named tensors, and the point at which it is differentiated.

    terms: takes the tensors in float64 or complex128 and returns an array, whose sum is the loss.
    values: the tensors, in float64. eps: machine epsilon of the dtype in which the gradients to be
    checked were computed.
    """

    terms: Callable[[Tensors], Any]
    values: Tensors
    eps: float = EPS

    def curve(self, directions: Tensors, *, noisy: bool = False) -> Curve:
        """Return t ↦ terms with each tensor moved by t·direction, perhaps computed with noise."""

        def terms(t: Any) -> np.ndarray:
            moved = {name: self.values[name] + t * along for name, along in directions.items()}
            at = {**self.values, **moved}
            at = {name: noisy_view(each) for name, each in at.items()} if noisy else at
            return np.ravel(bare(self.terms(at)))

        return terms

    @cached_property
    def size(self) -> float:
        """The sum of the absolute values of the terms at the point."""
        return float(np.abs(self.curve({})(0.0)).sum())

    @cached_property
    def rounding(self) -> np.ndarray:
        """The rounding error of each term; 0 if it is unknown."""
        known = Rounding(lambda: {"": self.curve({}, noisy=True)(0.0)}).of("")
        # The typical error: the largest, which FACTOR allows, would hide small slopes.
        return np.zeros(1) if known is None else FACTOR / 8 * EPS * known

    def size_of(self, name: str) -> float:
        """Return the size of the loss relative to the typical value of a tensor, or to 1."""
        return self.size / min(typical(self.values[name]), 1.0)
