"""Command-line flags made from the fields of a dataclass.

The field max_iters is the flag --max-iters (or --max_iters). Its type determines the valid values,
and the string below it is its help. `Annotated[str, Argument("FILE")]` names the value in the help
or makes the field positional. A `Switch` has no --no- form.
"""

import argparse
import ast
import contextlib
import difflib
import inspect
import itertools
import math
import re
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

NO_FORM = "has no --no- form"
Switch = Annotated[bool, NO_FORM]
# A field of this name is not a flag; it receives the names of the fields set on the command line.
TYPED = "typed"
METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", Path: "PATH"}
EXPECTED: dict[Any, str] = {int: "an integer", float: "a finite number", Path: "a path"}
# Error messages show at most this many characters of a value.
SHOWN = 60


class Argument(NamedTuple):
    """The name of a value in the help, and whether it is positional and shown without brackets."""

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
        return "\n".join(self._split_lines(text, width))


class Parser(argparse.ArgumentParser):
    """The arguments of a command, by their flags and in their order, for argparse's help.

    The command line is read here: argparse takes a value that starts with a hyphen for a flag, and
    fails on positional arguments on both sides of a flag.
    """

    def __init__(self, defaults: Any, program: str) -> None:
        super().__init__(
            program,
            f"{program} [flags]",
            " ".join((inspect.getdoc(defaults) or "").split()),
            add_help=False,
            formatter_class=Formatter,
        )
        self.flags: dict[str, argparse.Action] = {}
        self.positional: list[argparse.Action] = []
        self.kinds: dict[str, Any] = {}
        self.add("--help", action="help", help="Show this help.")
        hints = get_type_hints(defaults.__class__, include_extras=True)
        texts = help_of(defaults.__class__)
        for name in (field.name for field in fields(defaults) if field.name != TYPED):
            self.add_field(name, hints[name], getattr(defaults, name), texts.get(name, ""))

    def add(self, name: str, **options: Any) -> None:
        """Add an argument; a name without hyphens is positional."""
        action = self.add_argument(name, **options)
        self.flags |= dict.fromkeys(action.option_strings, action)
        if not action.option_strings:
            self.positional.append(action)

    def add_field(self, name: str, hint: Any, default: Any, text: str) -> None:
        """Add the argument of a field. text: its help."""
        marks, kind, flag = getattr(hint, "__metadata__", ()), without_none(hint), flag_of(name)
        if kind is bool and NO_FORM in marks:
            self.add(flag, action="store_true", help=text)
        elif kind is bool:
            text += f" (default: {'--' if default else '--no-'}{flag[2:]})"
            self.add(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            several = get_origin(kind) is tuple
            self.kinds[name] = get_args(kind)[0] if several else kind
            choices = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else "TEXT"
            named = (mark for mark in marks if isinstance(mark, Argument))
            mark = next(named, Argument(METAVARS.get(kind, choices)))
            if default not in (None, "", ()):
                text += f" (default: {' '.join(default) if several else default})"
            if mark.positional:
                shown = f"{mark.metavar}{' ...' if several else ''}"
                self.usage = f"{self.usage} {shown if mark.required else f'[{shown}]'}"
            self.add(
                name if mark.positional else flag,
                nargs=("*" if mark.positional else "+") if several else None,
                help=text.replace("%", "%%"),
                metavar=mark.metavar,
            )

    def read(self, argv: list[str]) -> dict[str, Any]:
        """Return the values on the command line, by field. Raise ValueError for a wrong flag.

        Positional arguments that are left over have the name "".
        """
        found: dict[str, Any] = {}
        positional: list[str] = []
        more = ""  # The last field, if it takes more values.
        rest = iter(argv)
        for token in rest:
            name, equals, value = split("--help" if token == "-h" else token)
            action = self.flags.get(name)
            if token == "--":
                positional += rest
            elif action is None and name.startswith("-") and name != "-":
                close = difflib.get_close_matches(name, self.flags, 1)
                guess = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"there is no flag {name}{guess}")
            elif action is None and more:
                found[more] += (token,)
            elif action is None:
                positional.append(token)
            elif action.nargs == 0:
                if equals:
                    raise ValueError(f"{name} takes no value, but {value!r} was given")
                if name == "--help":
                    self.print_help()
                    self.exit()
                found[action.dest], more = not name.startswith("--no-"), ""
            else:
                if not equals:
                    value = next(rest, "--help")
                    if split(value)[0] in self.flags:
                        raise ValueError(f"{name} needs a value")
                converted = self.convert(action.dest, name, value)
                several = action.nargs == "+"
                found[action.dest] = (converted,) if several else converted
                more = action.dest if several and not equals else ""
        for action in self.positional:
            if positional:
                count = len(positional) if action.nargs else 1
                taken, positional = positional[:count], positional[count:]
                found[action.dest] = tuple(taken) if action.nargs else taken[0]
        return found | ({"": positional} if positional else {})

    def convert(self, field: str, name: str, text: str) -> Any:
        """Convert a value. Raise ValueError, which names the flag and what is expected."""
        if text == "--":
            raise ValueError(f"{name} needs a value other than --")
        kind: Any = self.kinds[field]
        choices = get_args(kind)
        value: Any = text
        try:
            value = text if choices else kind(text)
            right = value in choices if choices else text != "" or kind is str
            right = right and (kind is not float or math.isfinite(value))
        except ValueError:
            right = False
        if not right:
            shown = repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"
            wanted = EXPECTED.get(kind, f"one of {', '.join(choices)}")
            raise ValueError(f"{name} must be {wanted}, not {shown}")
        return value


def parse(defaults: Any, program: str, argv: list[str]) -> Any:
    """Return the dataclass with the values on the command line.

    With --help, print the help and exit. Raise UsageError, which names the flag, for a wrong
    command line. The dataclass may have a method `hint` with advice about unexpected arguments.
    """
    try:
        settings = Parser(defaults, program).read(argv)
    except ValueError as error:
        raise UsageError(str(error), program) from None
    if "" in settings:
        words, hint = " ".join(settings[""]), getattr(defaults, "hint", None)
        advice = f"; {hint(words)}" if hint else ""
        raise UsageError(f"unexpected argument {words}{advice}", program)
    if hasattr(defaults, TYPED):
        settings[TYPED] = tuple(settings)
    try:
        return replace(defaults, **settings)
    except ValueError as error:
        raise UsageError(with_flags(str(error), defaults), program) from None


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return f"--{name.replace('_', '-')}"


def without_none(hint: Any) -> Any:
    """Return the type of a field without Annotated and `| None`."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    others = [part for part in get_args(kind) if part is not NoneType]
    return others[0] if NoneType in get_args(kind) else kind


def help_of(job: type) -> dict[str, str]:
    """Return the string below each field in the source of a dataclass and its bases."""
    found: dict[str, str] = {}
    for kind in job.__mro__[:-1]:
        with contextlib.suppress(OSError):  # The source may be missing.
            node: Any = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
            for field, below in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    name, text = ast.unparse(field.target), ast.literal_eval(below.value)
                    found.setdefault(name, " ".join(text.split()))
    return found


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
