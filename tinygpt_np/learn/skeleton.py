"""Write the file of an exercise: its source with the question instead of the derivation.

The forward is complete. In the backward, each gradient line keeps its name and shape, and `...`
takes the place of its formula, under the forward line that it reverses.
"""

import ast
import copy
import re
import textwrap
from dataclasses import dataclass
from functools import cache

from tinygpt_np import ops
from tinygpt_np.learn import warm_ups
from tinygpt_np.learn.bugs import ChosenBug
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.sources import MODELS, Source, source_of
from tinygpt_np.study.source.parse import Function, stored_in
from tinygpt_np.study.source.paths import differentiated

# A learner replaces it by a formula.
OPEN = "..."
WIDTH = 96
HOW = {
    "lines": (
        "Write backward. It gets {upstream} and what forward saved, and returns {results}. Each "
        "line is under the forward line that it reverses: replace every `...` by its formula."
    ),
    "closed": (
        "Write backward in a short form of your own. It gets {upstream} and what forward saved, "
        "and returns {results}. Simplify the formulas of level 2, or start from the derivative of "
        "one output with respect to one input. Use as many lines and names as you like."
    ),
    "bug": (
        "One line of backward is wrong. backward gets {upstream} and what forward saved, and "
        "should return {results}. First put the comment `# bug` at the end of the line that you "
        "think is wrong; check says whether it is. Then repair the line and keep the comment."
    ),
}
MODEL = (
    "The calls of backward are those of forward in reverse order. X.backward(gradient, saved) "
    "returns the gradients of the arguments of X.forward, in the same order. self is a tg.GPT; "
    "there are self.heads_backward(gradient, saved) and self.block_backward(gradient, h, saved, "
    "grads). "
    "grads.keep(name, gradients) stores those of a layer's weight and bias, and returns the first, "
    "dx. Shapes: B batch, T time, N = B·T rows, C channels, V vocabulary, E columns of c_attn, "
    "U columns of c_fc, F after the activation."
)
# Notes on what the text of an exercise may use.
NOTES = {
    ".forward(": (
        "For each call X.forward(...) there is X.backward(gradient, saved). It takes the gradient "
        "of what the call returned and what it saved, and returns the gradients of its arguments."
    ),
    ".mT": "a.mT swaps the last two axes of a.",
    "np.real(": "np.real(x) marks a value that counts as a constant: no gradient flows through it.",
}
CHECKED = """\
    tinygpt learn check      checks every line and explains the first mistake
    tinygpt learn hint       shows a hint for the first line that is open or wrong
"""
HUNTED = """\
    tinygpt learn check      says whether the marked line is the wrong one, and whether it is right
    tinygpt learn hint       shows a hint for the wrong line
"""
COMMANDS = {"lines": CHECKED, "closed": CHECKED, "bug": HUNTED}


@dataclass(frozen=True)
class Blank:
    """A line to write.

    target: the text on the left of the equals sign. names: the names that it sets. quote: the
    comment above it that quotes a forward line, or "". solution: the right lines of the source.
    first, last: their line numbers there. adds: whether it adds to the name.
    """

    target: str
    names: tuple[str, ...]
    quote: str
    solution: str
    first: int
    last: int
    adds: bool
    shape: str


@cache
def skeleton(exercise: Exercise) -> str:
    """Return the text of the file of an exercise, except for the last one."""
    source = source_of(exercise)
    parts = [f'"""{question(exercise, source)}"""', *context(source), plain(source.forward)]
    if exercise.bug is not None:
        backward = with_bug(exercise.bug, source.backward)
    else:
        backward = open_lines(exercise) if exercise.kind == "lines" else blank_body(exercise)
        backward = with_saved_names(source, backward)
    return "\n\n\n".join(["\n\n".join(parts[:2]), *parts[2:], backward]) + "\n"


def question(exercise: Exercise, source: Source) -> str:
    """Return the docstring of a file: the derivation reduced to the question."""
    paragraphs = source.docstring.strip().split("\n\n")
    cut = next((i for i, p in enumerate(paragraphs) if "Derivation" in p), len(paragraphs))
    upstream = described(source.backward.upstream)
    results = ", ".join(returned(source.backward)) or "the gradient of every parameter"
    how = HOW[exercise.kind].format(upstream=upstream, results=results)
    text = re.sub(r"see (\w+)\.py", r"see \1", "\n\n".join(paragraphs[:cut]))
    explained = MODEL if exercise.subject in MODELS else notes(source)
    paragraphs = [textwrap.fill(each, WIDTH) for each in (how, explained) if each]
    return "\n\n".join([text, *paragraphs, COMMANDS[exercise.kind]])


def described(upstream: str) -> str:
    """Return the upstream gradient in words."""
    name = upstream[1:]
    if name == "loss":
        return "dloss, a number: the gradient, with respect to loss, of what is computed from it,"
    return f"{upstream}, the gradient of the loss with respect to {name},"


def notes(source: Source) -> str:
    """Return what the lines of a source use: calls of operations, .mT, np.real and letters."""
    text = "\n".join(context(source)) + plain(source.forward) + plain(source.backward)
    found = [note for used, note in NOTES.items() if used in text]
    shapes = " ".join(re.findall(r"\((?:\.\.\.|\d*[A-Z])(?:, \.{0,3}\d*[A-Z]?)*,?\)", text))
    letters = sorted({*re.findall(r"[A-Z]", shapes)}, key=shapes.index)
    if source.module.__name__.startswith(warm_ups.__name__):
        found += ["Each letter in a shape is the size of an axis."] if letters else []
        return " ".join(found)
    entries = (part.strip() for part in re.split(r" {2,}|\n", ops.__doc__ or ""))
    known = {each[0]: each for each in entries if re.match(r"[A-Z] ", each) and "->" not in each}
    meanings = [*dict.fromkeys(known[letter] for letter in letters if letter in known)]
    meanings += ["... any axes"] if "..." in shapes else []
    return " ".join([*found, f"Shapes: {', '.join(meanings)}." if meanings else ""]).strip()


def context(source: Source) -> list[str]:
    """Return the imports, and the constants and helper functions that forward or backward read."""
    tree, lines = ast.parse("\n".join(source.forward.lines)), source.forward.lines
    wanted = {"np", *read_by(source.forward.node), *read_by(source.backward.node)}
    for node in reversed(tree.body):  # A name is defined above those that read it.
        is_function = isinstance(node, ast.FunctionDef)
        defined = {node.name} if is_function else stored_in(node)
        if isinstance(node, ast.FunctionDef | ast.Assign) and defined & wanted:
            wanted |= read_by(node)
    imports, constants, helpers, end = list[str](), list[str](), list[str](), 0
    for node in tree.body:
        start, end = end, node.end_lineno or 0
        segment = "\n".join(lines[start:end]).strip()
        match node:
            case ast.Import() | ast.ImportFrom():
                names = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
                imports += [segment] if names & wanted else []
            case ast.Assign() if stored_in(node) & wanted:
                constants.append(segment)
            case ast.FunctionDef() if node.name in wanted:
                helpers.append(plain(Function(node, lines, source.forward.file)))
            case ast.ClassDef() if node.name in wanted:
                imports.append(f"from {source.module.__name__} import {node.name}")
            case _:
                pass
    # As isort orders them.
    numpy, ours = ([i for i in imports if ("tinygpt" in i) == own] for own in (False, True))
    head = "\n\n".join("\n".join(part) for part in (numpy, ours, constants) if part)
    return [head, *helpers]


def read_by(node: ast.AST) -> set[str]:
    """Return the names in a tree, except those in annotations."""
    annotations = (
        each
        for part in ast.walk(node)
        for each in (getattr(part, "annotation", None), getattr(part, "returns", None))
        if each is not None
    )
    skipped = {id(name) for each in annotations for name in ast.walk(each)}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in skipped}


def plain(function: Function, body: list[str] | None = None) -> str:
    """Return the source of a function without annotations, perhaps with other lines in its body."""
    node = copy.deepcopy(function.node)
    for part in ast.walk(node.args):
        if isinstance(part, ast.arg):
            part.annotation = None
    prefix = node.name.removesuffix("_steps").rpartition("_")[2]
    name = prefix if prefix in ("forward", "backward") else node.name
    head = f"def {name}({ast.unparse(node.args)}):"
    start, end = node.body[0].lineno - 1, node.end_lineno
    lines = [*function.lines[start:end]] if body is None else body
    text = textwrap.dedent("\n".join(lines))
    text = re.sub(r"  # noqa:.*", "", text)
    # Annotations of local names, as in `blocks: list[Saved] = []`.
    text = re.sub(r"(?m)^(\s*\w+): [\w\[\], .]+ = ", r"\1 = ", text)
    return head + "\n" + textwrap.indent(text.strip(), "    ")


def returned(function: Function) -> list[str]:
    """Return the gradients that a backward returns by name."""
    result = function.result
    names = result.elts if isinstance(result, ast.Tuple) else [result]
    return [each.id for each in names if isinstance(each, ast.Name)]


@cache
def blanks(exercise: Exercise) -> tuple[Blank, ...]:
    """Return the lines to write, in the order of the source; the last exercise has none."""
    if exercise.kind == "training":
        return ()
    source = source_of(exercise)
    if exercise.kind == "closed":
        steps = [b for b in gradient_lines(source) if {*b.names} & {*returned(source.backward)}]
        last = {b.target: b for b in steps}
        return tuple(last[name] for name in returned(source.backward))
    if exercise.bug is not None:
        statements = simple_statements(source.backward.node.body)
        return (blank_at(source.backward, statements[exercise.bug.place(statements)]),)
    found = gradient_lines(source)
    return tuple(b for b in found if not exercise.asked or {*b.names} & {*exercise.asked})


def gradient_lines(source: Source) -> tuple[Blank, ...]:
    """Return the lines of a backward that set gradients of names of its forward."""
    function, found = source.backward, list[Blank]()
    for node in simple_statements(function.node.body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            # It changes the array that the line before made, as np.add.at does.
            read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if found and read & {*found[-1].names}:
                last, text = found.pop(), source_text(function, node)
                found.append(Blank(
                    last.target, last.names, last.quote, f"{last.solution}\n{text}", last.first,
                    node.end_lineno or 0, last.adds, last.shape,
                ))  # fmt: skip
        elif isinstance(node, ast.Assign | ast.AugAssign) and is_gradient(node, source):
            found.append(blank_at(function, node))
    return tuple(found)


def blank_at(function: Function, node: ast.stmt) -> Blank:
    """Return a statement of a source as a line to write."""
    quote = next(iter(function.comments_above(node.lineno)), "")
    return Blank(
        target_text(function, node), set_by(node), quote, source_text(function, node), node.lineno,
        node.end_lineno or 0, isinstance(node, ast.AugAssign), function.statement(node).shape,
    )  # fmt: skip


def is_gradient(node: ast.Assign | ast.AugAssign, source: Source) -> bool:
    """Return whether a statement sets the gradient of a name of forward, or of a parameter."""
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    names = {*source.forward.arguments, *stored_in(source.forward.node)}
    of_forward = any({*differentiated(n)} & names for n in names_of(target))
    return of_forward or "grads[" in ast.unparse(target)


def names_of(target: ast.expr) -> tuple[str, ...]:
    """Return the names that an assignment sets."""
    names = (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    return tuple(name for name in names if name != "_")


def set_by(node: ast.stmt) -> tuple[str, ...]:
    """Return the names that an assignment sets; () for other statements."""
    match node:
        case ast.Assign(targets=[target]) | ast.AugAssign(target=target):
            return names_of(target)
        case _:
            return ()


def source_text(function: Function, node: ast.stmt) -> str:
    """Return the source of a statement with its comment, dedented."""
    lines = function.lines[node.lineno - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines))


def target_text(function: Function, node: ast.stmt) -> str:
    """Return the source to the left of the equals sign of an assignment; all of a call."""
    operator = "+=" if isinstance(node, ast.AugAssign) else "="
    return source_text(function, node).partition(f" {operator} ")[0]


def simple_statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of a body in order, those inside loops and conditions too."""
    found = list[ast.stmt]()
    for node in body:
        inner = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        inner += [part.body for name in ("handlers", "cases") for part in getattr(node, name, [])]
        found += (
            [each for part in inner for each in simple_statements(part)] if any(inner) else [node]
        )
    return found


def open_lines(exercise: Exercise) -> str:
    """Return the backward with `...` in place of the formulas."""
    source = source_of(exercise)
    function, lines = source.backward, [*source.backward.lines]
    for blank in blanks(exercise):
        first = lines[blank.first - 1]
        indent = first[: len(first) - len(first.lstrip())]
        operator = "+=" if blank.adds else "="
        shape = f"{blank.shape}{' or None' * ('None if ' in blank.solution)}"
        comment = f"  # {shape}" if blank.shape else ""
        keep = re.search(r"= grads\.keep\((f?\"[^\"]+\"), ", blank.solution)
        formula = f"grads.keep({keep.group(1)}, {OPEN})" if keep else OPEN
        lines[blank.first - 1] = f"{indent}{blank.target} {operator} {formula}{comment}"
        for number in range(blank.first, blank.last):
            lines[number] = "\0"
    node = function.node
    body = [line for line in lines[node.body[0].lineno - 1 : node.end_lineno] if line != "\0"]
    return plain(function, body)


def with_saved_names(source: Source, backward: str) -> str:
    """Return a backward that unpacks all saved values by name, for a learner may need each."""
    result = source.forward.result
    saved = result.elts[1] if isinstance(result, ast.Tuple) else result
    line = next((text for text in backward.splitlines() if text.endswith(" = saved")), "")
    if "_" not in line.strip().split(" = ")[0].split(", ") or not isinstance(saved, ast.Tuple):
        return backward
    names = line.strip().removesuffix(" = saved").split(", ")
    given = [ast.unparse(value) if isinstance(value, ast.Name) else "_" for value in saved.elts]
    pairs = zip(names, given, strict=True)
    full = ", ".join(own if name == "_" else name for name, own in pairs)
    return backward.replace(line, f"    {full} = saved", 1)


def with_bug(bug: ChosenBug, function: Function) -> str:
    """Return the backward with a wrong line in the place of the right one."""
    node, lines = function.node, [*function.lines]
    statements = simple_statements(node.body)
    number = statements[bug.place(statements)].lineno - 1
    lines[number] = bug.planted(lines[number])
    return plain(function, lines[node.body[0].lineno - 1 : node.end_lineno])


def blank_body(exercise: Exercise) -> str:
    """Return the backward with the unpacked saved values and the names to return only."""
    source = source_of(exercise)
    function = source.backward
    docstring, unpacking = function.node.body[0], function.node.body[1]
    body = [re.sub(r", line for line", "", each)
            for node in (docstring, unpacking)
            for each in function.lines[node.lineno - 1 : node.end_lineno]]  # fmt: skip
    body += [f"    {b.target} = {OPEN}  # {b.shape}" for b in blanks(exercise)]
    body.append(function.lines[function.returned.line - 1])
    return plain(function, body)
