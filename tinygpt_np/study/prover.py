"""Proves a backward: runs it line by line, and holds each gradient against its truth.

A line is wrong if what it sets is not the gradient. A name that stands in forward too must hold
what it held there; that it does not is held against it only if a gradient is wrong. Who is to blame
for what is wrong, blame.py tells.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.function_check import BackwardRun, FunctionCheck
from tinygpt_np.study.blame import blame
from tinygpt_np.study.pairing import Pair, pair, undone_steps
from tinygpt_np.study.proof import Gradient, Line, Proof, alike, best, judged, problem
from tinygpt_np.study.shapes import Letters, disagreement
from tinygpt_np.study.source import Function
from tinygpt_np.study.target import by_name
from tinygpt_np.study.trace import Names, Value, compiled
from tinygpt_np.study.truth import Expected, Truth
from tinygpt_np.study.undo import Undone, gradients_kept, undo


def prove(truth: Truth, function: Function, callable_: Callable[..., Any] | None = None) -> Proof:
    """Runs a backward line by line and judges it. callable_: it, where its manners count too."""
    prover = Prover(truth, function)
    lines = [prover.line(index) for index in range(len(prover.undone.moments))]
    if not prover.undone.raised:
        lines.append(prover.returned())
        prover.note_missing_parts(lines)
        if is_right_in_the_end(lines):
            lines = [excused(line) for line in lines]
    lines = blame(truth, prover.undone, lines)
    if all(line.status != "wrong" for line in lines):
        note_spoiling(lines, prover.undone)
    if callable_ is not None and all(line.status != "wrong" for line in lines):
        note_manners(lines, truth, callable_)
    return Proof(function, (*lines, *unreached(prover)), prover.undone)


class Prover:
    def __init__(self, truth: Truth, function: Function) -> None:
        self.truth, self.function = truth, function
        target, (upstream, saved) = truth.target, upstream_and_saved(function)
        defaults = defaults_of(function, target.module)
        # Copies, because a wrong backward may change what it is given.
        given = {upstream: truth.doutput.copy(), saved: copy.deepcopy(truth.saved)}
        # It may divide by zero, too; what comes of it is judged below.
        with np.errstate(all="ignore"):
            self.undone = undo(function, target.module, {**defaults, **given, **target.given()})
        steps = [moment.step for moment in self.undone.moments]
        self.undoes = undone_steps(truth.trace, function, steps)
        self.pairs = pair(truth.trace, truth.flowing, steps, self.undoes)
        # What each gradient has gathered so far should come to.
        self.gathered: dict[Value, Expected] = {}
        for value in {each.value for each in self.pairs.values()}:
            self.pairs |= self.by_fit(value)
        self.letters = Letters()
        self.forward_names = {value.name: value for value in truth.trace.values()}

    def line(self, index: int) -> Line:
        moment = self.undone.moments[index]
        statement = moment.step.statement
        gradients = (*self.gradients(index), *self.params(index))
        pairs = [p for name in statement.sets if (p := self.pairs.get((index, name)))]
        uses = [p.use for p in pairs if p.use is not None]
        line = Line(
            moment.step, statement.line, statement.text, statement.shape,
            next(iter([*uses, *self.undoes[index]]), None), gradients, moment.values,
            best(gradients), fused=self.fused(index),
        )  # fmt: skip
        if moment.error:
            return replace(line, status="wrong", says=f"raises {moment.error}")
        wrong = next((g for g in gradients if g.status == "wrong"), None)
        if wrong is not None:
            says, cause = problem(wrong)
            return replace(line, status="wrong", says=says, cause=cause)
        odd = next(self.oddities(index), "")
        return replace(line, status="odd", says=odd) if odd else line

    def gradients(self, index: int) -> Iterator[Gradient]:
        """The verdicts on the names d… that a line sets."""
        moment = self.undone.moments[index]
        for name in moment.step.statement.sets:
            found, pair = moment.values.get(name), self.pairs.get((index, name))
            if pair is None or self.truth.trace.held(pair.value) is None or moment.error:
                continue
            expected = self.expected(pair)
            if any(self.pairs.get((i, name)) == pair for i in self.after(index)):
                row = expected.judge(0.0)
                yield Gradient(name, pair, "begun", row, found, expected, expected)
                continue
            before = self.gathered.get(pair.value)
            whole = expected if before is None else before.plus(expected)
            self.gathered[pair.value] = whole
            total = judged(name, pair, found, whole)
            if total.status == "wrong" and self.is_unfinished(index, name, pair):
                yield replace(total, status="begun")
                continue
            if before is not None and name in moment.added:
                part = judged(name, pair, moment.added[name], expected, is_added=True)
                # The part tells best what is wrong with it; that nothing is, makes no whole right.
                total = total if part.status == "right" and total.status == "wrong" else part
            is_part = pair.use is not None and len(self.truth.trace.uses(pair.value)) > 1
            yield replace(total, is_part=is_part, whole=whole)

    def by_fit(self, value: Value) -> dict[tuple[int, str], Pair]:
        """The lines of a gradient of which one does not fit, paired with the uses that do fit.

        Which of several lines undoes which use is a guess where no comment tells it. Where the
        gradient comes out right nonetheless, the parts that fit no use are parts of the whole.
        """
        keys = sorted(key for key, each in self.pairs.items() if each.value == value)
        if all(self.pairs[key].use is None for key in keys):
            return {}
        if len(keys) == 1 and len(self.truth.trace.uses(value)) == 1:  # There is no choice.
            return {}
        self.gathered = {}
        parts = [g for index, name in keys for g in self.gradients(index) if g.name == name]
        self.gathered = {}
        if all(part.status != "wrong" for part in parts):
            return {}
        total, (_, name) = self.truth.total(value), keys[0]
        last = self.undone.moments[keys[-1][0]].values.get(name)
        is_right = judged(name, None, last, total).status == "right"
        open_ = [key for key in keys if is_right or self.pairs[key].use not in self.undoes[key[0]]]
        taken = {self.pairs[key].use for key in keys if key not in open_}
        left = [use for use in reversed(self.truth.trace.uses(value)) if use not in taken]
        found: dict[tuple[int, str], Pair] = {}
        for key in open_:
            moment = self.undone.moments[key[0]]
            part = moment.added.get(name, moment.values.get(name))
            fitting = (use for use in left if self.fits(name, part, value, use))
            if (use := next(fitting, None)) is not None:
                found[key] = Pair(value, use)
                left.remove(use)
        rest = [key for key in open_ if key not in found]
        if is_right:
            return dict.fromkeys(keys, Pair(value, None)) if rest else found
        return found | {key: Pair(value, use) for key, use in zip(rest, left, strict=False)}

    def fits(self, name: str, part: Any, value: Value, use: int) -> bool:
        return judged(name, None, part, self.truth.use(value, use)).status == "right"

    def is_unfinished(self, index: int, name: str, pair: Pair) -> bool:
        """Whether more might have come to a gradient, had no step raised."""
        if not self.undone.raised or pair.use in self.undoes[index]:
            return False
        raising = self.undone.moments[-1].step.statement.line
        to_come = (s for s in self.function.statements if (s.node.end_lineno or 0) >= raising)
        return any(name in statement.sets for statement in to_come)

    def expected(self, pair: Pair) -> Expected:
        if pair.use is None:
            return self.truth.total(pair.value)
        return self.truth.use(pair.value, pair.use)

    def after(self, index: int) -> range:
        return range(index + 1, len(self.undone.moments))

    def params(self, index: int) -> Iterator[Gradient]:
        """The verdicts on the gradients of parameters that a line keeps."""
        for name, found in self.undone.moments[index].params.items():
            if name in self.truth.target.params:
                yield judged(name, None, found, self.truth.param(name))

    def oddities(self, index: int) -> Iterator[str]:
        """What is not as forward, or the comment, says."""
        moment = self.undone.moments[index]
        for name, value in moment.values.items():
            base = self.forward_names.get(name.removeprefix("d"))
            if name in self.forward_names:
                if not alike(value, self.truth.trace.held(self.forward_names[name])):
                    yield f"{name} is not what it was in forward"
            elif base is not None and name.startswith("d"):
                held = self.truth.trace.held(base)
                if held is None is not value:
                    yield f"there is no {base.name} here, so {name} must be None"
                elif (index, name) in self.pairs and np.shape(value) != np.shape(held):
                    shapes = f"has the shape {np.shape(value)}, and {base.name} has"
                    yield f"{name} {shapes} {np.shape(held)}"
        stated = moment.step.statement.shape
        values: list[Any] = [*moment.values.values()]
        shapes = [np.shape(cast(Any, v)) for v in values if isinstance(v, np.ndarray)]
        if stated and len(shapes) == 1 and disagreement(stated, shapes[0], self.letters):
            yield f"the comment says {stated}, but the shape is {shapes[0]}"

    def fused(self, index: int) -> tuple[str, ...]:
        """The names without a verdict of their own that flow into the gradients of a line."""
        found: list[str] = []
        sets = self.undone.sets(index)
        todo = [index] if any((index, name) in self.pairs for name in sets) else []
        while todo:
            for source in self.undone.sources(todo.pop()):
                names = self.undone.sets(source)
                if not any((source, n) in self.pairs or n in self.forward_names for n in names):
                    found += [name for name in names if name not in found]
                    todo.append(source)
        return tuple(found)

    def returned(self) -> Line:
        """The line that returns: which gradient is that of which argument."""
        node = self.function.returned
        line = Line(None, node.lineno, self.function.text(node), "", None, (), {}, "")
        if self.undone.error:
            return replace(line, status="wrong", says=f"raises {self.undone.error}")
        try:
            found = by_name(self.truth.target, self.undone.returned)
        except ValueError as error:
            return replace(line, status="wrong", says=str(error))
        known = {*found, *gradients_kept(self.undone.names[-1])}
        found |= {name: None for name in self.truth.target.params if name not in known}
        gradients = tuple(self.returned_for(name, gradient) for name, gradient in found.items())
        line = replace(line, gradients=gradients, status=best(gradients))
        wrong = next((g for g in gradients if g.status == "wrong"), None)
        if wrong is None:
            return line
        says = "; ".join(problem(g)[0] for g in gradients if g.status == "wrong")
        return replace(line, status="wrong", says=f"returned: {says}", cause=wrong.row.cause)

    def returned_for(self, name: str, gradient: Any) -> Gradient:
        """The verdict on what is returned for an argument, or for a parameter."""
        value = None if name in self.truth.target.params else Value(name, -1)
        expected = self.truth.param(name) if value is None else self.truth.total(value)
        # What is returned is the result: its shape counts, and nothing broadcasts.
        row = expected.judge(gradient)
        status = "right" if row.ok else "wrong"
        if value is None:
            return Gradient(name, None, status, row, gradient, expected, expected)
        return Gradient(f"d{name}", Pair(value, None), status, row, gradient, expected, expected)

    def note_missing_parts(self, lines: list[Line]) -> None:
        """Marks the gradients that lack the part that comes by way of a line."""
        last: dict[Value, int] = {}
        undone: dict[Value, set[int | None]] = {}
        for (index, _), each in sorted(self.pairs.items()):
            last[each.value] = index
            undone.setdefault(each.value, set()).add(each.use)
        for value, uses in undone.items():
            line = lines[last[value]]
            if None in uses or line.status == "wrong":
                continue
            for use in sorted(set(self.truth.trace.uses(value)) - cast(set[int], uses)):
                if self.truth.use(value, use).measured.values.any():
                    way = self.truth.trace.steps[use].statement.text
                    says = f"d{value.name} lacks the part that comes by way of {way}"
                    lines[last[value]] = replace(line, status="wrong", says=says)
                    break


def unreached(prover: Prover) -> Iterator[Line]:
    """The lines that did not run, because one before them raised."""
    function, undone = prover.function, prover.undone
    if not undone.raised:
        return
    for step in undone.steps[len(undone.moments) :]:
        each = step.statement
        yield Line(step, each.line, each.text, each.shape, None, (), {}, "unreached")
    node = function.returned
    yield Line(None, node.lineno, function.text(node), "", None, (), {}, "unreached")


def is_right_in_the_end(lines: list[Line]) -> bool:
    """Whether all gradients that are returned, or kept for a parameter, are right."""
    results = [g for line in lines for g in line.gradients if line.step is None or g.pair is None]
    return lines[-1].status != "wrong" and all(g.status == "right" for g in results)


def excused(line: Line) -> Line:
    """A wrong line that no result suffers from is odd: what it sets is no gradient, or unused."""
    if line.status != "wrong":
        return line
    gradients = (replace(g, status="odd") if g.status == "wrong" else g for g in line.gradients)
    return replace(line, status="odd", gradients=tuple(gradients))


def note_spoiling(lines: list[Line], undone: Undone) -> None:
    """Marks a line that changes in place what the backward was given."""
    spoiling = next((i for i, moment in enumerate(undone.moments) if moment.spoils), None)
    if spoiling is not None:
        says = "backward changes in place what it was given: its input, or what forward saved"
        lines[spoiling] = replace(lines[spoiling], status="wrong", says=says)


def note_manners(lines: list[Line], truth: Truth, callable_: Callable[..., Any]) -> None:
    """Marks a backward that returns memory that is not its own, or another gradient than its lines.

    It runs as it stands in the module here, in one go: decorated, or set again further down.
    """
    target = truth.target
    trial = FunctionCheck(
        target.functions[0], target.args, target.wrt, seed=target.seed, doutput=truth.doutput
    )

    def by_their_names(doutput: np.ndarray, saved: Any) -> dict[str, Any]:
        return by_name(target, callable_(doutput, saved))

    try:
        ran = BackwardRun(trial, by_their_names)
        problems, gradients = dict(ran.problems), ran.gradients
    except Exception as error:
        problems, gradients = {target.wrt[0]: [f"raises {type(error).__name__}: {error}"]}, {}
    for name, gradient in gradients.items():
        row = truth.total(Value(name, -1)).judge(gradient)
        if not row.ok and name not in problems:
            as_it_runs = "as it runs it returns another one than these lines; is it decorated?"
            problems[name] = [f"d{name}: {row.problems[0]}: {as_it_runs}"]
    for name, found in problems.items():
        setting = [i for i, line in enumerate(lines) if f"d{name}" in line.values]
        at = setting[-1] if setting and "as it runs" not in found[0] else -1
        if lines[at].status != "wrong":
            lines[at] = replace(lines[at], status="wrong", says=found[0])


def upstream_and_saved(function: Function) -> tuple[str, str]:
    """The first two arguments of a backward; those of a model have others before `saved`."""
    names = [name for name in function.arguments if name != "self"]
    return names[0], "saved" if "saved" in names else names[1]


def defaults_of(function: Function, module: Names) -> Names:
    """What the arguments of a backward are that nobody gives."""
    args = function.node.args
    named = [*args.posonlyargs, *args.args]
    found = dict(zip([arg.arg for arg in reversed(named)], reversed(args.defaults), strict=False))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found |= {arg.arg: default} if default is not None else {}
    return {
        name: eval(compiled(ast.Expression(default), "eval"), dict(module))
        for name, default in found.items()
    }
