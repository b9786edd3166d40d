"""The benchmarks' commands. Exits with 2 and a line if what is asked for cannot be done."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks import attention, machine, matmul, sample, train
from benchmarks.contest import check_json, run
from benchmarks.rounds import DisagreementError
from benchmarks.workers import WorkerError
from benchmarks.works import WORKS

NO_PYTORCH = "PyTorch is not installed: pip install '.[bench]'"
STOPPED = 130  # the exit code of what Ctrl-C ended


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser()
    asked = parser.parse_args(arguments)
    try:
        check(asked)
    except ValueError as error:
        parser.error(str(error))
    try:
        complete = measure(asked)
    except (DisagreementError, WorkerError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(0 if complete else STOPPED)


def measure(asked: argparse.Namespace) -> bool:
    """Runs what was asked for; returns whether it came to its end."""
    if asked.command == "matmul":
        return matmul.run(matmul.SHAPES_OF, asked.rounds or matmul.ROUNDS, asked.json)
    pytorch = importlib.util.find_spec("torch") is not None
    if not pytorch:
        print(NO_PYTORCH, file=sys.stderr)
    if asked.command == "sample":
        work, rounds = WORKS[sample.WORK], asked.rounds or sample.ROUNDS
        return sample.run(work, sample.TOKENS, asked.threads, rounds, pytorch, asked.json)
    ours = {"backend": asked.backend}
    if asked.command == "train":
        ours["matmul"] = asked.matmul
        contests = [
            train.contest(WORKS[name], asked.threads, asked.rounds, ours, pytorch)
            for name in dict.fromkeys(asked.work)
        ]
    else:
        contests = [
            attention.contest(attention.SIZES, asked.threads, asked.rounds, asked.backend, pytorch)
        ]
    return run(asked.command, contests, asked.threads, ours, asked.json)


def make_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="How fast it is, and against what.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    step = commands.add_parser(
        "train", parents=[common(machine.cpus()), backend()], help="the training step"
    )
    step.add_argument(
        "--work", nargs="+", default=list(WORKS), metavar="WORK", help=", ".join(WORKS)
    )
    step.add_argument("--matmul", choices=["numba", "blas"], default="numba", help="our products")
    commands.add_parser(
        "attention", parents=[common(machine.cpus()), backend()], help="causal attention, both ways"
    )
    commands.add_parser("matmul", parents=[common(1)], help="the products of training, by NumPy's")
    commands.add_parser("sample", parents=[common(machine.cpus())], help="generating text")
    return parser


def common(threads: int) -> Parser:
    """The flags of all commands. threads: by default."""
    parser = Parser(add_help=False)
    parser.add_argument("--threads", type=int, default=threads, help="of each side")
    parser.add_argument("--rounds", type=int, help="turns of each side; by default enough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a new file for all samples")
    return parser


def backend() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument(
        "--backend", default="numba", choices=["numba", "numpy"], help=argparse.SUPPRESS
    )
    return parser


def check(asked: argparse.Namespace) -> None:
    """Raises ValueError if it cannot be done, before anything is measured."""
    for name in getattr(asked, "work", ()):
        if name not in WORKS:
            raise ValueError(f"--work must be of {', '.join(WORKS)}, not {name}")
    if not 1 <= asked.threads <= machine.cpus():
        have = machine.cpus()
        raise ValueError(f"--threads must be from 1 to {have}, the CPUs here, not {asked.threads}")
    if asked.command == "matmul" and asked.threads != 1:
        raise ValueError(f"--threads must be 1, for a product is one thread's, not {asked.threads}")
    if asked.rounds is not None and asked.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, not {asked.rounds}")
    if asked.json is not None:
        check_json(asked.json)


if __name__ == "__main__":
    main()
