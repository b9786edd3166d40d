"""The front door: one subcommand per job, with flags made from the dataclasses of its file."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tyro
from rich.console import Console
from rich.markup import escape

from tinygpt_np.cli.convert import Convert, run_convert
from tinygpt_np.cli.doctor import Doctor, run_doctor
from tinygpt_np.cli.gradcheck import Gradcheck, run_gradcheck
from tinygpt_np.cli.lecture import Lecture, run_lecture
from tinygpt_np.cli.nanogpt import translate_sample, translate_train
from tinygpt_np.cli.prepare import Prepare, run_prepare
from tinygpt_np.cli.sample import Sample, run_sample
from tinygpt_np.cli.study import Study, run_study
from tinygpt_np.cli.tokenize import Tokenize, run_tokenize
from tinygpt_np.cli.train import Train, run_train, train_defaults

DESCRIPTION = "A GPT whose every gradient is written by hand in NumPy."
RUN: dict[type, Callable[[Any, Console], None]] = {
    Train: run_train,
    Sample: run_sample,
    Convert: run_convert,
    Tokenize: run_tokenize,
    Prepare: run_prepare,
    Gradcheck: run_gradcheck,
    Study: run_study,
    Lecture: run_lecture,
    Doctor: run_doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `tinygpt`. Exits with 1 and a line of explanation when something is wrong."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever the system's, as all texts here are; what is no text is shown escaped.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    console = Console(highlight=False)
    try:
        notes: list[str] = []
        if argv[:1] == ["train"]:
            argv, notes = translate_train(argv, train_defaults(argv))
        elif argv[:1] == ["sample"]:
            argv, notes = translate_sample(argv)
        job = parse(argv)
        # Notes do not go to standard output, which is for the text that sample writes.
        errors = Console(stderr=True, highlight=False, soft_wrap=True)
        for note in notes:
            errors.print(f"[bold]note[/bold]  {escape(note)}")
        RUN[type(job)](job, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone (as `head` does); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError as error:
        fail(f"there is not enough memory: {error}")
    except (ValueError, RuntimeError, OSError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]tinygpt:[/bold red] {escape(message)}"
    )
    sys.exit(1)


def parse(argv: list[str]) -> Any:
    """The job on the command line."""
    jobs = {
        "train": train_defaults(argv),
        "sample": Sample(),
        "convert": Convert(),
        "tokenize": Tokenize(),
        "prepare": Prepare(),
        "gradcheck": Gradcheck(),
        "study": Study(),
        "lecture": Lecture(),
        "doctor": Doctor(),
    }
    about = {name: (type(job).__doc__ or "").splitlines()[0] for name, job in jobs.items()}
    kind = tyro.extras.subcommand_type_from_defaults(jobs, about, prefix_names=False)
    return tyro.cli(kind, prog="tinygpt", description=DESCRIPTION, args=argv)
