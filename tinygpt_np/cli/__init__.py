"""The command `tinygpt`: one file per subcommand, with flags made from its dataclass."""

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from tinygpt_np import __version__
from tinygpt_np.cli import flags
from tinygpt_np.cli.flags import UsageError
from tinygpt_np.cli.output import Output
from tinygpt_np.compiled import settings
from tinygpt_np.machine import available_memory, launched, launched_rank

ABOUT = "A GPT in NumPy with hand-written gradients, compiled with Numba."
# The commands and what they do.
COMMANDS = {
    "train": "Train a GPT on a text, or resume a run (--resume).",
    "sample": "Generate text with a trained model, token by token.",
    "runs": "List the runs in runs/, or compare the settings of some.",
    "convert": "Convert nanoGPT's ckpt.pt, or a run, to a folder that transformers loads.",
    "tokenize": "Show the tokens of a text, or learn a vocabulary from one (--train).",
    "prepare": "Encode texts of any size as train.bin and val.bin.",
    "gradcheck": "Check every hand-written gradient against a numerical one.",
    "study": "Check each backward line and show it next to its forward line.",
    "learn": "Write every backward yourself, checked line by line.",
    "lecture": "Run a lecture chapter, or list the chapters.",
    "doctor": "Show the machine, and test every compiled kernel on it.",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command `tinygpt`.

    Exit with 2 if the command line is wrong, and with 1 after any other error. Either is explained
    in a sentence on stderr.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # All output is UTF-8, whatever the locale; bytes that are not text are escaped.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    console, report = Output(highlight=False), fail
    try:
        if launched() is None:
            run(argv, console)
            return
        # It imports NumPy.
        from tinygpt_np.training.ranks import group

        with group.start() as ranks:
            if ranks.monitor is not None:
                # The first rank prints; if another fails, the monitor prints its message.
                console.quiet, report = ranks.rank > 0, ranks.monitor.failed
                name = argv[0] if argv else ""
                if name in COMMANDS and name not in ("train", "sample"):
                    problem = f"tinygpt {name} does not run on several ranks; train and sample do"
                    raise UsageError(problem, f"tinygpt {name}")
            run(argv, console)
    except KeyboardInterrupt:
        report("", 130)
    except BrokenPipeError as error:
        # The reader of the output has gone, as in `| head`. The rest of the output is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno is None:  # Raised by a command with a message, not by the system.
            report(str(error))
    except UsageError as error:
        report(str(error), 2)
    except MemoryError as error:
        report(
            f"there is not enough memory for tinygpt {' '.join(argv[:1])}: "
            f"{str(error) or 'one allocation was too large'}; "
            f"{available_memory() / 1e6:,.0f} MB are available, unless ulimit allows less"
        )
    except (ValueError, RuntimeError, OSError) as error:
        report(str(error))


def open_streams() -> None:
    """Open standard streams that are closed, as after `>&-`, and discard their output.

    Otherwise the next file opened would get the number of a standard stream, and a library that
    prints would write into that file.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
        sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error message and exit. Of several processes, the first one prints."""
    if not message or launched_rank() > 0:
        sys.exit(code)
    # File names in it may contain control characters.
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    with contextlib.suppress(BrokenPipeError):
        Output(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]tinygpt:[/bold red] {escape(message)}"
        )
    sys.exit(code)


def run(argv: list[str], console: Console) -> None:
    """Run the subcommand on the command line. Raise UsageError if there is no such subcommand."""
    name = argv[0] if argv else ""
    if not argv:
        print_help(Output(stderr=True, highlight=False, quiet=console.quiet))
        sys.exit(2)
    elif name in ("--help", "-h"):
        print_help(console)
    elif name == "--version":
        console.print(f"tinygpt-np {__version__}")
    elif name in COMMANDS:
        job, notes = parse(argv)
        # Standard output is for results, such as the text of a sample.
        errors = Output(stderr=True, highlight=False, soft_wrap=True, quiet=console.quiet)
        for note in notes:
            errors.print(f"[bold]note[/bold]  {escape(note)}")
        job.execute(console)
    else:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        guess = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {name or repr(name)}; {guess}", "tinygpt")


def load_command(name: str) -> Any:
    """Import the dataclass of a command, which has its flags and its method execute."""
    match name:
        case "train":
            from tinygpt_np.cli.train import Train as Command
        case "sample":
            from tinygpt_np.cli.sample import Sample as Command
        case "runs":
            from tinygpt_np.cli.runs import Runs as Command
        case "convert":
            from tinygpt_np.cli.convert import Convert as Command
        case "tokenize":
            from tinygpt_np.cli.tokenize import Tokenize as Command
        case "prepare":
            from tinygpt_np.cli.prepare import Prepare as Command
        case "gradcheck":
            from tinygpt_np.cli.gradcheck import Gradcheck as Command
        case "study":
            from tinygpt_np.cli.study import Study as Command
        case "learn":
            from tinygpt_np.cli.learn import Learn as Command
        case "lecture":
            from tinygpt_np.cli.lecture import Lecture as Command
        case _:
            from tinygpt_np.cli.doctor import Doctor as Command
    return Command


def parse(argv: list[str]) -> tuple[Any, list[str]]:
    """Return the job on the command line, and notes on flags that are ignored."""
    name, notes, resumes = argv[0], list[str](), False
    command = load_command(name)
    defaults = command.defaults(argv) if name == "train" else command()
    if name in ("train", "sample"):
        from tinygpt_np.cli import nanogpt

        resumes = nanogpt.value_of(argv, "resume") is not None
        try:
            argv, notes = nanogpt.translate(argv, defaults)
        except ValueError as error:
            raise UsageError(str(error), f"tinygpt {name}") from None
    setting = settings.compiler_is_off()
    if setting and getattr(defaults, "backend", "") == "numba" and not resumes:
        defaults = replace(defaults, backend="numpy")
    job = flags.parse(defaults, f"tinygpt {name}", argv[1:])
    if setting and getattr(job, "backend", "") == "numpy":
        notes.append(f"{setting} turns Numba's compiler off, so the NumPy backend is used")
    elif setting and name == "gradcheck":
        notes.append(f"{setting} turns Numba's compiler off, so only NumPy's code is checked")
    return job, notes


def print_help(console: Console) -> None:
    """List the commands."""
    console.print(f"usage: tinygpt COMMAND [flags]\n\n{ABOUT}\n", markup=False)
    for name, summary in COMMANDS.items():
        console.print(f"  {name:10} {summary}", markup=False, soft_wrap=True)
    console.print(
        "\ntinygpt COMMAND --help lists its flags; tinygpt --version prints the version.",
        soft_wrap=True,
    )
