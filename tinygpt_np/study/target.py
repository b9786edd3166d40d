"""What can be studied: a forward, its backwards, and a call of them at generic values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source import Function
from tinygpt_np.study.trace import Names

Kind = Literal["operation", "model", "own"]


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


def by_name(target: Target, returned: Any) -> dict[str, Any]:
    """The gradients that a backward returned, by the name of the argument or parameter."""
    wanted = [*target.wrt, *target.params]
    if isinstance(returned, Mapping):
        found = cast(Mapping[str, Any], returned)
        keys = {name: name if name in found else f"d{name}" for name in wanted}
        if not {*keys.values()} & {*found}:
            raise ValueError(f"the keys must be {', '.join(wanted)}, not {', '.join(found)}")
        return {name: found.get(key) for name, key in keys.items()}
    parts = list(cast(Any, returned)) if isinstance(returned, tuple | list) else [returned]
    if target.kind == "model":  # A block keeps the gradients of its parameters elsewhere.
        return dict(zip(target.wrt, parts, strict=True))
    if len(parts) != len(wanted):
        # An argument that was None has None for a gradient.
        parts = [part for part in parts if part is not None]
    if len(parts) != len(wanted):
        each = f"a gradient for each of {', '.join(wanted)}"
        raise ValueError(f"{each} is to be returned, {len(wanted)} in all, not {len(parts)}")
    return dict(zip(wanted, parts, strict=True))
