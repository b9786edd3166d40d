"""A learner's solution of an exercise: the functions of a file or of a notebook, and open lines.

An open line has `...` in place of a formula. So that the other lines can be checked, lines of the
source run in the place of those that are open or wrong.
"""

import ast
import copy
import linecache
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.calls import describe
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.skeleton import Blank, blanks, set_by, simple_statements, skeleton
from tinygpt_np.learn.sources import MODELS, source_of
from tinygpt_np.study.source.parse import Function, StudyError, find_function
from tinygpt_np.study.source.paths import Namespace

# The comment by which a learner names the wrong line.
BUG_COMMENT = re.compile(r"#.*\bbug\b", re.IGNORECASE)


class AttemptError(ValueError):
    """A file that cannot be checked; the message says what is wrong. line: its number, or 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Attempt:
    """The functions of a learner.

    module: the global names of the functions. forward, backward: their sources. functions: the
    functions themselves.
    """

    exercise: Exercise
    module: Namespace
    forward: Function
    backward: Function
    functions: tuple[Callable[..., Any], Callable[..., Any]]

    @property
    def is_own_forward(self) -> bool:
        """Whether the learner has changed forward."""
        original = find_function(skeleton(self.exercise), "forward", self.forward.file)
        return code_of(original) != code_of(self.forward)

    @cached_property
    def open_lines(self) -> list[ast.stmt]:
        """The statements of backward that are open, in order."""
        return [node for node in simple_statements(self.backward.node.body) if is_open(node)]

    @cached_property
    def marked(self) -> list[int]:
        """The numbers of the lines of backward with the comment `# bug`."""
        node = self.backward.node
        lines = enumerate(self.backward.lines[: node.end_lineno], 1)
        return [
            number
            for number, line in lines
            if number > node.lineno
            and BUG_COMMENT.search(line)
            and not line.lstrip().startswith("#")
        ]

    @property
    def bug_line(self) -> ast.stmt | None:
        """The marked statement, if it is in the place of the planted bug; or None.

        The place is counted from the first or from the last statement, because a repair may add
        statements before or after it.
        """
        bug, source = self.exercise.bug, source_of(self.exercise).backward
        theirs, ours = (simple_statements(f.node.body) for f in (self.backward, source))
        for i, node in enumerate(theirs):
            is_marked = any(node.lineno <= n <= (node.end_lineno or 0) for n in self.marked)
            if bug and is_marked and bug.place(ours) in (i, i - len(theirs) + len(ours)):
                return node
        return None

    @property
    def has_changed_marked_line(self) -> bool:
        """Whether a marked statement is not one of the file as it was written."""
        given = find_function(skeleton(self.exercise), "backward", self.backward.file)
        texts = {ast.unparse(node) for node in simple_statements(given.node.body)}
        own = simple_statements(self.backward.node.body)
        return any(ast.unparse(n) not in texts for n in own if n.lineno in self.marked)

    def blank_of(self, node: ast.stmt) -> Blank | None:
        """Return the line of the source that sets the same names, or None.

        If several lines set them, it is the one under the same quoted line, or the one with the
        same number among them.
        """
        names = set_by(node)
        same = [blank for blank in blanks(self.exercise) if blank.names == names]
        above = self.backward.comments_above(node.lineno)
        quoted = [blank for blank in same if blank.quote and blank.quote in above[:1]]
        if len(quoted) == 1:
            return quoted[0]
        nodes = [n for n in simple_statements(self.backward.node.body) if set_by(n) == names]
        number = next(i for i, each in enumerate(nodes) if each is node)
        return same[min(number, len(same) - 1)] if same else None

    def with_source(self, lines: Mapping[int, Blank], added: Mapping[int, Blank]) -> Function:
        """Return backward with lines of the source.

        lines: those in the place of the statement on a line. added: those after it.
        """
        tree = WithSource(lines, added).visit(copy.deepcopy(self.backward.node))
        return replace(self.backward, node=tree)

    @property
    def open_blanks(self) -> dict[int, Blank]:
        """The lines of the source that correspond to open ones, by the number of the line."""
        pairs = ((node.lineno, self.blank_of(node)) for node in self.open_lines)
        return {number: blank for number, blank in pairs if blank is not None}

    @property
    def completed(self) -> Callable[..., Any]:
        """The function backward, with the lines of the source in the place of the open ones."""
        if not self.open_lines:
            return self.functions[1]
        tree = ast.fix_missing_locations(
            ast.Module([self.with_source(self.open_blanks, {}).node], [])
        )
        names = {**vars(source_of(self.exercise).module), **self.module}
        exec(compile(tree, self.backward.file, "exec"), names)
        return names[self.backward.name]


class WithSource(ast.NodeTransformer):
    """Put lines of the source into a backward; see Attempt.with_source."""

    def __init__(self, lines: Mapping[int, Blank], added: Mapping[int, Blank]) -> None:
        self.lines, self.added = lines, added

    def generic_visit(self, node: ast.AST) -> Any:
        """Replace a simple statement, or add others after it, at its place in the file."""
        number = getattr(node, "lineno", 0)
        is_simple = isinstance(node, ast.stmt) and not hasattr(node, "body")
        if not is_simple or not {number} & {*self.lines, *self.added}:
            return super().generic_visit(node)
        own = [node] if number not in self.lines else parsed_at(node, self.lines[number])
        return own + (parsed_at(node, self.added[number]) if number in self.added else [])


def parsed_at(node: ast.AST, blank: Blank) -> list[ast.stmt]:
    """Return the statements of a line of the source, at the place of another statement."""
    new = ast.parse(blank.solution).body
    for part in (part for each in new for part in ast.walk(each)):
        if hasattr(part, "lineno"):
            ast.copy_location(part, node)
    return new


def copied(value: Any) -> Any:
    """Return a copy of an array, and any other value itself."""
    return np.copy(cast(Any, value)) if isinstance(value, np.ndarray) else value


def is_open(node: ast.AST) -> bool:
    """Return whether a statement has `...` as a value; x[..., None] has it as an index."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    return any(isinstance(n, ast.Constant) and n.value is ... for n in outside_indices(node))


def outside_indices(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a tree that are in no index."""
    yield node
    for name, value in ast.iter_fields(node):
        if not (isinstance(node, ast.Subscript) and name == "slice"):
            parts = cast(list[Any], value if isinstance(value, list) else [value])
            for part in parts:
                if isinstance(part, ast.AST):
                    yield from outside_indices(part)


def code_of(function: Function) -> str:
    """Return a function as a tree, without its docstring and comments."""
    return ast.dump(ast.Module(function.body, [])) + ast.dump(function.node.args)


def read_file(exercise: Exercise, text: str, file: str) -> Attempt:
    """Run the text of a learner's file. Raise AttemptError if that fails."""
    try:
        code = compile(text, file, "exec")
    except SyntaxError as error:
        raise AttemptError(f"{error.msg}: this is not valid Python", error.lineno or 0) from None
    except (ValueError, OverflowError) as error:
        raise AttemptError(str(error)) from None
    except (RecursionError, MemoryError):
        raise AttemptError("an expression of the file has too many parts in each other") from None
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module: Namespace = {"__name__": exercise.name, "__file__": file}
    try:
        exec(code, module)
    except Exception as error:
        raise AttemptError(described(error), line_of(error, file)) from None
    try:
        forward, backward = (find_function(text, name, file) for name in ("forward", "backward"))
    except StudyError as error:
        raise AttemptError(str(error)) from None
    return attempt(exercise, module, forward, backward)


def attempt(
    exercise: Exercise, module: Namespace, forward: Function, backward: Function
) -> Attempt:
    """Return an attempt. Raise AttemptError if its functions take other arguments."""
    source = source_of(exercise)
    for found, wanted in ((forward, source.forward), (backward, source.backward)):
        is_named = found is forward or exercise.subject in MODELS
        if not takes(found.node.args, wanted.arguments, is_named):
            form = f"{found.name}({', '.join(wanted.arguments)})"
            given = f"{found.name}({ast.unparse(found.node.args)})"
            message = f"{found.name} must take the arguments {form}, not {given}"
            raise AttemptError(message, found.node.lineno)
    functions = module.get(forward.name), module.get(backward.name)
    if not all(map(callable, functions)):
        raise AttemptError("forward and backward must be functions")
    return Attempt(exercise, module, forward, backward, functions)  # pyright: ignore[reportArgumentType]


def takes(found: ast.arguments, wanted: Sequence[str], is_named: bool) -> bool:
    """Return whether arguments are the wanted ones in their order, and any others have defaults.

    is_named: whether they must have these names. Otherwise, none has the name of another one.
    """
    positional = [*found.posonlyargs, *found.args]
    required = len(positional) - len(found.defaults)
    if None in found.kw_defaults or not required <= len(wanted) <= len(positional):
        return False
    pairs = zip(positional, wanted, strict=False)
    return all(p.arg == name or not (is_named or p.arg in wanted) for p, name in pairs)


def line_of(error: BaseException, file: str) -> int:
    """Return the last line of a file that an exception passed through, or 0."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == file), 0)


def described(error: BaseException) -> str:
    """Return an exception in a line."""
    return f"raises {describe(error)}"
