"""Account for each gradient of a backward: which measured terms its steps add up.

The gradient of a value is a sum with one term for each forward step that reads it. Truth measures
each of them. So a step of a backward is right if what it computes is one of these terms, or a sum
of some; and what the whole sum lacks has a name, the forward step whose term is missing.

The name d<x> says whose gradient a chain of steps should be. If forward sets x several times, or
if the chain fits no x, it is the gradient whose value it has.
"""

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.study.proof.backward_trace import BackwardTrace
from tinygpt_np.study.proof.pairing import Chain, Pair, chains, is_array
from tinygpt_np.study.proof.truth import Expected, Truth
from tinygpt_np.study.proof.verdicts import GradientVerdict, compare
from tinygpt_np.study.source.paths import differentiated, leaf
from tinygpt_np.study.source.trace import Value

Uses = tuple[int, ...]
# The forward steps that backward steps reverse, as shown by calls and comments.
Reversed = Mapping[int, Sequence[int]]
# If more terms are left, sums of three or more are not tried, only the sum of all.
MAX_TERMS = 8


@dataclass(frozen=True)
class Account:
    """The sum of the settings of a chain, as the gradient of one value.

    parts: the forward steps whose terms each setting adds; None if it adds no sum of terms.
    """

    truth: Truth
    value: Value
    chain: Chain
    parts: tuple[Uses | None, ...]

    @property
    def name(self) -> str:
        """The name that the settings set."""
        return self.chain[-1].name

    @cached_property
    def is_complete(self) -> bool:
        """Whether the last setting completes the gradient."""
        return is_equal(self.chain[-1].array, self.truth.total(self.value))

    @cached_property
    def after(self) -> list[Uses]:
        """The forward steps whose terms the sum has after each setting."""
        found, has = list[Uses](), Uses()
        for setting, part in zip(self.chain, self.parts, strict=True):
            has = (*(() if setting.fresh else has), *(part or ()))
            found.append(has)
        return found

    @cached_property
    def missing(self) -> Uses:
        """The forward steps whose terms the sum lacks in the end."""
        uses = nonzero_uses(self.truth, self.value)
        return () if self.is_complete else tuple(u for u in uses if u not in self.after[-1])

    @property
    def unexplained(self) -> list[int]:
        """The numbers of the settings that add no sum of terms."""
        return [number for number, part in enumerate(self.parts) if part is None]

    @property
    def is_partial(self) -> bool:
        """Whether every setting is right and some terms are missing."""
        return not self.unexplained and bool(self.missing)

    @property
    def overwriting(self) -> int | None:
        """The number of the first setting that overwrites a term, which is then missing."""
        steps = enumerate(itertools.pairwise(self.after), 1)
        lost = (number for number, (had, has) in steps if ({*had} - {*has}) & {*self.missing})
        return next((n for n in lost if self.chain[n].fresh), None)

    def complete_part(self) -> "Account | None":
        """Return the account up to the setting that completes the gradient, if a change follows."""
        every = nonzero_uses(self.truth, self.value)
        for number, setting in enumerate(self.chain[1:], 1):
            changes = setting.term is None and not setting.fresh
            if changes and {*self.after[number - 1]} == {*every} and not self.parts[number]:
                return replace(self, chain=self.chain[:number], parts=self.parts[:number])
        return None

    def share(self, number: int, reverses: Reversed) -> Uses:
        """Return the missing terms that an unexplained setting should add, if that is known."""

        def quoted(number: int) -> Uses:
            steps = reverses.get(self.chain[number].index, ())
            return tuple(use for use in steps if use in self.missing)[:1]

        if quoted(number):
            return quoted(number)
        taken = {use for other in self.unexplained for use in quoted(other)}
        free = tuple(use for use in reversed(self.missing) if use not in taken)
        others = [other for other in self.unexplained if not quoted(other)]
        if len(free) == len(others):
            return (free[others.index(number)],)
        return free if number == others[-1] else ()

    def sum_after(self, number: int, reverses: Reversed) -> Uses:
        """Return the forward steps whose terms the sum should have after a setting."""
        has = Uses()
        for each in range(number + 1):
            if self.chain[each].fresh and each != self.overwriting:
                has = ()
            part = self.parts[each]
            has = (*has, *(self.share(each, reverses) if part is None else part))
        return tuple(dict.fromkeys(has))

    def verdict(self, number: int, reverses: Reversed) -> GradientVerdict:
        """Return the verdict on what a setting adds, or on the sum if that shows more."""
        truth, value, setting = self.truth, self.value, self.chain[number]
        part, is_last = self.parts[number], number == len(self.chain) - 1
        total = truth.total(value)
        after = self.sum_after(number, reverses)
        if part is None and self.is_complete and is_last:
            return compare(setting.name, Pair(value, None), setting.array, total)
        if (
            part == ()
            or not after
            or (part is None and (self.is_complete or self.is_open(number, reverses)))
        ):
            verdict = compare(setting.name, Pair(value, None), 0.0, total)
            return replace(verdict, status="partial", found=setting.array)
        adds = setting.term is not None and number != self.overwriting
        uses = (part or self.share(number, reverses)) if adds else after
        adds = adds and bool(uses)
        pair = Pair(value, uses[0] if len(uses) == 1 else None)
        found, expected = setting.term if adds else setting.array, truth.sum(value, uses or after)
        verdict = compare(setting.name, pair, found, expected, is_added=adds)
        every = nonzero_uses(truth, value)
        return replace(verdict, is_term=len(every) > 1 and {*(uses or after)} != {*every})

    def is_open(self, number: int, reverses: Reversed) -> bool:
        """Return whether a later unexplained setting may complete what one computes in part."""
        is_shared = not self.share(number, reverses) and bool(self.missing)
        return is_shared and number != self.unexplained[-1]


def part_through(truth: Truth, use: int) -> str:
    """Return which part of a gradient comes through a forward step, or the return."""
    steps = truth.trace.steps
    step = truth.trace.end if use == len(steps) else steps[use]
    iteration = f" ({step.iteration})" if step.iteration else ""
    return f"line {step.statement.line}, {step.statement.text}{iteration}"


def is_equal(found: Any, expected: Expected, is_added: bool = False) -> bool:
    """Return whether an array is the expected gradient, or a term of it, which may broadcast."""
    is_near = expected.is_near(found)
    return is_near and compare("", None, found, expected, is_added=is_added).status != "wrong"


def nonzero_uses(truth: Truth, value: Value) -> Uses:
    """Return the forward steps from which a value gets a part of its gradient."""
    return tuple(use for use in truth.uses(value) if not truth.use(value, use).is_zero)


def account(truth: Truth, value: Value, chain: Chain, reverses: Reversed) -> Account:
    """Explain the settings of a chain as terms of the gradient of a value, one after the other."""
    parts, has = list[Uses | None](), Uses()
    for setting in chain:
        has = () if setting.fresh else has
        left = tuple(use for use in nonzero_uses(truth, value) if use not in has)
        adds = setting.term is not None
        found, before = (setting.term, ()) if adds else (setting.array, has)
        # A start for later terms, not a term that came out as 0.
        is_zero = found is None or (is_array(found) and not np.any(found))
        is_start = (len(chain) > 1 or setting.is_blank) and is_zero
        parts.append(None)
        for part in possible_parts(left, reverses.get(setting.index, ())):
            uses = (*before, *part)
            if is_equal(found, truth.sum(value, uses), adds) if uses else is_start:
                parts[-1], has = part, (*has, *part)
                break
    return Account(truth, value, chain, tuple(parts))


def possible_parts(left: Uses, quoted: Sequence[int]) -> Iterator[Uses]:
    """Yield the sets of terms that a setting may add, the most likely ones first."""
    yield ()
    first = tuple(use for use in quoted if use in left)
    singles = (*first, *reversed(left))
    yield from ((use,) for use in singles)
    if len(left) > 1:
        yield left
    sizes = range(2, len(left) if len(left) <= MAX_TERMS else 3)
    yield from (part for size in sizes for part in itertools.combinations(left, size))


class Accounts:
    """The accounts of a run of a backward: whose gradient each of its chains computes."""

    def __init__(self, truth: Truth, trace: BackwardTrace, reverses: Reversed) -> None:
        self.truth, self.trace, self.reverses = truth, trace, reverses
        # Later values first, because a backward starts with them.
        self.values = sorted(truth.differentiable, key=lambda value: -value.step)
        # The names of arguments' gradients that are not called d….
        self.returned = {} if trace.raised or trace.error else returned_names(truth, trace)
        self.found = list[Account]()
        for chain in chains(trace):
            named = self.named(chain[0].name)
            while chain and named:
                each = self.best(chain, named)
                self.found.append(each)
                # The rest is computed in place from a complete gradient: a mask, for example.
                chain, named = chain[len(each.chain) :], self.sources(each.value)
                chain = (replace(chain[0], fresh=True), *chain[1:]) if chain else ()

    def named(self, name: str) -> list[Value]:
        """Return the values whose gradient a name says that it is, the likeliest first."""
        bases, taken = differentiated(name), {each.value for each in self.found}
        found = [value for base in bases for value in self.values if leaf(value.name) == base]
        found = found or self.returned.get(name, [])
        return sorted(found, key=lambda value: value in taken)

    def best(self, chain: Chain, named: Sequence[Value]) -> Account:
        """Return the account of a chain, or of its first part, for the value that fits best."""
        taken = {each.value for each in self.found}
        quoted = {use for each in chain for use in self.reverses.get(each.index, ())}
        free = [value for value in named if value not in taken]
        free.sort(key=lambda value: not quoted & {*self.truth.uses(value)})
        each = list[Account]()
        for value in free or named:
            each.append(account(self.truth, value, chain, self.reverses))
            if each[-1].is_complete:
                return each[-1]
        if fits := [e for e in each if e.is_partial and any(e.after)]:
            return fits[0]
        if (start := next(filter(None, map(Account.complete_part, each)), None)) is not None:
            return start
        if not free:  # The name is used again, for the gradient of an earlier value.
            value = self.reading(chain[-1].array, taken) or self.sources(named[0])[0]
            return account(self.truth, value, chain, self.reverses)
        return each[0]

    def reading(self, array: Any, taken: Container[Value] = ()) -> Value | None:
        """Return a value whose complete gradient an array is, or None."""
        rest = (value for value in self.values if value not in taken)
        same = (
            value for value in rest if np.shape(self.truth.trace.data(value)) == np.shape(array)
        )
        return next((value for value in same if is_equal(array, self.truth.total(value))), None)

    def lacks_in_line(self, account: Account) -> bool:
        """Return whether a closed form lacks terms for which the backward has no gradient yet."""
        if len(account.chain) > 1 or len(account.parts[0] or ()) < 2:
            return False
        missing = [value for value in self.values if value.step in account.missing]
        arrays = [setting.array for chain in chains(self.trace) for setting in chain]
        return bool(missing) and not any(
            np.shape(array) == np.shape(self.truth.trace.data(value))
            and is_equal(array, self.truth.total(value))
            for value in missing
            for array in arrays
        )

    def partial_readings(self, index: int, name: str) -> Iterator[Account]:
        """Yield the accounts for which an array is a part of a gradient."""
        every = chains(self.trace)
        chain = next(c for c in every if any((s.index, s.name) == (index, name) for s in c))
        shape = np.shape(chain[-1].array)
        for value in self.values:
            if np.shape(self.truth.trace.data(value)) == shape:
                found = account(self.truth, value, chain, self.reverses)
                if found.is_partial and found.after[-1]:
                    yield found

    def sources(self, value: Value) -> list[Value]:
        """Return the values from which forward computes a value of the same shape, or itself."""
        trace, shape = self.truth.trace, np.shape(self.truth.trace.data(value))
        reads = sorted(trace.steps[value.step].statement.reads) if value.step >= 0 else []
        found = [trace.definition(name, value.step) for name in reads]
        found = [v for v in found if v in self.truth.differentiable]
        return [v for v in found if np.shape(trace.data(v)) == shape] or [value]


def returned_names(truth: Truth, trace: BackwardTrace) -> dict[str, list[Value]]:
    """Return the names of the arrays that are returned, with the argument of each."""
    try:
        found = trace.gradients(truth.target)
    except ValueError:
        return {}
    names = {id(value): name for name, value in trace.before[-1].items()}
    return {
        names[id(gradient)]: [Value(leaf, -1)]
        for leaf, gradient in found.items()
        if id(gradient) in names and gradient is not None
    }
