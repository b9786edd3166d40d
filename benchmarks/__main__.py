"""The benchmarks' commands. Exits with 2 and a line if what is asked for cannot be done."""

import argparse
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks import (
    attention,
    compare,
    figures,
    kernels,
    pretrained,
    sample,
    tasks,
    tokenizers,
    train,
)
from benchmarks.contest import check_json, run
from benchmarks.kernels import Plan
from benchmarks.rounds import DisagreementError
from benchmarks.workers import WorkerError
from benchmarks.works import WORKS
from tinygpt_np.machine import usable_cores
from tinygpt_np.text.corpus import DataError
from tinygpt_np.text.tokenizers import TokenizerError

NO_PYTORCH = "PyTorch is not installed: pip install '.[bench]'"
NO_TRANSFORMERS = "transformers is not installed: pip install '.[bench]'"
QUICK_SHAPES = ("cpu",)
FEW = 5  # rounds; of fewer no interval says enough
STOPPED = 130  # the exit code of what Ctrl-C ended


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    for stream in (sys.stdout, sys.stderr):  # A terminal without ▲ shows a ? instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = make_parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = parser.parse_args(arguments or ["--help"])
    try:
        check(asked)
    except ValueError as error:
        parser.error(str(error))
    try:
        code = climb(asked) if asked.command == "kernels" else contest(asked)
    except (DisagreementError, WorkerError, OSError, TokenizerError, DataError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(code)


def contest(asked: argparse.Namespace) -> int:
    """Runs the contest that was asked for; returns the exit code."""
    return 0 if measure(asked) else STOPPED


def climb(asked: argparse.Namespace) -> int:
    """Run the ladders; return the exit code."""
    before = None if asked.compare is None else compare.load(asked.compare)
    plan = Plan(
        operations=asked.operations or tasks.OPERATIONS,
        shapes=asked.shapes or (QUICK_SHAPES if asked.quick else tasks.SHAPES),
        threads=sorted(set(asked.threads or (1, usable_cores()))),
        rounds=asked.rounds or (kernels.QUICK_ROUNDS if asked.quick else kernels.ROUNDS),
        last_only=asked.rungs == "last",
        asm=asked.asm,
        peers=tuple(dict.fromkeys(asked.peers)),
        llmc=None if asked.llmc is None else str(asked.llmc),
    )
    found = kernels.run(plan, asked.json, before)
    if not found["complete"]:
        return STOPPED
    if before is None:
        return 0
    return int(
        compare.show(compare.differences(before, figures.figures(found)), Console(highlight=False))
    )


def measure(asked: argparse.Namespace) -> bool:
    """Whether it came to its end."""
    if asked.command == "matmul":
        # Not imported above: it brings the kernels, which are compiled when there are none yet.
        from benchmarks import matmul

        return matmul.run(matmul.SHAPES_OF, asked.rounds or matmul.ROUNDS, asked.json)
    if asked.command == "tokenizers":
        rounds = asked.rounds or tokenizers.ROUNDS
        tokenizers.run(asked.data, asked.gpt2, asked.seconds, rounds, asked.threads, asked.json)
        return True
    if asked.command == "pretrained":
        peer = importlib.util.find_spec("transformers") is not None
        if not peer:
            print(NO_TRANSFORMERS, file=sys.stderr)
        return pretrained.measure(asked.threads, asked.rounds, peer, asked.json)
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
    add_kernels(commands)
    step = commands.add_parser(
        "train", parents=[common(usable_cores()), backend()], help="the training step"
    )
    step.add_argument(
        "--work", nargs="+", default=list(WORKS), metavar="WORK", help=", ".join(WORKS)
    )
    step.add_argument("--matmul", choices=["numba", "blas"], default="numba", help="our products")
    commands.add_parser(
        "attention", parents=[common(usable_cores()), backend()], help="causal attention, both ways"
    )
    commands.add_parser("matmul", parents=[common(1)], help="the products of training, by NumPy's")
    commands.add_parser("sample", parents=[common(usable_cores())], help="generating text")
    commands.add_parser(
        "pretrained", parents=[common(usable_cores())], help="writing from a GPT-2 checkpoint"
    )
    compared = commands.add_parser(
        "tokenizers",
        parents=[common(usable_cores())],
        help="characters, pieces and byte pairs, in bits per character",
    )
    compared.add_argument("--data", default="shakespeare", help="as tinygpt train takes it")
    compared.add_argument("--gpt2", default="", metavar="PATH", help="files of GPT-2's tokenizer")
    compared.add_argument(
        "--seconds", type=float, default=tokenizers.SECONDS, help="of training, of each"
    )
    return parser


def add_kernels(commands: Any) -> None:
    climbing = commands.add_parser(
        "kernels",
        help="ladders of kernels, from the first try to what training uses",
        description="Ladders of kernels, from loops in Python to what training uses. Each rung is "
        "checked, then timed in turns with the others. Figures and a page are written to "
        "benchmarks/results/.",
    )
    climbing.add_argument(
        "operations", nargs="*", metavar="OPERATION", help=", ".join(tasks.OPERATIONS)
    )
    climbing.add_argument(
        "--rungs", choices=["all", "last"], default="all", help="last: only what training uses"
    )
    climbing.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="cpu, lecture, gpt2: a micro-batch of training at these sizes; awkward: sizes that no "
        "vector or tile divides; by default all, with --quick cpu",
    )
    climbing.add_argument(
        "--threads",
        type=int,
        nargs="+",
        help="for each of these, of what can use several; by default 1 and all CPUs",
    )
    climbing.add_argument(
        "--rounds",
        type=int,
        help=f"turns of each; by default {kernels.ROUNDS}, with --quick {kernels.QUICK_ROUNDS}",
    )
    climbing.add_argument(
        "--quick", action="store_true", help="a minute: fewer rounds, and the shape cpu"
    )
    climbing.add_argument(
        "--asm",
        action="store_true",
        help="also, of the arithmetic instructions, the share that works on vectors",
    )
    climbing.add_argument(
        "--peers",
        nargs="+",
        default=[],
        choices=kernels.PEERS,
        help="others to do the same tasks",
    )
    climbing.add_argument(
        "--llmc", type=Path, metavar="DIR", help="a checkout of llm.c, for the peer llmc"
    )
    climbing.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="a new .json file for the figures; the page has the same name",
    )
    climbing.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="a result of before; exits with 1 if a kernel is slower now",
    )


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
    if asked.command == "kernels":
        check_kernels(asked)
        return
    for name in getattr(asked, "work", ()):
        if name not in WORKS:
            raise ValueError(f"--work must be of {', '.join(WORKS)}, not {name}")
    check_threads(asked.threads)
    if asked.command == "tokenizers" and not asked.seconds > 0:
        raise ValueError(f"--seconds must be more than 0, not {asked.seconds}")
    if asked.command == "matmul" and asked.threads != 1:
        raise ValueError(f"--threads must be 1, for a product is one thread's, not {asked.threads}")
    check_rounds_and_json(asked)


def check_threads(threads: int) -> None:
    have = usable_cores()
    if not 1 <= threads <= have:
        raise ValueError(f"--threads must be from 1 to {have}, the CPUs here, not {threads}")


def check_rounds_and_json(asked: argparse.Namespace) -> None:
    if asked.rounds is not None and asked.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, not {asked.rounds}")
    if asked.json is not None:
        check_json(asked.json)


def check_kernels(asked: argparse.Namespace) -> None:
    for name in asked.operations:
        if name not in tasks.OPERATIONS:
            known = ", ".join(tasks.OPERATIONS)
            raise ValueError(f"an operation must be of {known}, not {name}")
    for name in asked.shapes or ():
        if name not in tasks.SHAPES:
            raise ValueError(f"--shapes must be of {', '.join(tasks.SHAPES)}, not {name}")
    for threads in asked.threads or ():
        check_threads(threads)
    if "llmc" in asked.peers and asked.llmc is None:
        raise ValueError("--peers llmc needs --llmc DIR, a checkout of llm.c")
    if asked.llmc is not None and not (asked.llmc / "train_gpt2.c").is_file():
        raise ValueError(f"--llmc must be a checkout of llm.c: {asked.llmc} has no train_gpt2.c")
    if asked.json is not None and asked.json.suffix != ".json":
        raise ValueError(f"--json must be a file that ends in .json, not {asked.json}")
    if asked.compare is not None:
        if asked.rounds is not None and asked.rounds < FEW:
            raise ValueError(f"--compare needs --rounds {FEW} at the least, not {asked.rounds}")
        before = {task["operation"] for task in compare.load(asked.compare)["tasks"]}
        if not before & set(asked.operations or tasks.OPERATIONS):
            raise ValueError(f"{asked.compare} has none of the operations that are asked for")
    if asked.json is None:
        asked.json = kernels.new_path()
    check_rounds_and_json(asked)
    check_json(asked.json.with_suffix(".html"))


if __name__ == "__main__":
    main()
