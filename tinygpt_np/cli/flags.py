"""Command-line flags made from the fields of a dataclass.

The field max_iters is the flag --max-iters (or --max_iters). Its type determines the valid values,
and the string below it is its help. `Annotated[str, Argument("FILE")]` names the value in the help
or makes the field positional. A `Switch` has no --no- form.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

Job = TypeVar("Job")
NO_FORM = "has no --no- form"
Switch = Annotated[bool, NO_FORM]
# A field of this name is not a flag; it receives the names of the fields set on the command line.
TYPED = "typed"
# Error messages show at most this many characters of a value.
SHOWN = 60


@dataclass(frozen=True)
class Argument:
    """Name the value of a field in the help.

    positional: the value is given without a flag. required: the usage shows it without brackets.
    """

    metavar: str
    positional: bool = False
    required: bool = False


class UsageError(ValueError):
    """The command line is wrong. A pointer to --help is added to the message."""

    def __init__(self, problem: str, program: str) -> None:
        super().__init__(f"{problem} (see {program} --help)")


class Formatter(argparse.HelpFormatter):
    """An argparse formatter that never breaks a flag at its hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(
            " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent,
            break_on_hyphens=False,
        )  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises its errors. flags: its arguments by their flags."""

    def __init__(self, program: str, about: str) -> None:
        super().__init__(
            program,
            f"{program} [flags]",
            about,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=Formatter,
            exit_on_error=False,
        )
        self.flags: dict[str, argparse.Action] = {}

    def add(self, name: str, **options: Any) -> None:
        """Add an argument; a name without hyphens is positional."""
        action = self.add_argument(name, **options)
        self.flags |= dict.fromkeys(action.option_strings, action)


def parse(defaults: Job, program: str, argv: list[str]) -> Job:
    """Return the dataclass with the values on the command line.

    With --help, print the help and exit. Raise UsageError, which names the flag, for a wrong
    command line. The dataclass may have a method `hint` with advice about unexpected arguments.
    """
    parser = parser_of(defaults, program)
    try:
        given, rest = parser.parse_known_args(arranged(parser, argv))
    except argparse.ArgumentError as error:
        own = isinstance(error.__context__, argparse.ArgumentTypeError)
        problem = error.message if own else "needs a value"
        raise UsageError(f"{error.argument_name} {problem}", program) from None
    if rest:
        words = " ".join(word for word in rest if word != "--")
        hint = getattr(defaults, "hint", None)
        advice = f"; {hint(words)}" if hint else ""
        raise UsageError(f"unexpected argument {words}{advice}", program)
    for name, value in vars(given).items():
        if isinstance(value, list):
            setattr(given, name, tuple(cast(list[str], value)))
    settings = vars(given)
    if hasattr(defaults, TYPED):
        settings[TYPED] = tuple(settings)
    try:
        return replace(cast(Any, defaults), **settings)
    except ValueError as error:
        raise UsageError(with_flags(str(error), defaults), program) from None


def parser_of(defaults: Any, program: str) -> Parser:
    """Return a parser with an argument for each field of a dataclass."""
    kind = cast(Any, type(defaults))
    hints, documentation = get_type_hints(kind, include_extras=True), help_of(kind)
    parser = Parser(program, " ".join((inspect.getdoc(defaults) or "").split()))
    parser.add("--help", action="help", help="Show this help.")
    for field in fields(defaults):
        if field.name == TYPED:
            continue
        text = documentation.get(field.name, "")
        add_argument(parser, field.name, hints[field.name], getattr(defaults, field.name), text)
    return parser


def add_argument(parser: Parser, name: str, hint: Any, default: Any, text: str) -> None:
    """Add the argument of a field. text: its help."""
    marks, kind = getattr(hint, "__metadata__", ()), without_none(hint)
    mark = next((mark for mark in marks if isinstance(mark, Argument)), Argument(metavar_of(kind)))
    if kind is bool:
        if NO_FORM in marks:
            parser.add(flag_of(name), action="store_true", help=text)
        else:
            text += f" (default: {'--' if default else '--no-'}{flag_of(name)[2:]})"
            parser.add(flag_of(name), action=argparse.BooleanOptionalAction, help=text)
        return
    several = get_origin(kind) is tuple
    if default not in (None, "", ()):
        text += f" (default: {' '.join(default) if several else default})"
    options: dict[str, Any] = {"help": text.replace("%", "%%"), "metavar": mark.metavar}
    options["type"] = converter(get_args(kind)[0] if several else kind)
    if mark.positional:
        shown = f"{mark.metavar}{' ...' if several else ''}"
        parser.usage = f"{parser.usage} {shown if mark.required else f'[{shown}]'}"
        parser.add(name, nargs="*" if several else "?", **options)
    else:
        parser.add(flag_of(name), nargs="+" if several else None, **options)


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return f"--{name.replace('_', '-')}"


def without_none(hint: Any) -> Any:
    """Return the type of a field without Annotated and `| None`."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    others = [part for part in get_args(kind) if part is not NoneType]
    return others[0] if NoneType in get_args(kind) else kind


@functools.cache
def help_of(job: type) -> dict[str, str]:
    """Return the string below each field in the source of a dataclass and its bases."""
    found: dict[str, str] = {}
    for kind in job.__mro__[:-1]:
        with contextlib.suppress(OSError):  # The source may be missing.
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            assert isinstance(node, ast.ClassDef)
            for field, below in itertools.pairwise(node.body):
                match field, below:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        found.setdefault(name, " ".join(text.split()))
                    case _:
                        pass
    return found


def metavar_of(kind: Any) -> str:
    """Return the name of a value of this type in the help."""
    if get_origin(kind) is Literal:
        return f"{{{','.join(get_args(kind))}}}"
    return {int: "INT", float: "FLOAT", Path: "PATH"}.get(kind, "TEXT")


def converter(kind: Any) -> Callable[[str], Any]:
    """Return the function that converts an argument to a type.

    It raises argparse.ArgumentTypeError, with the expected and the actual value.
    """

    def convert(text: str) -> Any:
        if get_origin(kind) is Literal:
            expected, value = f"one of {', '.join(get_args(kind))}", text
            right = text in get_args(kind)
        elif kind is int or kind is float:
            expected = "an integer" if kind is int else "a finite number"
            try:
                value = kind(text)
                right = kind is int or math.isfinite(value)
            except ValueError:
                value, right = text, False
        else:
            expected, value, right = "a path", kind(text), kind is not Path or text != ""
        if not right:
            shown = repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"
            raise argparse.ArgumentTypeError(f"must be {expected}, not {shown}")
        return value

    return convert


def arranged(parser: Parser, argv: list[str]) -> list[str]:
    """Return the arguments with flags as `--flag=value`, and positional arguments last.

    argparse would take a value that starts with a hyphen for a flag, and fails on positional
    arguments on both sides of a flag. Raise UsageError for a flag that does not exist.
    """
    flags: list[str] = []
    positional: list[str] = []
    several = False  # Whether the last flag takes more values.
    rest = iter(argv)
    for token in rest:
        token = "--help" if token == "-h" else token
        name, equals, value = split(token)
        action = parser.flags.get(name)
        if token == "--":
            positional += rest
        elif action is None and name.startswith("-") and name != "-":
            close = difflib.get_close_matches(name, parser.flags, 1)
            guess = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"there is no flag {name}{guess}", parser.prog)
        elif action is None:
            (flags if several else positional).append(token)
        elif action.nargs == 0 and equals:
            raise UsageError(f"{name} takes no value, but {value!r} was given", parser.prog)
        elif action.nargs is None and not equals:
            following = next(rest, None)
            if following is None or split(following)[0] in parser.flags:
                raise UsageError(f"{name} needs a value", parser.prog)
            value = following
            flags.append(f"{name}={following}")
        else:
            flags.append(f"{name}{equals}{value}")
        if action and value == "--":  # argparse drops it.
            raise UsageError(f"{name} needs a value other than --", parser.prog)
        several = action.nargs == "+" and not equals if action else several
    return [*flags, "--", *positional] if positional else flags


def split(token: str) -> tuple[str, str, str]:
    """Return the flag, the equals sign and the value of an argument."""
    name, equals, value = token.partition("=")
    return (name.replace("_", "-") if name.startswith("--") else name), equals, value


def with_flags(message: str, job: Any) -> str:
    """Replace the names of fields in a message by their flags."""
    for field in fields(job):
        name = field.name
        # A single word is replaced only where it names the field: before "must" or "=".
        place = rf"\b{name}\b" if "_" in name else rf"^{name}\b(?= must)|\b{name}\b(?= = )"
        message = re.sub(place, flag_of(name), message)
    return message
