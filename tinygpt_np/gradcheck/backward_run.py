"""Run a backward several times, and find the rules that it breaks."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.calls import ForwardCall, check_callable, copied, describe, same_bits
from tinygpt_np.gradcheck.rounding import Rounding, noisy_view
from tinygpt_np.gradcheck.tree import (
    Args,
    Gradients,
    is_floating,
    leaves,
    map_leaves,
    with_gradient,
)

# The same numbers in another memory layout, or in memory that cannot be written.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array.copy(),
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "Fortran-ordered": lambda array: array.copy(order="F"),
    "read-only": lambda array: np.broadcast_to(array.copy(), array.shape),
}

# A function is steep where its gradient is larger than usual by this factor.
STEEP = 100


class BackwardRun:
    """The gradients of a backward, and the rules it broke, found by running it several times.

    gradients, problems: by the leaf of the arguments. names: the leaves to be compared, which are
    those with a gradient if the caller of the check named none. in_layouts: the gradients for each
    other memory layout of the inputs, or the error raised. in_broadcast: what is wrong only for
    inputs that are broadcast. rounding: how far rounding moves the gradients.
    """

    def __init__(
        self, call: ForwardCall, backward: Callable[..., Any], upstream: Mapping[str, np.ndarray]
    ) -> None:
        check_callable("backward", backward)
        self.call, self.backward, self.upstream = call, backward, upstream
        self.noted, self.names = list[tuple[str, str]](), tuple[str, ...]()
        self.rounding = Rounding(self.with_noise)
        args, douts = copied(call.args), copied(upstream)
        out, run = call.start(backward, args, douts)
        self.note_changes(args, douts, "forward")
        first = run()
        self.names = call.wrt if call.are_chosen else with_gradient(call.args, call.wrt, first)
        self.note_changes(args, douts, "backward")
        self.gradients = copied(first)
        self.noted += memory_shared(first, {**self.inputs(args, douts), **out})
        self.run_again(run, first)
        self.problems = dict[str, list[str]]()
        for name, problem in self.noted:
            # One that concerns no gradient is shown with the first.
            name = name if name in self.names else self.names[0]
            self.problems.setdefault(name, []).append(problem)
        self.in_layouts = {
            layout: self.run_with(partial(self.in_layout, change))
            for layout, change in LAYOUTS.items()
        }
        # Others are refused before their values are looked at.
        self.compared = [name for name in self.names if is_floating(first.get(name))]
        self.in_broadcast = self.broadcast_differences()

    def with_noise(self) -> Gradients:
        """Return the gradients in float64, with noise added to every operation."""

        def noisy(name: str, leaf: Any) -> Any:
            return noisy_view(np.array(leaf, np.float64)) if is_floating(leaf) else leaf

        args, douts = (map_leaves(noisy, copied(x)) for x in (self.call.args, self.upstream))
        return self.call.gradients(self.backward, args, douts)

    def run_again(self, run: Callable[[], Gradients], first: Gradients) -> None:
        """Note how further runs of the backward differ from the first one."""
        call = self.call
        # An object may add up gradients in its attributes.
        first = {name: first[name] for name in first if name not in call.held}
        second = self.repeat(run, first, "a second backward", "the first changed what was saved")
        if call.convention.has_saved and not self.noted:
            # Flipped arguments have the same shapes and kinds, so hardly any forward refuses them.
            flipped = map_leaves(lambda n, x: np.flip(x) if n in call.wrt else x, call.args)
            with contextlib.suppress(Exception):
                call.call(call.forward, copied(flipped))
            self.repeat(run, first, "after another forward it", "that changed what was saved")
        noted = {name for name, _ in self.noted}
        for name, gradient in first.items():
            if name not in noted and shares_memory(gradient, second.get(name)):
                self.noted.append((name, "a second backward overwrites the gradient of the first"))

    def repeat(
        self, run: Callable[[], Gradients], first: Gradients, what: str, why: str
    ) -> Gradients:
        """Run the backward again and note each gradient that differs from the first run."""
        try:
            found = run()
        except Exception as error:
            self.noted.append(("", f"{what} raises {describe(error)}: {why}"))
            return {}
        for name in first:
            if not same_bits(found.get(name), self.gradients[name]):
                self.noted.append((name, f"{what} differs: {why}"))
        return found

    def in_layout(self, change: Callable[[np.ndarray], np.ndarray], name: str, leaf: Any) -> Any:
        """Return a leaf, in another memory layout if it is an array that is given to backward."""
        is_given = self.is_input(name) and isinstance(leaf, np.ndarray)
        return cast(Any, change(cast(Any, leaf)) if is_given else leaf)

    def is_input(self, name: str) -> bool:
        """Return whether a leaf is only read; objects may set attributes other than parameters."""
        return name in self.call.inputs or name in self.names or name in self.upstream

    def broadcast_differences(self) -> Gradients:
        """Return how gradients for broadcast inputs (stride 0) differ from those for copies.

        The rows of such an input are equal, which may magnify rounding errors. Two kinds of copies
        show how far.
        """
        wrong: Gradients = {}
        for names in (self.upstream, self.call.wrt):

            def broadcast(finish: Any, name: str, leaf: Any, names: Any = names) -> Any:
                has_rows = name in names and np.ndim(leaf) > 0
                return finish(np.broadcast_to(leaf[:1], leaf.shape)) if has_rows else leaf

            expected, again, found = (
                self.run_with(partial(broadcast, finish))
                for finish in (np.copy, np.asfortranarray, np.asanyarray)
            )
            # Forward may refuse equal rows, or not be smooth there.
            if isinstance(expected, str) or isinstance(again, str) or self.is_steep(expected):
                continue
            for name in self.compared:
                here = found if isinstance(found, str) else found.get(name)
                usual = self.gradients[name]
                if problem := difference(here, expected[name], again[name], usual):
                    wrong.setdefault(name, problem)
        return wrong

    @np.errstate(over="ignore")
    def is_steep(self, gradients: Gradients) -> bool:
        """Return whether gradients are much larger than the usual ones, or not finite."""
        return not all(
            np.linalg.norm(gradients.get(name, np.nan))
            <= STEEP * np.linalg.norm(self.gradients[name])
            for name in self.compared
        )

    def run_with(self, change: Callable[[str, Any], Any]) -> Gradients | str:
        """Return the gradients for changed leaves of the inputs, or the error that is raised."""
        args, douts = (map_leaves(change, copied(x)) for x in (self.call.args, self.upstream))
        try:
            return self.call.gradients(self.backward, args, douts)
        except Exception as error:
            return f"it raises {describe(error)}"

    def inputs(self, args: Args, douts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return what a backward was given, by name; the upstream gradient is dout."""
        given = {name: leaf for name, leaf in leaves(args).items() if self.is_input(name)}
        return given | {f"d{name}": dout for name, dout in douts.items()}

    def note_changes(self, args: Args, douts: Mapping[str, np.ndarray], culprit: str) -> None:
        """Record the inputs that were changed, and restore them."""
        before = self.inputs(self.call.args, self.upstream)
        for name, now in self.inputs(args, douts).items():
            then: Any = before.get(name)
            if isinstance(then, np.ndarray) and not same_bits(now, then):
                self.noted.append((name, f"{culprit} changes its input {name}"))
                if np.shape(now) == np.shape(cast(Any, then)):
                    now[...] = then


def memory_shared(gradients: Gradients, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the gradients that share memory with an input or another gradient, and a message."""
    others = dict(inputs)
    for name, gradient in gradients.items():
        for other, array in others.items():
            if shares_memory(gradient, array):
                yield name, f"the gradient shares its memory with {other}"
        others[f"the gradient of {name}"] = gradient


def shares_memory(a: Any, b: Any) -> bool:
    """Return whether both are arrays and have memory in common."""
    arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return arrays and np.shares_memory(cast(Any, a), cast(Any, b))


# The norm of a gradient of 1e200 overflows.
@np.errstate(over="ignore")
def difference(found: Any, expected: Any, again: Any, usual: Any) -> str:
    """Return how a gradient differs from the expected one by more than rounding, or "".

    found: the gradient, or the error that was raised. again: the expected one from other memory.
    usual: the gradient at generic inputs; its norm says how large rounding errors are.
    """
    if isinstance(found, str):
        return found
    if not np.shape(found) == np.shape(expected) == np.shape(again):
        return f"the shape must be {np.shape(expected)}, not {np.shape(found)}"
    size = max(float(np.linalg.norm(expected)), float(np.linalg.norm(usual)))
    eps = float(np.finfo(np.asarray(expected).dtype).eps)
    allowed = 100 * float(np.linalg.norm(expected - again)) + eps**0.5 * size
    error = float(np.linalg.norm(found - expected))
    return "" if error <= allowed else f"off by {error / size:.2g} of its norm"
