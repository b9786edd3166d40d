"""What a page shows of a sheet, in types that JSON knows: the contract with page.html.jinja."""

from collections.abc import Iterator

from tinygpt_np.gradcheck.mutations import KINDS
from tinygpt_np.study.bugs import Bug
from tinygpt_np.study.code import Keys, code
from tinygpt_np.study.notation import blocks, inline, mathml
from tinygpt_np.study.proof import Line, Proof
from tinygpt_np.study.rules import rule_of
from tinygpt_np.study.sheet import Row, Sheet
from tinygpt_np.study.trace import Value
from tinygpt_np.study.values import (
    Json,
    constants,
    key,
    line_id,
    number,
    of_constant,
    of_param,
    of_value,
    shown,
    verdict,
)

NOT_RIGHT = ("wrong", "inherited", "odd")


def page(sheet: Sheet, planted: list[Bug]) -> Json:
    """All that a page of a target needs; the docstring of each part below says what it holds."""
    target, proofs = sheet.target, sheet.proofs
    judged = sheet.judged
    summary, rest = derivation(target.docstring)
    steps = back_lines(sheet, proofs[0])
    return {
        "name": target.name,
        "title": target.title,
        "kind": target.kind,
        "where": target.where,
        "seed": target.seed,
        "ok": sheet.ok,
        "right": sum(gradient.status == "right" for gradient in judged),
        "all": len(judged),
        "worst": number(sheet.worst),
        "odd": sum(gradient.status == "odd" for gradient in judged),
        "stops": stops(sheet),
        "others": [{"title": each.target.title, "says": says(each)} for each in sheet.others],
        "functions": [target.forward.name, *(proof.function.name for proof in proofs)],
        "summary": summary,
        "derivation": rest,
        "rows": [row(sheet, each, steps) for each in sheet.rows],
        "begin": begin(sheet, proofs[0]),
        "closed": closed(sheet),
        "values": {key(value): of_value(sheet, value) for value in sheet.values}
        | {key(value): of_constant(sheet, value) for value in constants(sheet)},
        "params": {name: of_param(sheet, name) for name in target.params},
        "bugs": [bug(each) for each in planted],
    }


# What is known of it all


def stops(sheet: Sheet) -> int | None:
    """The line at which a backward raises, or None."""
    raised = (proof.undone.moments[-1] for proof in sheet.proofs if proof.undone.raised)
    return next((moment.step.statement.line for moment in raised), None)


def says(sheet: Sheet) -> str:
    """What is wrong first, with its line; or ""."""
    lines = [proof.first_wrong for proof in sheet.proofs if proof.first_wrong]
    return f"line {lines[0].line}: {lines[0].says}" if lines else ""


def derivation(docstring: str) -> tuple[str, list[Json]]:
    """The first paragraph as HTML; then paragraphs {"kind": "text", "html"} and formulas
    {"kind": "math", "lines": [MathML, …]}.
    """
    found: list[Json] = []
    for block in blocks(docstring):
        if block.kind == "math":
            found.append({"kind": "math", "lines": [mathml(line, True) for line in block.lines]})
        else:
            found.append({"kind": "text", "html": inline(" ".join(block.lines))})
    if found and found[0]["kind"] == "text":
        return found[0]["html"], found[1:]
    return "", found


# The lines


def row(sheet: Sheet, row: Row, backward: dict[int, Json]) -> Json:
    """line; html: the code; shape: "(N, C)" or ""; round: of a loop, "layer = 0" or "".

    sets: the keys of the values it sets through which a gradient flows; reads: the names it reads;
    constant: whether it is a line through which no gradient flows; fused: with what the values that
    it sets are verified, where they have no gradient of their own; rule: of the line, or None;
    backward: the lines beside it, the one that runs last first.
    """
    step, is_head = row.step, row is sheet.rows[0]
    at = -1 if is_head else step.index if step else None
    values = [v for v in sheet.values if v.step == at]
    sets, reads = forward_keys(sheet, row)
    return {
        "line": row.line,
        "html": code(row.text, sets, reads),
        "shape": row.shape,
        "round": "" if step is None else step.round,
        "sets": [key(value) for value in values],
        "reads": [] if is_head else sorted(mentions(sheet, row)),
        "constant": step is not None and not values,
        "fused": list(dict.fromkeys(name for v in values for name in sheet.fused(v))),
        "rule": rule(sheet, row),
        "backward": [backward[id(line)] for line in row.backward],
    }


def mentions(sheet: Sheet, row: Row) -> frozenset[str]:
    forward = sheet.target.forward
    statement = row.step.statement if row.step else forward.statement(forward.returned)
    return statement.mentions


def forward_keys(sheet: Sheet, row: Row) -> tuple[Keys, Keys]:
    """What the names on a line of the forward stand for: those it sets, and those it reads."""
    trace, known = sheet.truth.trace, shown(sheet)

    def key_of(value: Value) -> str:
        return key(value) if value in known else ""

    at = row.step.index if row.step else -1 if row is sheet.rows[0] else len(trace.steps)
    sets = row.step.statement.sets if row.step else ()
    names = {value.name for value in trace.values() if value.step < max(at, 0)}
    reads = {name: key_of(trace.reaching(name, max(at, 0))) for name in names}
    return {name: key_of(Value(name, at)) for name in sets}, reads


def rule(sheet: Sheet, row: Row) -> Json | None:
    """name; formulas: as MathML; why: HTML; operation: whose page has the derivation, or ""."""
    constant = sheet.is_constant(row)
    found = rule_of(row.step.statement, constant) if row.step is not None else None
    if found is None:
        return None
    formulas = [mathml(formula, True) for formula in found.formulas]
    return {
        "name": found.name, "formulas": formulas, "why": inline(found.why),
        "operation": found.operation,
    }  # fmt: skip


def begin(sheet: Sheet, proof: Proof) -> Json:
    """The head of a backward. line; html; given: the key of the value whose gradient comes in."""
    function = proof.function
    arguments = [name for name in function.arguments if name != "self"]
    value = next((v for v in reversed(sheet.values) if f"d{v.name}" == arguments[0]), None)
    given = key(value) if value else ""
    keys = dict.fromkeys(function.arguments, "") | {arguments[0]: given}
    text = f"def {function.name}({', '.join(function.arguments)})"
    return {"line": function.node.lineno, "html": code(text, reads=keys), "given": given}


def back_lines(sheet: Sheet, proof: Proof) -> dict[int, Json]:
    """The lines of a backward by the id() of each, in the order in which they run."""
    keys = backward_keys(sheet, proof)
    return {id(line): back_line(sheet, proof, line, *next(keys)) for line in proof.lines}


def backward_keys(sheet: Sheet, proof: Proof) -> Iterator[tuple[Keys, Keys]]:
    """Of each line what its names stand for: those it sets, and those it reads."""
    values = [v for v in sheet.truth.trace.values() if v in shown(sheet)]
    # A name that was set twice in the forward stands for what it held at last.
    last = {value.name: key(value) for value in values}
    last |= {f"d{value.name}": key(value) for value in sheet.values}
    known = {name: last.get(name, "") for name in proof.function.arguments}
    for line in proof.lines:
        names = line.step.statement.sets if line.step else ()
        bindings = dict.fromkeys(line.step.bindings, "") if line.step else {}
        sets = {name: last.get(name, "") for name in names}
        sets |= {g.name: key(g.pair.value) for g in line.gradients if g.pair and g.name in sets}
        yield sets, known | bindings
        known |= sets


def back_line(sheet: Sheet, proof: Proof, line: Line, sets: Keys, reads: Keys) -> Json:
    """id: "backward:53", of a round of a loop "backward:53:4"; html; text; shape; status, says,
    cause: the verdict on the line, in words; reads: names; gradients: the verdicts on what it
    sets; fused: names that are verified with them.
    """
    function = proof.function
    statement = line.step.statement if line.step else function.statement(function.returned)
    return {
        "id": line_id(proof, line),
        "function": function.name,
        "line": line.line,
        "html": code(line.text, sets, reads),
        "text": line.text,
        "shape": line.shape,
        "status": line.status,
        "says": line.says,
        "cause": line.cause,
        "reads": sorted(statement.mentions),
        "gradients": [verdict(sheet, gradient) for gradient in proof.told(line)],
        "fused": list(line.fused),
    }


def closed(sheet: Sheet) -> Json | None:
    """The closed form, where there is one: its head, its lines as they run, and how near it is to
    the steps. together: the names of the forward that have no gradient of their own in it.
    """
    if len(sheet.proofs) < 2:
        return None
    proof = sheet.proofs[1]
    own = {g.name[1:] for g in proof.gradients if g.pair}
    own |= {name[1:] for name in proof.function.arguments if name.startswith("d")}
    return {
        "function": proof.function.name,
        "begin": begin(sheet, proof),
        "lines": list(back_lines(sheet, proof).values()),
        "agreement": sheet.agreement,
        "together": [v.name for v in sheet.values if v.name not in own],
    }


# The planted bugs


def bug(bug: Bug) -> Json:
    """kind; what: the kind in words; id: of the changed line, "" where all of the function is
    another; before, after; reason: why it changes nothing, or ""; red: of each line that is not
    right {"status", "says"}, by id; stopped: whether it raises, so that what follows does not run;
    says, cause: of the first wrong line; blamed: its id.
    """
    mutation, proof, blamed = bug.mutation, bug.proof, bug.blamed
    is_whole = mutation.line == 0
    red = {
        line_id(proof, line): {"status": line.status, "says": line.says}
        for line in proof.lines
        if line.status in NOT_RIGHT
    }
    return {
        "kind": mutation.kind,
        "what": KINDS[mutation.kind],
        "function": mutation.function,
        "id": "" if is_whole else f"{mutation.function}:{mutation.line}",
        "before": mutation.before,
        "after": mutation.after,
        "reason": bug.reason,
        "red": {} if is_whole else red,
        "stopped": bool(proof.undone.error) or any(m.error for m in proof.undone.moments),
        "says": blamed.says if blamed else "",
        "cause": blamed.cause if blamed else "",
        "blamed": "" if is_whole or blamed is None else line_id(proof, blamed),
    }
