"""Find the mistakes in a wrong backward: the places where a right value makes the rest right.

The steps run in order, so the first wrong value is looked at first. Its right value is known if
it is the gradient of a value, or a value of forward. It is corrected, and the backward runs again.
If something becomes right and nothing wrong, the step has a mistake; what is right now was wrong
only as a consequence. This is repeated until the returned gradients are right.

A name without a verdict, such as a dz of a forward that has no z, has the mistake if the gradients
that are computed from it overdetermine its value, and another value of it makes them right.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.causes import likely_cause
from tinygpt_np.study.proof.accounts import Account, Uses, part_through
from tinygpt_np.study.proof.backward_trace import BackwardTrace
from tinygpt_np.study.proof.judged import Item, Judged
from tinygpt_np.study.proof.pairing import Pair, is_array
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import GradientVerdict, compare
from tinygpt_np.study.source.trace import Namespace

# Right values by the step that sets them.
Corrections = Mapping[int, Namespace]
# Larger arrays without a verdict are not solved for.
MAX_UNKNOWNS = 400
# The relative accuracy to which such an array must make the gradients right.
ACCURACY = 1e-8


@dataclass(frozen=True)
class Mistake:
    """A step with a mistake, or after which a line is missing.

    values: what names that it sets should be. later: the same for later steps that repeat the
    mistake. verdicts: on the names, given right inputs. missing: the forward steps whose terms are
    missing, if no line that is there is wrong.
    """

    index: int
    values: Namespace
    message: str = ""
    cause: str = ""
    verdicts: tuple[GradientVerdict, ...] = ()
    missing: Uses = ()
    later: Corrections = field(default_factory=dict[int, Namespace])

    @property
    def names(self) -> list[str]:
        """The names that are wrong."""
        return [*self.values] or [verdict.name for verdict in self.verdicts]


class Blame:
    """The mistakes of a backward, and the verdicts on a run in which they are corrected.

    run: runs the backward with corrections.
    """

    def __init__(
        self, truth: Truth, judged: Judged, run: Callable[[Corrections], BackwardTrace]
    ) -> None:
        self.truth, self.judged, self.run = truth, judged, run
        self.end = len(judged.trace.executed) - judged.trace.raised
        self.mistakes = list[Mistake]()
        self.corrections: dict[int, Namespace] = {}
        # Items explained by a correction, or because they depend on one that cannot be corrected.
        self.explained = set[Item]()
        while (found := self.next()) is not None:
            mistake, self.judged = found
            self.mistakes.append(mistake)
            self.corrections = self.corrected(mistake)
            self.explained |= self.items(mistake)

    @property
    def left(self) -> set[Item]:
        """The items that are still wrong."""
        return self.wrong(self.judged) - self.explained

    def wrong(self, judged: Judged) -> set[Item]:
        """Return what is wrong, up to the step that raised before anything was corrected."""
        return {item for item in judged.wrong if item[0] <= self.end}

    def items(self, mistake: Mistake) -> set[Item]:
        """Return what a mistake explains without running the backward again."""
        names = (*mistake.values, *(verdict.name for verdict in mistake.verdicts))
        own = {(mistake.index, name) for name in names}
        if not mistake.missing:
            # Items that depend on other names of the step, whose right values are not known.
            trace = self.judged.trace
            others = {n for n in trace.sets(mistake.index) if (mistake.index, n) not in own}
            others -= {name for index, name in self.judged.verdicts if index == mistake.index}
            steps = [each.step.statement.mentions for each in trace.executed]
            own |= {(i, n) for i, n in self.judged.wrong if i < len(steps) and others & steps[i]}
        if mistake.values or any(verdict.pair is None for verdict in mistake.verdicts):
            return own
        # The right values are not known, so what depends on them cannot be judged.
        ancestors = self.judged.trace.ancestors
        return own | {item for item in self.judged.wrong if mistake.index in ancestors(item[0])}

    def corrected(self, mistake: Mistake) -> dict[int, Namespace]:
        """Return the corrections with those of a mistake."""
        found = {index: dict(values) for index, values in self.corrections.items()}
        for index, values in (*mistake.later.items(), (mistake.index, mistake.values)):
            found.setdefault(index, {}).update(values)
        return found

    def next(self) -> tuple[Mistake, Judged] | None:
        """Return the first mistake that is left, and the verdicts with its correction."""
        for mistake in () if self.judged.is_right else self.possible_mistakes():
            judged = Judged(self.truth, self.run(self.corrected(mistake)))
            left = self.wrong(judged) - self.explained - self.items(mistake)
            if left < self.left:
                return mistake, judged
        return None

    def possible_mistakes(self) -> Iterator[Mistake]:
        """Yield what may be a mistake, in the order in which the steps run."""
        judged, trace = self.judged, self.judged.trace
        end = len(trace.executed)
        # A wrong value that is not used makes nothing else wrong.
        used = {*range(end)} if trace.raised else {*trace.ancestors(end), end}
        used |= {index for (index, _), verdict in judged.verdicts.items() if verdict.pair is None}
        chains = (account.chain for account in judged.accounts.found)
        used |= {each.index for chain in chains if chain[-1].index in used for each in chain}
        incomplete = {
            (account.chain[-1].index, account.name): account
            for account in judged.accounts.found
            if account.is_partial and account.overwriting is None
        }
        indices = {index for index, _ in (*self.left, *incomplete) if index >= 0}
        for index in sorted(indices & used):
            wrong = [name for i, name in sorted(self.left) if i == index]
            if wrong:
                yield from self.unlike_forward(index)
                yield from self.unknowns(index)
            own = [name for name in wrong if (index, name) in judged.verdicts]
            if own:
                yield from self.own(index, own)
            for (i, name), account in incomplete.items():
                if i == index and name not in self.corrections.get(index, {}):
                    yield self.incomplete(index, account)

    def own(self, index: int, wrong: Sequence[str]) -> Iterator[Mistake]:
        """Yield a mistake in a step that sets wrong names."""
        judged = self.judged
        verdicts = tuple(judged.verdicts[index, name] for name in wrong)
        choices = [
            self.right_values(index, name) for name in wrong if (index, name) in judged.numbers
        ]
        for choice in itertools.product(*choices) if choices else [()]:
            values = {v.name: array for v, array in choice if array is not None}
            better = {v.name: v for v, _ in choice}
            best = tuple(better.get(verdict.name, verdict) for verdict in verdicts)
            yield Mistake(
                index, values, best[0].problem, best[0].row.cause, best,
                later=self.overwritten(index, wrong),
            )  # fmt: skip

    def overwritten(self, index: int, names: Sequence[str]) -> dict[int, Namespace]:
        """Return the complete sums after later steps that overwrite terms as well."""
        found = dict[int, Namespace]()
        for name in names:
            account, number = self.judged.numbers.get((index, name), (None, 0))
            if account is not None and account.overwriting == number:
                total = self.truth.total(account.value).array
                found |= {account.chain[-1].index: {name: total}} if total is not None else {}
        return found

    def right_values(self, index: int, name: str) -> list[tuple[GradientVerdict, Any]]:
        """Return what a name should be, the most likely value first, each with a verdict."""
        judged = self.judged
        account, number = judged.numbers[index, name]
        found = [(judged.verdicts[index, name], judged.right_value((index, name)))]
        uses = account.sum_after(number, judged.reverses)
        if len(account.chain) == 1 < len(uses) and not judged.reverses[index]:
            # A later step may add the other terms.
            for use in reversed(uses):
                term = self.truth.use(account.value, use)
                pair = Pair(account.value, use)
                verdict = compare(name, pair, account.chain[0].array, term)
                found.append((replace(verdict, is_term=True), term.array))
        return found

    def incomplete(self, index: int, account: Account) -> Mistake:
        """Return the mistake that terms of a gradient are missing."""
        total, name = self.truth.total(account.value), account.name
        verdict = compare(name, Pair(account.value, None), account.chain[-1].array, total)
        values = {} if total.array is None else {name: total.array}
        if self.judged.accounts.lacks_in_line(account):
            parts = " and ".join(part_through(self.truth, use) for use in account.missing)
            message = f"{verdict.problem}; it lacks the term through {parts}"
            return Mistake(index, values, message, verdicts=(verdict,))
        return Mistake(index, values, verdicts=(verdict,), missing=account.missing)

    def unlike_forward(self, index: int) -> Iterator[Mistake]:
        """Yield the earlier steps that set a name to another value than forward says."""
        known = {value.name for value in self.truth.trace.values()}
        for source in self.judged.trace.ancestors(index):
            found, held = (
                self.judged.unlike_forward(source),
                self.judged.trace.executed[source].values,
            )
            values = {name: right for name, (right, _) in found.items()}
            # Unpacked in the wrong order: another name has what one of these should have.
            others = [name for name in held if name not in known | {*found}]
            swapped = {other: held[name] for other, name in zip(others, found, strict=False)}
            if values and not values.keys() & self.corrections.get(source, {}).keys():
                remark = next(remark for _, remark in found.values())
                yield from (Mistake(source, values | more, remark) for more in (swapped, {}))
            elif remark := self.judged.comments.get(source, ""):
                yield Mistake(source, {}, remark)

    def unknowns(self, index: int) -> Iterator[Mistake]:
        """Yield the mistakes in names without a verdict from which a step computes a gradient."""
        judged, trace = self.judged, self.judged.trace
        for source, name in judged.fused(index):
            array = trace.executed[source].values.get(name)
            is_known = name in self.corrections.get(source, {})
            if is_known or not is_array(array) or judged.accounts.reading(array) is not None:
                continue
            for account in judged.accounts.partial_readings(source, name):
                yield self.incomplete(account.chain[-1].index, account)
            if (solved := self.solved(source, name)) is not None:
                size = float(np.linalg.norm(solved)) or 1.0
                error = float(np.linalg.norm(solved - array)) / size
                cause = likely_cause(np.asarray(array), solved, self.truth.sizes, ACCURACY)
                users = ", ".join(sorted({user for _, user in self.readers(source, name)}))
                message = f"{name}: off by {error:.2g} of its norm, judged by what {users} need"
                yield Mistake(source, {name: solved}, message, cause)

    def readers(self, index: int, name: str) -> list[Item]:
        """Return the gradients that are computed from a name without a verdict."""
        judged, end = self.judged, len(self.judged.trace.executed)
        items = [*judged.verdicts, *((end, leaf) for leaf in judged.results)]
        return [item for item in items if (index, name) in judged.fused(item[0])]

    def solved(self, index: int, name: str) -> np.ndarray | None:
        """Return the other value of a name that makes all gradients right that use it, or None.

        If only one of them is wrong, that one may use the name with the wrong sign, or twice; then
        the mistake is there.
        """
        judged, trace = self.judged, self.judged.trace
        start = np.asarray(trace.executed[index].values[name])
        readers = self.readers(index, name)
        right = [judged.right_value(item) for item in readers]
        expected = [each for each in right if each is not None]
        if not readers or start.size > MAX_UNKNOWNS or len(expected) < len(right):
            return None
        # Other wrong gradients are corrected, so that only this name is unknown.
        corrections = {i: dict(values) for i, values in self.corrections.items()}
        for i, leaf in self.left:
            if i > index and (right := judged.right_value((i, leaf))) is not None:
                corrections.setdefault(i, {}).setdefault(leaf, right)

        def gradients(value: np.ndarray) -> np.ndarray | None:
            trace = self.run({**corrections, index: {**corrections.get(index, {}), name: value}})
            found = [found_value(self.truth, trace, item) for item in readers]
            same = all(np.shape(a) == np.shape(b) for a, b in zip(found, expected, strict=True))
            return np.concatenate([np.ravel(each) for each in found]) if same else None

        found = solve(gradients, start, np.concatenate([np.ravel(each) for each in expected]))
        if found is None or sum(item in self.left for item in readers) > 1:
            return found
        is_ambiguous = any(np.allclose(found, factor * start, ACCURACY) for factor in (-1, 0.5))
        return None if is_ambiguous else found


def found_value(truth: Truth, trace: BackwardTrace, item: Item) -> Any:
    """Return what a step set, or what was returned."""
    index, name = item
    if index < len(trace.executed):
        return trace.executed[index].values.get(name)
    try:
        return trace.gradients(truth.target).get(name)
    except ValueError:
        return None


@np.errstate(all="ignore")
def solve(
    outputs: Callable[[np.ndarray], np.ndarray | None], start: np.ndarray, target: np.ndarray
) -> np.ndarray | None:
    """Return the input for which affine outputs are the target.

    None if there is no such input, or if there is one for every target, so that it tells nothing.
    """
    base, scale = outputs(start), max(1.0, float(np.abs(start).max(initial=0.0)))
    if base is None or not np.isfinite(base).all():
        return None
    columns = list[np.ndarray]()
    for number in range(start.size):
        moved = start.astype(float)
        moved.flat[number] += scale
        if (there := outputs(moved)) is None:
            return None
        columns.append((there - base) / scale)
    matrix = np.stack(columns, axis=1)
    if not np.isfinite(matrix).all():
        return None
    step, _, rank, _ = np.linalg.lstsq(matrix, target - base)
    found = start + step.reshape(start.shape)
    reached = outputs(found)
    if rank == matrix.any(axis=1).sum() or reached is None:
        return None
    return found if np.linalg.norm(reached - target) <= ACCURACY * np.linalg.norm(target) else None
