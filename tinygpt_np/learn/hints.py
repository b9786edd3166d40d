"""Hints for a line in four steps: what is asked, the rule, the rule with names, the solution.

They come from what the package knows anyway: which forward lines read a name, study's rules of
differentiation, the derivation in the docstring, and the source itself.
"""

import inspect
import re
from collections.abc import Iterator

import numpy as np

from tinygpt_np import ops
from tinygpt_np.learn import bugs
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.skeleton import Blank, blanks, simple_statements
from tinygpt_np.learn.sources import source_of, targets_of
from tinygpt_np.study.proof.backward_trace import trace_backward
from tinygpt_np.study.proof.derivative import PATTERNS, Pattern
from tinygpt_np.study.proof.pairing import reversed_steps
from tinygpt_np.study.proof.rules import Rule, rule_of
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import names_in
from tinygpt_np.study.source.trace import Step

STEPS = 4
PASSED_ON = (
    "A value that is only passed on gives its gradient to the value it came from. A value, or a "
    "parameter, that is used twice gets the sum of two gradients."
)


def hints(exercise: Exercise, blank: Blank) -> tuple[str, str, str, str]:
    """Return the four hints for a line of an exercise."""
    if exercise.bug is not None:
        return bugs.hints(exercise.bug, next(targets_of(exercise)))
    if exercise.kind == "closed":
        return closed_form(exercise)
    truth = Truth(next(targets_of(exercise)))
    step = reversed_step(exercise, truth, blank)
    rule = rule_of(truth, step) if step else None
    return asked(truth, blank, step), *rule_hints(exercise, blank, step, rule), blank.solution


def reversed_step(exercise: Exercise, truth: Truth, blank: Blank) -> Step | None:
    """Return the forward line that a line of the source reverses, if it is known."""
    function = source_of(exercise).backward
    trace = trace_backward(function, truth.target.module, truth.given(function))
    steps = [each.step for each in trace.executed]
    reverses = reversed_steps(truth.trace, function, steps)
    for step in steps:
        if blank.first <= step.statement.line <= blank.last and reverses[step.index]:
            return truth.trace.steps[reverses[step.index][0]]
    return None


def asked(truth: Truth, blank: Blank, step: Step | None) -> str:
    """Return what a line is: whose gradient, of which shape, and which forward lines read that."""
    found = [f"{stored} is the gradient of a parameter." for stored in blank.target.split(", ")
             if stored.startswith("grads[")]  # fmt: skip
    for name in (n[1:] for n in blank.names if n.startswith("d")):
        values = [value for value in truth.trace.values() if value.name == name]
        stated = f"{blank.shape}, here " if blank.shape and len(blank.names) == 1 else ""
        shape = f" Shape: {stated}{np.shape(truth.trace.data(values[-1]))}." if values else ""
        found.append(f"d{name} is the gradient of the loss with respect to {name}.{shape}")
        reading = [s for s in truth.trace.steps if name in s.statement.reads]
        if len(reading) > 1:
            lines = f"{len(reading)} lines, whose parts add up"
            found.append(f"The loss depends on {name} through {lines}:")
        elif reading:
            found.append(f"The loss depends on {name} through one line:")
        for each in reading:
            is_own = len(reading) > 1 and step is not None and each.index == step.index
            found.append(f"    {each.statement.text}{'   ← this line is its part' * is_own}")
    return "\n".join(found)


def rule_hints(
    exercise: Exercise, blank: Blank, step: Step | None, rule: Rule | None
) -> tuple[str, str]:
    """Return the hint with the rule, and the one with the names put in."""
    if rule is None or ("grads[" in blank.target and not rule.operation):
        return PASSED_ON, mentions(exercise, blank)
    if rule.operation:
        return called(rule, step)
    pattern = next((p for p in PATTERNS if p.name == rule.name), None)
    general = f"The rule is called {rule.name}. {in_general(pattern) if pattern else rule.why}"
    wanted = [f for f in rule.formulas[1:] if set_by_formula(f) in blank.names]
    formulas = "\n".join(f"    {f}" for f in (rule.formulas[0], *(wanted or rule.formulas[1:])))
    return (
        general,
        f"With the names of this line:\n{formulas}\n{rule.why if pattern else ''}".strip(),
    )


def set_by_formula(formula: str) -> str:
    """Return the gradient that a formula gives: dx for `dx_v = …` and `dx[:, i] = …`."""
    return re.split(r" |\[|_\w = ", formula)[0]


def mentions(exercise: Exercise, blank: Blank) -> str:
    """Return the forward lines that mention the values of a line."""
    forward = source_of(exercise).forward
    names = {name[1:] for name in blank.names if name.startswith("d")}
    nodes = simple_statements(forward.node.body)
    texts = [forward.text(node) for node in nodes if names & {*names_in(node)}]
    lines = "\n".join(f"    {text}" for text in texts)
    return (
        f"Forward lines with {', '.join(sorted(names))}:\n{lines}"
        if texts
        else blank.quote or PASSED_ON
    )


def in_general(pattern: Pattern) -> str:
    """Return a rule with the letters of its pattern."""
    gradients = ", ".join(f"d{name} = {value}" for name, value in pattern.gradients.items())
    return f"With y = {pattern.expression}: {gradients}."


def called(rule: Rule, step: Step | None) -> tuple[str, str]:
    """Return the hints for a line that reverses the call of an operation."""
    general = (
        f"Forward calls {rule.operation}, so this line calls its backward: with the gradient of "
        "what that call returned, and with what it saved."
    )
    operation = getattr(ops, rule.operation, None)
    contract = (inspect.getdoc(operation.backward) or "").partition("\n")[0] if operation else ""
    line = f" for `{step.statement.text}`" if step else ""
    takes = f"{rule.operation}.backward(gradient, saved): {contract}" if contract else general
    return general, f"Write the call{line}. {takes}"


def closed_form(exercise: Exercise) -> tuple[str, str, str, str]:
    """Return the hints for a function in closed form: the derivation, in parts."""
    source = source_of(exercise)
    truth = Truth(next(targets_of(exercise)))
    first = asked(truth, blanks(exercise)[0], None)
    parts = [*derivation(source.docstring)]
    middle = (len(parts) + 1) // 2
    function = source.module.backward
    lines = inspect.getsource(inspect.unwrap(function)).partition('"""\n')[2].rstrip()
    return first, "\n\n".join(parts[:middle]), "\n\n".join(parts[middle:]), inspect.cleandoc(lines)


def derivation(docstring: str) -> Iterator[str]:
    """Yield the paragraphs of the derivation in a docstring, without its source."""
    paragraphs = docstring.strip().split("\n\n")
    start = next((i for i, p in enumerate(paragraphs) if "Derivation" in p), len(paragraphs))
    for paragraph in paragraphs[start:]:
        if text := re.sub(r"(?m)^Sources?:(.|\n)*", "", paragraph).rstrip():
            yield text
