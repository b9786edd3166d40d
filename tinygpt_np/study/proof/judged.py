"""A run of a backward with the verdict on each gradient that its steps set and that it returns."""

from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.study.proof.accounts import Account, Accounts
from tinygpt_np.study.proof.backward_trace import BackwardTrace, param_gradients
from tinygpt_np.study.proof.pairing import Pair, reversed_steps
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import GradientVerdict, compare, nearly_equal, status_of
from tinygpt_np.study.source.paths import differentiated, leaf
from tinygpt_np.study.source.shapes import Sizes, contradicts
from tinygpt_np.study.source.trace import Value

# A name that a step sets, or a gradient that is returned, with the number of steps as its index.
Item = tuple[int, str]


class Judged:
    """The verdicts on one run of a backward.

    verdicts: on the names that steps set, and on the gradients of parameters that they store.
    numbers: the account of each name, and the number of its setting. results: the verdicts on the
    returned gradients; problem: why there are none, or "".
    """

    def __init__(self, truth: Truth, trace: BackwardTrace) -> None:
        self.truth, self.trace, self.target = truth, trace, truth.target
        steps = [each.step for each in trace.executed]
        self.reverses = reversed_steps(truth.trace, trace.function, steps)
        self.accounts = Accounts(truth, trace, self.reverses)
        self.verdicts: dict[Item, GradientVerdict] = {}
        self.numbers: dict[Item, tuple[Account, int]] = {}
        for account in self.accounts.found:
            for number, setting in enumerate(account.chain):
                item = (setting.index, setting.name)
                if setting.index >= 0:
                    verdict = account.verdict(number, self.reverses)
                    if verdict.status == "wrong" and self.may_be_continued(account, number):
                        verdict = replace(verdict, status="partial")
                    self.verdicts[item], self.numbers[item] = verdict, (account, number)
        for index, each in enumerate(trace.executed):
            for name in each.params.keys() & self.target.params.keys():
                gradient = compare(name, None, each.params[name], truth.param(name))
                self.verdicts[index, name] = gradient
        self.results: dict[str, GradientVerdict] = {}
        self.problem = "" if trace.raised else self.judge_results()

    def judge_results(self) -> str:
        """Judge the returned gradients; return why that is impossible, or ""."""
        if self.trace.error:
            return f"raises {self.trace.error}"
        try:
            found = self.trace.gradients(self.target)
        except ValueError as error:
            return str(error)
        known = {*found, *param_gradients(self.trace.before[-1])}
        found |= {name: None for name in self.target.params if name not in known}
        self.results |= {name: self.result(name, gradient) for name, gradient in found.items()}
        return ""

    def result(self, name: str, gradient: Any) -> GradientVerdict:
        """Judge what is returned for an argument, or for a parameter, without broadcasting."""
        expected, is_param = self.truth.result(name), name in self.target.params
        row = expected.compare(gradient)
        pair = None if is_param else Pair(Value(name, -1), None)
        name = name if is_param else f"d{leaf(name)}"
        return GradientVerdict(name, pair, status_of(row), row, gradient, expected)

    @property
    def pairs(self) -> dict[Item, Pair]:
        """The values whose gradients the steps set, or would have set if they had not raised."""
        found = {item: v.pair for item, v in self.verdicts.items() if v.pair is not None}
        last = len(self.trace.executed) - 1
        for name in self.trace.sets(last) if self.trace.raised else ():
            if values := self.accounts.named(name):
                found[last, name] = Pair(values[0], next(iter(self.reverses[last]), None))
        return found

    def verdicts_at(self, index: int) -> list[GradientVerdict]:
        """Return the verdicts on what a step sets and stores."""
        return [verdict for (i, _), verdict in self.verdicts.items() if i == index]

    @cached_property
    def wrong(self) -> set[Item]:
        """Wrong items: names that steps set, and returned gradients; "" stands for an error."""
        end = len(self.trace.executed)
        found = {item for item, verdict in self.verdicts.items() if verdict.status == "wrong"}
        found |= {(end, name) for name, each in self.results.items() if each.status == "wrong"}
        if self.trace.raised or self.problem:
            found.add((end - self.trace.raised, ""))
        return found

    @property
    def is_right(self) -> bool:
        """Whether all gradients of arguments and parameters are right."""
        stored = (v for v in self.verdicts.values() if v.pair is None)
        results = [*self.results.values(), *stored]
        no_error = not self.trace.raised and not self.problem
        return no_error and all(verdict.status != "wrong" for verdict in results)

    def may_be_continued(self, account: Account, number: int) -> bool:
        """Return whether a later line would have completed a gradient, had no step raised."""
        if not self.trace.raised:
            return False
        setting, raising = account.chain[number], self.trace.executed[-1].step.statement.line
        if {*self.reverses[setting.index]} & {*self.truth.uses(account.value)}:
            return False
        statements = self.trace.function.statements
        later = (s for s in statements if (s.node.end_lineno or 0) >= raising)
        return any(setting.name in statement.sets for statement in later)

    def right_value(self, item: Item) -> np.ndarray | None:
        """Return what a name should be after a step, or a returned gradient; None if unknown."""
        if item[1] in self.results and item[0] == len(self.trace.executed):
            return self.truth.result(item[1]).array
        if item not in self.numbers:
            return None
        account, number = self.numbers[item]
        uses = account.sum_after(number, self.reverses)
        if not uses:
            return np.zeros_like(self.truth.trace.data(account.value))
        return self.truth.sum(account.value, uses).array

    def unlike_forward(self, index: int) -> dict[str, tuple[Any, str]]:
        """Return the names of which forward says another value: the right value and a remark."""
        trace, found = self.truth.trace, dict[str, tuple[Any, str]]()
        for name, value in self.trace.executed[index].values.items():
            # The name _ stands for a value that is not used.
            is_named = name != "_"
            right = [trace.data(v) for v in trace.values() if v.name == name and is_named]
            if right and not any(nearly_equal(value, each) for each in right):
                found[name] = right[-1], f"{name} is not what it was in forward"
            for base in differentiated(name) if value is not None else ():
                same = [trace.data(each) for each in trace.values() if leaf(each.name) == base]
                if same and same[-1] is None:
                    found[name] = None, f"{base} is None, so {name} must be None"
            verdict = self.verdicts.get((index, name))
            if verdict is not None and verdict.pair is not None and verdict.status == "right":
                shape, wanted = np.shape(cast(Any, value)), verdict.expected.value.shape
                if shape != wanted and (array := self.right_value((index, name))) is not None:
                    base = verdict.pair.value.name
                    found[name] = array, f"{name} has the shape {shape}, and {base} has {wanted}"
        return found

    @cached_property
    def comments(self) -> dict[int, str]:
        """The differences of steps from their comments; a letter stands for the same size."""
        sizes, found = Sizes(), dict[int, str]()
        for index, executed in enumerate(self.trace.executed):
            stated = executed.step.statement.shape
            values: list[Any] = [*executed.values.values()]
            shapes = [np.shape(cast(Any, v)) for v in values if isinstance(v, np.ndarray)]
            if stated and len(shapes) == 1 and contradicts(stated, shapes[0], sizes):
                found[index] = f"the comment says {stated}, but the shape is {shapes[0]}"
        return found

    def fused(self, index: int) -> list[Item]:
        """Return the names without a verdict on which a step, or the return, depends directly."""
        found, todo = dict[Item, None](), [index]
        forward = {value.name for value in self.truth.trace.values()}
        while todo:
            for source in reversed(self.trace.sources(todo.pop())):
                names = self.trace.sets(source)
                if not any((source, n) in self.verdicts or n in forward for n in names):
                    found |= {(source, name): None for name in names}
                    todo.append(source)
        return [*found]
