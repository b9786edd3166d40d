"""What can be studied: a forward, its backwards, and a call of them at generic values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tinygpt_np.study.source import Function
from tinygpt_np.study.trace import Names

Kind = Literal["operation", "model", "own"]
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """A forward and its backwards, the one that goes line for line first.

    name: as typed; title: for people; where: the file. module: the names of its module. args: of
    the call of forward, by name; wrt: which of them have a gradient. params: what else has one, by
    name; with_params: the args with other params. given: the arguments of a backward besides the
    upstream gradient and what was saved, made anew for each run. seed: of the upstream gradient.
    functions: forward and the backwards as they run, where their manners are to be looked at.
    others: the other ways to call it, as without a bias.
    """

    name: str
    title: str
    kind: Kind
    where: str
    docstring: str
    forward: Function
    backwards: tuple[Function, ...]
    module: Names
    args: Names
    wrt: tuple[str, ...]
    seed: int = 0
    params: Tensors = field(default_factory=dict[str, np.ndarray])
    with_params: Callable[[Tensors], Names] | None = None
    given: Callable[[], Names] = dict
    functions: tuple[Callable[..., Any], ...] = ()
    others: tuple["Target", ...] = ()
