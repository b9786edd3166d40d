"""The command line: ``python -m benchmarks COMMAND``. Exits with 2 if a request is invalid."""

import argparse
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks import cases, experiments, kernels, tokenizers
from benchmarks.harness import compare
from benchmarks.harness.figures import check_path
from benchmarks.harness.rounds import DisagreementError
from benchmarks.harness.worker import WorkerError
from benchmarks.kernels import Plan
from benchmarks.models.workloads import WORKLOADS
from tinygpt_np.machine import usable_cores
from tinygpt_np.text.corpus import DataError
from tinygpt_np.text.tokenizers import TokenizerError

PEERS = {"torch": "PyTorch", "transformers": "transformers"}
QUICK_SHAPES = ("cpu",)
FEW = 5  # rounds; the intervals of fewer say nothing
STOPPED = 130  # exit code after Ctrl-C


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    for stream in (sys.stdout, sys.stderr):  # Print ? for ▲ in a terminal that lacks it.
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
        code = COMMANDS[asked.command](asked)
    except (DisagreementError, WorkerError, OSError, TokenizerError, DataError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(code)


def run_kernels(asked: argparse.Namespace) -> int:
    """Run the ladders; return 1 if a kernel is slower than before."""
    before = None if asked.compare is None else compare.load(asked.compare)
    plan = Plan(
        operations=asked.operations or cases.OPERATIONS,
        shapes=asked.shapes or (QUICK_SHAPES if asked.quick else cases.SHAPES),
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
    return int(compare.show(compare.differences(before, found), Console(highlight=False)))


def run_train(asked: argparse.Namespace) -> int:
    """Run the training steps."""
    ours = {"backend": asked.backend, "matmul": asked.matmul}
    pytorch = installed("torch")
    found = [
        experiments.training(WORKLOADS[name], asked.threads, asked.rounds, ours, pytorch)
        for name in dict.fromkeys(asked.work)
    ]
    return code(experiments.run("train", found, {"threads": asked.threads, **ours}, asked.json))


def run_attention(asked: argparse.Namespace) -> int:
    """Run causal attention, forward and backward."""
    options = {"threads": asked.threads, "backend": asked.backend}
    sizes, pytorch = experiments.ATTENTION, installed("torch")
    found = experiments.attention(sizes, asked.threads, asked.rounds, asked.backend, pytorch)
    return code(experiments.run("attention", [found], options, asked.json))


def run_sample(asked: argparse.Namespace) -> int:
    """Run sampling."""
    workload, pytorch = WORKLOADS[experiments.SAMPLED], installed("torch")
    found = experiments.sampling(workload, experiments.TOKENS, asked.threads, asked.rounds, pytorch)
    return code(experiments.run_sampling(found, {"threads": asked.threads}, asked.json))


def run_pretrained(asked: argparse.Namespace) -> int:
    """Run generation from a GPT-2 checkpoint."""
    peer = installed("transformers")
    return code(experiments.run_pretrained(asked.threads, asked.rounds, peer, asked.json))


def run_matmul(asked: argparse.Namespace) -> int:
    """Run the matmuls of the training steps."""
    from benchmarks import products

    return code(products.run(products.SHAPES, asked.rounds or products.ROUNDS, asked.json))


def run_tokenizers(asked: argparse.Namespace) -> int:
    """Run the comparison of tokenizers."""
    rounds = asked.rounds or tokenizers.ROUNDS
    return code(
        tokenizers.run(asked.data, asked.gpt2, asked.seconds, rounds, asked.threads, asked.json)
    )


COMMANDS = {
    "kernels": run_kernels,
    "train": run_train,
    "attention": run_attention,
    "matmul": run_matmul,
    "sample": run_sample,
    "pretrained": run_pretrained,
    "tokenizers": run_tokenizers,
}


def code(complete: bool) -> int:
    """Return the exit code of a run."""
    return 0 if complete else STOPPED


def installed(package: str) -> bool:
    """Return whether a peer is installed, and say so if it is not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{PEERS[package]} is not installed: pip install '.[bench]'", file=sys.stderr)
    return found


def make_parser() -> OneLineParser:
    """Return the parser of all commands."""
    parser = OneLineParser(
        prog="python -m benchmarks",
        description="Measure speed, and compare it with other libraries.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_kernels(commands)

    def add(name: str, text: str, threads: int = usable_cores()) -> OneLineParser:
        command: OneLineParser = commands.add_parser(name, help=text)
        help_threads = f"threads of each candidate (default: {threads})"
        command.add_argument("--threads", type=int, default=threads, help=help_threads)
        command.add_argument("--rounds", type=int, help="turns of each candidate")
        command.add_argument("--json", type=Path, metavar="FILE", help="a new file for the figures")
        return command

    def add_backend(command: OneLineParser) -> None:
        choices = ["numba", "numpy"]
        command.add_argument("--backend", default="numba", choices=choices, help=argparse.SUPPRESS)

    step = add("train", "the training step, against PyTorch eager and compiled")
    add_backend(step)
    names = ", ".join(WORKLOADS)
    step.add_argument("--work", nargs="+", default=list(WORKLOADS), metavar="WORK", help=names)
    step.add_argument("--matmul", choices=["numba", "blas"], default="numba", help="our matmuls")
    add_backend(add("attention", "causal attention, forward and backward, against PyTorch's SDPA"))
    add("matmul", "the matmuls of training, against NumPy's BLAS", threads=1)
    add("sample", "sampling, against recomputing the context and PyTorch")
    add("pretrained", "generation from a GPT-2 checkpoint, against transformers")
    compared = add("tokenizers", "bits per character with characters, pieces and byte pairs")
    compared.add_argument("--data", default="shakespeare", help="as in tinygpt train")
    compared.add_argument("--gpt2", default="", metavar="PATH", help="files of GPT-2's tokenizer")
    compared.add_argument(
        "--seconds",
        type=float,
        default=tokenizers.SECONDS,
        help="seconds of training with each tokenizer",
    )
    return parser


def add_kernels(commands: Any) -> None:
    """Add the command kernels."""
    ladders = commands.add_parser(
        "kernels",
        help="ladders of kernels, from loops in Python to the kernel used in training",
        description="Ladders of kernels, from loops in Python to the kernel used in training. Each "
        "rung is checked, then timed in turns with the others. Figures and a page are written to "
        "benchmarks/results/.",
    )
    add = ladders.add_argument
    add("operations", nargs="*", metavar="OPERATION", help=", ".join(cases.OPERATIONS))
    add("--rungs", choices=["all", "last"], default="all", help="last: the kernel of training only")
    add(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="cpu, lecture, gpt2: a micro-batch of training at these sizes; awkward: sizes that no "
        "vector or tile divides; default: all, with --quick cpu",
    )
    add("--threads", type=int, nargs="+", help="numbers of threads; default: 1 and all CPUs")
    add(
        "--rounds",
        type=int,
        help=f"turns per candidate (default: {kernels.ROUNDS}, --quick: {kernels.QUICK_ROUNDS})",
    )
    add("--quick", action="store_true", help="half a minute: fewer rounds, and the shape cpu")
    add("--asm", action="store_true", help="also the fraction of vector instructions")
    add("--peers", nargs="+", default=[], choices=kernels.PEERS, help="other libraries")
    add("--llmc", type=Path, metavar="DIR", help="a checkout of llm.c, for the peer llmc")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="a new .json file for the figures; the page gets the same name",
    )
    add(
        "--compare",
        type=Path,
        metavar="OLD",
        help="an earlier result; exits with 1 if a kernel is slower now",
    )


def check(asked: argparse.Namespace) -> None:
    """Raise ValueError if a request cannot be met, before anything is measured."""
    threads: Any = asked.threads if asked.command == "kernels" else [asked.threads]
    have = usable_cores()
    for count in threads or ():
        if not 1 <= count <= have:
            raise ValueError(f"--threads must be from 1 to {have}, the CPUs here, not {count}")
    if asked.rounds is not None and asked.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, not {asked.rounds}")
    check_names(getattr(asked, "work", ()), [*WORKLOADS], "--work must be one of")
    if asked.command == "tokenizers" and not asked.seconds > 0:
        raise ValueError(f"--seconds must be more than 0, not {asked.seconds}")
    if asked.command == "matmul" and asked.threads != 1:
        raise ValueError(f"--threads must be 1 for matmul, not {asked.threads}")
    if asked.command == "kernels":
        check_kernels(asked)
    if asked.json is not None:
        check_path(asked.json)


def check_names(names: Sequence[str], known: Sequence[str], rule: str) -> None:
    """Raise ValueError if a name is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{rule} {', '.join(known)}, not {name}")


def check_kernels(asked: argparse.Namespace) -> None:
    """Check what only kernels takes, and choose where to write."""
    check_names(asked.operations, cases.OPERATIONS, "an operation must be one of")
    check_names(asked.shapes or (), cases.SHAPES, "--shapes must be one of")
    if "llmc" in asked.peers and asked.llmc is None:
        raise ValueError("--peers llmc needs --llmc DIR, a checkout of llm.c")
    if asked.llmc is not None and not (asked.llmc / "train_gpt2.c").is_file():
        raise ValueError(f"--llmc must be a checkout of llm.c: {asked.llmc} has no train_gpt2.c")
    if asked.json is not None and asked.json.suffix != ".json":
        raise ValueError(f"--json must be a file that ends in .json, not {asked.json}")
    if asked.compare is not None:
        if asked.rounds is not None and asked.rounds < FEW:
            raise ValueError(f"--compare needs at least --rounds {FEW}, not {asked.rounds}")
        before = {record["operation"] for record in compare.load(asked.compare)["cases"]}
        if not before & set(asked.operations or cases.OPERATIONS):
            raise ValueError(f"{asked.compare} has none of the requested operations")
    if asked.json is None:
        asked.json = kernels.new_path()
    check_path(asked.json.with_suffix(".html"))


if __name__ == "__main__":
    main()
