"""The command `tinygpt`: one subcommand per job, with flags made from the dataclass of its file."""

import ast
import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from tinygpt_np import __version__
from tinygpt_np.cli import flags
from tinygpt_np.cli.flags import UsageError
from tinygpt_np.cli.output import Output
from tinygpt_np.compiled import settings
from tinygpt_np.machine import available_memory

ABOUT = "A GPT whose every gradient is written by hand in NumPy."
# `train` is in cli/train.py: the dataclass Train and the function run_train. Only the file of the
# command that is run is imported.
COMMANDS = (
    "train",
    "sample",
    "runs",
    "convert",
    "tokenize",
    "prepare",
    "gradcheck",
    "study",
    "lecture",
    "doctor",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command `tinygpt`.

    Exits with 2 if the command line is wrong and with 1 if anything else is; both are explained in
    a sentence on stderr.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever the system's, as all texts here are; what is no text is shown escaped.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    console = Output(highlight=False)
    try:
        run(argv, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError as error:
        # The reader of the output has gone, as `head` does. The rest of the output is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno is None:  # Raised by a command, with a message, and not by the system.
            fail(str(error))
    except UsageError as error:
        fail(str(error), 2)
    except MemoryError as error:
        fail(
            f"there is not enough memory for tinygpt {' '.join(argv[:1])}: "
            f"{str(error) or 'one allocation was too large'}; "
            f"{available_memory() / 1e6:,.0f} MB are available, unless ulimit allows less"
        )
    except (ValueError, RuntimeError, OSError) as error:
        fail(str(error))


def open_streams() -> None:
    """Open the standard streams that the process was started without, as by `>&-`.

    Output is then thrown away. A file opened later would otherwise take the number of a stream, and
    libraries that print to it would write into that file.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
        sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def fail(message: str, code: int = 1) -> NoReturn:
    """Print why the command fails, and exit with a code."""
    # A name in it may have characters that a terminal takes for commands.
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    with contextlib.suppress(BrokenPipeError):
        Output(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]tinygpt:[/bold red] {escape(message)}"
        )
    sys.exit(code)


def run(argv: list[str], console: Console) -> None:
    """Run the subcommand on the command line. Raises UsageError if there is none."""
    name = argv[0] if argv else ""
    if not argv:
        print_help(Console(stderr=True, highlight=False))
        sys.exit(2)
    elif name in ("--help", "-h"):
        print_help(console)
    elif name == "--version":
        console.print(f"tinygpt-np {__version__}")
    elif name in COMMANDS:
        job, notes = parse(argv)
        # Notes do not go to standard output, which is for the text that sample writes.
        errors = Output(stderr=True, highlight=False, soft_wrap=True)
        for note in notes:
            errors.print(f"[bold]note[/bold]  {escape(note)}")
        getattr(module_of(name), f"run_{name}")(job, console)
    else:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        guess = f"do you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {name or repr(name)}; {guess}", "tinygpt")


def module_of(name: str) -> Any:
    """Import the file of a command."""
    return importlib.import_module(f"tinygpt_np.cli.{name}")


def parse(argv: list[str]) -> tuple[Any, list[str]]:
    """Return the job on the command line, and notes on flags that have no meaning here."""
    name, module = argv[0], module_of(argv[0])
    defaults, notes = getattr(module, name.capitalize())(), list[str]()
    if name == "train":
        defaults = module.train_defaults(argv)
        try:
            argv, notes = module_of("nanogpt").translate_train(argv, defaults)
        except ValueError as error:
            raise UsageError(str(error), "tinygpt train") from None
        defaults = module.train_defaults(argv)
    elif name == "sample":
        try:
            argv, notes = module_of("nanogpt").translate_sample(argv)
        except ValueError as error:
            raise UsageError(str(error), "tinygpt sample") from None
    setting = settings.compiler_is_off()
    resumes = name == "train" and module_of("nanogpt").value_of(argv, "resume") is not None
    if setting and getattr(defaults, "backend", "") == "numba" and not resumes:
        defaults = replace(defaults, backend="numpy")
    job = flags.parse(defaults, f"tinygpt {name}", argv[1:])
    if setting and getattr(job, "backend", "") == "numpy":
        notes.append(f"{setting} turns Numba's compiler off, so NumPy computes")
    elif setting and name == "gradcheck":
        notes.append(f"{setting} turns Numba's compiler off, so only NumPy's code is checked")
    return job, notes


def print_help(console: Console) -> None:
    """List the commands."""
    console.print(f"usage: tinygpt COMMAND [flags]\n\n{ABOUT}\n", markup=False)
    for name in COMMANDS:
        console.print(f"  {name:10} {summary(name)}", markup=False, soft_wrap=True)
    console.print(
        "\ntinygpt COMMAND --help lists its flags; tinygpt --version prints the version.",
        soft_wrap=True,
    )


def summary(name: str) -> str:
    """Return what a command does, from its file, without importing it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    kinds = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    job = next(kind for kind in kinds if kind.name == name.capitalize())
    return (ast.get_docstring(job) or "").partition("\n")[0]
