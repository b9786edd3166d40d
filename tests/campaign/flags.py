"""Wrong flags of every command, spellings of nanoGPT with bad values, and strange surroundings."""

import signal
from pathlib import Path
from random import Random

from campaign import bases
from campaign.case import (
    Accepted,
    Case,
    Kind,
    Outcome,
    Process,
    Refused,
    contains,
    either,
    harmless,
    refused,
)

INTEGERS = (
    *("block-size", "n-layer", "n-head", "n-embd", "seed", "batch-size", "max-iters"),
    *("gradient-accumulation-steps", "eval-interval", "warmup-iters", "lr-decay-iters", "threads"),
)
MAY_BE_ZERO = ("seed", "warmup-iters", "lr-decay-iters", "threads")
NUMBERS = ("dropout", "learning-rate", "min-lr", "weight-decay", "beta1", "beta2", "grad-clip")
CHOICES = ("tokenizer", "backend", "matmul", "dtype", "gelu", "preset")
NO_INTEGER = (
    "1.5",
    "x",
    "",
    " ",
    "nan",
    "inf",
    "1e3",
    "0x10",
    "1_",
    "--",
    "٣٣x",
    "1,000",
    "None",
    "True",
)
NO_NUMBER = ("x", "", " ", "nan", "inf", "-inf", "1e999", "1,5", "0x1p3", "None", "--", "1.2.3")
TRAIN = ["train", "--data", "text.txt", *bases.TINY]
EVALUATE_NUMPY = [*TRAIN, "--eval-only"]
EVALUATE = [part for part in EVALUATE_NUMPY if part not in ("--backend", "numpy")]
SAMPLE = ["sample", "mine", *bases.SAMPLING]


def build(folder: Path) -> None:
    bases.text(folder)
    bases.run(folder)


def names_of(flag: str) -> tuple[str, ...]:
    return f"--{flag}", flag, flag.replace("-", "_")


def train_with(flag: str, value: str) -> list[str]:
    return [*TRAIN, f"--{flag}={value}"]


def no_integer(rng: Random, folder: Path) -> Case:
    flag, value = rng.choice(INTEGERS), rng.choice(NO_INTEGER)
    return refused(f"--{flag} {value!a}", train_with(flag, value), *names_of(flag))


def no_number(rng: Random, folder: Path) -> Case:
    flag, value = rng.choice(NUMBERS), rng.choice(NO_NUMBER)
    return refused(f"--{flag} {value!a}", train_with(flag, value), *names_of(flag))


def out_of_range(rng: Random, folder: Path) -> Case:
    flag = rng.choice((*INTEGERS, *NUMBERS))
    value = rng.choice(("-1", "-1000000", str(-(2**63)), str(-(10**40))))
    if flag not in (*MAY_BE_ZERO, *NUMBERS) and rng.random() < 0.3:
        value = "0"
    if flag in ("dropout", "beta1", "beta2") and rng.random() < 0.7:
        value = rng.choice(("1", "1.0", "2", "-0.1", "1e300"))
    return refused(f"--{flag} {value}", train_with(flag, value), *names_of(flag))


def too_large(rng: Random, folder: Path) -> Case:
    """A size that needs more memory than any machine has."""
    flag = rng.choice(("block-size", "n-layer", "n-embd", "batch-size"))
    value = rng.choice(("1000000000", str(2**40), str(2**63), str(10**40)))
    names = (*names_of(flag), "MB", "memory", "too short")
    return refused(f"--{flag} {value}", train_with(flag, value), *names)


def large_count(rng: Random, folder: Path) -> Case:
    """--eval-only takes no step."""
    flag = rng.choice(("max-iters", "warmup-iters", "lr-decay-iters", "eval-interval"))
    value = rng.choice(("1000000000", str(2**63), str(10**40)))
    command = [*train_with(flag, value), "--eval-only"]
    return either(f"--{flag} {value}", command, "steps may be any number", *names_of(flag))


def many_threads(rng: Random, folder: Path) -> Case:
    """As many threads as no machine starts: fewer are taken, or the number is refused."""
    value = rng.choice(("100000000", str(2**31), str(10**20), "65536"))
    command = [*train_with("threads", value), "--eval-only"]
    return either(f"--threads {value}", command, "numpy takes no threads", *names_of("threads"))


def no_choice(rng: Random, folder: Path) -> Case:
    flag = rng.choice(CHOICES)
    value = rng.choice(("", "nosuch", "CHAR", "numpy ", "0", "None", "gpt2,char", "\ud800", "--"))
    return refused(f"--{flag} {value!a}", train_with(flag, value), *names_of(flag))


def no_divisor(rng: Random, folder: Path) -> Case:
    heads = rng.choice(("3", "5", "7", "16", "1000000"))
    return refused(f"{heads} heads for a width of 8", train_with("n-head", heads), "--n-head")


def contradiction(rng: Random, folder: Path) -> Case:
    flags, names = rng.choice(
        [
            (["--dtype", "float64", "--backend", "numba"], ("dtype", "float64")),
            (["--min-lr", "1"], ("min_lr", "min-lr")),
            (["--learning-rate", "1e-9"], ("min_lr", "min-lr")),
            (["--tokenizer-path", "text.txt"], ("text.txt",)),
            (["--tokenizer", "gpt2", "--tokenizer-path", "text.txt"], ("text.txt",)),
            (["--tokenizer", "sentencepiece", "--tokenizer-path", "text.txt"], ("text.txt",)),
            (["--tokenizer", "gpt2", "--tokenizer-path", "nosuch"], ("nosuch",)),
            (["--init-from", "nosuch"], ("nosuch",)),
            (["--init-from", "mine", "--tokenizer-path", "text.txt"], ("text.txt",)),
            (["--resume", "mine", "--name", "other"], ("--name",)),
            (["--preset", "smoke", "--resume", "mine"], ("--preset",)),
            (["--block-size", "400"], ("--block-size",)),
            (["--name", "mine"], ("runs/mine", "--name")),
        ]
    )
    return refused(" ".join(flags), [*TRAIN, *flags], *names)


def given_twice(rng: Random, folder: Path) -> Case:
    flag = rng.choice(INTEGERS)
    command = [*TRAIN, f"--{flag}", "4", f"--{flag}", "8", "--eval-only"]
    return either(
        f"--{flag} twice", command, "the last counts, or both are refused", *names_of(flag)
    )


UNKNOWN = (
    *(
        "--nosuch",
        "--n-layers",
        "--dropuot=0.1",
        "-x",
        "---",
        "--=",
        "--=5",
        "--n-layer.x=1",
        "--\ud800",
    ),
    *(
        "nosuch",
        "--no-n-layer",
        "--eval_only=maybe",
        "--resumes",
        "--\x1b[31m",
        "--n layer=4",
        "=",
        "-",
    ),
)


def unknown(rng: Random, folder: Path) -> Case:
    flag = rng.choice(UNKNOWN)
    base = rng.choice((TRAIN, SAMPLE, ["prepare"], ["tokenize", "to"], ["lecture"], ["doctor"]))
    if base == ["lecture"] and flag == "nosuch":
        return refused("a chapter nosuch", ["lecture", "nosuch"], "nosuch")
    shown = (
        flag.split("=")[0].strip("-").replace("_", "-").encode(errors="backslashreplace").decode()
    )
    return refused(f"{base[0]} with {flag!a}", [*base, flag], shown.replace("\x1b", ""))


def without_value(rng: Random, folder: Path) -> Case:
    flag = rng.choice((*INTEGERS, *NUMBERS, *CHOICES, "data", "name", "resume"))
    return refused(f"--{flag} without a value", [*TRAIN, f"--{flag}"], *names_of(flag))


def no_command(rng: Random, folder: Path) -> Case:
    word = rng.choice(
        ("nosuch", "", " ", "Train", "--train", "-", "--", "\ud800", "train ", "0", "\x1b[0m")
    )
    names = (
        word.encode(errors="backslashreplace").decode().replace("\x1b", "") or "train",
        "train",
    )
    return refused(f"the command {word!a}", [word], *names)


def other_commands(rng: Random, folder: Path) -> Case:
    command, names = rng.choice(
        [
            (["sample", "mine", "other"], ("other",)),
            (["sample", "mine", "--model", "mine"], ("--model",)),
            (["sample", "mine", "--n-layer", "2"], ("n-layer",)),
            (["convert"], ("SOURCE", "OUT")),
            (["convert", "mine"], ("OUT",)),
            (["convert", "mine", "a", "b"], ("b",)),
            (["convert", "mine", "out", "--text"], ("--text",)),
            (["convert", "mine", "out", "--text", "text.txt"], ("--text",)),
            (["tokenize"], ("text", "TEXT")),
            (["tokenize", "to", "--train", "sentencepiece"], ("--train",)),
            (["tokenize", "--train", "sentencepiece"], ("--out",)),
            (["tokenize", "--train", "gpt2", "--out", "x"], ("--train",)),
            (["tokenize", "to", "--out", "x"], ("--out", "--train")),
            (["tokenize", "to", "--tokenizer-path", "text.txt"], ("text.txt",)),
            (["tokenize", "日", "--data", "text.txt"], ("U+65E5",)),
            (["tokenize", "to", "--vocab-size", "x"], ("vocab-size", "vocab_size")),
            (["prepare"], ("--out",)),
            (["prepare", "--data", "--out", "x"], ("--data",)),
            (["prepare", "text.txt", "--out", "x"], ("text.txt",)),
            (["lecture", "99"], ("99",)),
            (["lecture", "-1"], ("-1",)),
            (["lecture", ""], ("chapter", "lecture")),
            (["lecture", "bigram", "--all"], ("--all",)),
            (["study", "nosuch"], ("nosuch",)),
            (["study", "softmax", "--line", "999"], ("999",)),
            (["study", "softmax", "--line", "-1"], ("-1", "line")),
            (["study", "--line", "3"], ("--line",)),
            (["study", "text.txt:forward,backward"], ("text.txt",)),
            (["study", "nosuch.py:forward,backward"], ("nosuch.py",)),
            (["study", "softmax", "--seed", "x"], ("seed",)),
            (["gradcheck", "nosuch"], ("nosuch",)),
            (["gradcheck", "softmax", "--method", "nosuch"], ("method", "nosuch")),
            (["gradcheck", "softmax", "--seed", "-1"], ("seed",)),
            (["gradcheck", "softmax", "--html", "x"], ("--html",)),
            (["gradcheck", "softmax", "--mutants", "--method", "central"], ("--method", "method")),
            (["doctor", "now"], ("now",)),
        ]
    )
    return refused(" ".join(map(ascii, command)), command, *names)


def nanogpt_spelling(rng: Random, folder: Path) -> Case:
    flag, value = rng.choice(
        [
            *(("n_layer", value) for value in ("x", "1.5", "0", "-4", "True", "")),
            *(("learning_rate", value) for value in ("fast", "-1", "nan", "1e-3x")),
            *(("bias", value) for value in ("Maybe", "true", "1", "None", "")),
            *(("device", value) for value in ("cuda", "mps", "gpu", "cuda:0", "")),
            *(("dtype", value) for value in ("bfloat16", "float16", "double", "")),
            *(("init_from", value) for value in ("resume", "gpt3", "nosuch", "")),
            *(("dataset", value) for value in ("nosuch", "../x", "", "/nosuch")),
            *(("out_dir", value) for value in ("a/b", "", "..", "mine", "/tmp")),
            *(("eval_only", value) for value in ("Perhaps", "1", "")),
            *(("decay_lr", value) for value in ("Perhaps", "1", "")),
            *(("compile", value) for value in ("Perhaps",)),
            *(("backend", value) for value in ("nccl", "gloo")),
        ]
    )
    # An empty or odd word for what has no meaning here is passed over with it.
    names = (
        *names_of(flag),
        flag.replace("_", "-"),
        value or flag,
        "--name",
        "--resume",
        "--data",
        "no file data",
        "no model",
    )
    command = [*TRAIN, f"--{flag}={value}"]
    if flag in ("decay_lr", "compile"):
        command.append("--eval-only")
        return either(f"--{flag}={value}", command, "its value has no meaning here", *names)
    return refused(f"--{flag}={value}", command, *names)


def nanogpt_recipe(rng: Random, folder: Path) -> Case:
    """Spellings of nanoGPT that repeat the other flags, which changes nothing."""
    words = [
        "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
        "--wandb_log=False", "--n_layer=1", "--n_head=2", "--bias=False", "--dropout=0.0",
    ]  # fmt: skip
    chosen = rng.sample(words, rng.randrange(1, 6))
    command = [*TRAIN, "--eval-only", *chosen]
    return harmless(" ".join(chosen), command, like=[*TRAIN, "--eval-only"])


def not_finite(rng: Random, folder: Path) -> Case:
    """A learning rate that no weights survive is told of, and the run is kept as it was."""
    rate = rng.choice(("1e30", "1e38", "1e300"))
    command = [*TRAIN, f"--learning-rate={rate}", "--warmup-iters=0", "--max-iters=8"]
    expected = Refused(("finite", "learning rate", "learning_rate", "too large"), leaves=("runs/",))
    return Case(f"a learning rate of {rate}", command, expected)


def environment(rng: Random, folder: Path) -> Case:
    """Settings of the surroundings, in a process of its own."""
    name, value, command, names = rng.choice(
        [
            ("NUMBA_NUM_THREADS", "0", EVALUATE, ("NUMBA_NUM_THREADS",)),
            ("NUMBA_NUM_THREADS", "x", EVALUATE, ("NUMBA_NUM_THREADS",)),
            ("NUMBA_NUM_THREADS", "-1", EVALUATE, ("NUMBA_NUM_THREADS",)),
            ("NUMBA_DISABLE_JIT", "1", EVALUATE, ()),
            ("OMP_NUM_THREADS", "x", SAMPLE, ()),
            ("OPENBLAS_NUM_THREADS", "-1", SAMPLE, ()),
            ("LANG", "C", SAMPLE, ()),
            ("LC_ALL", "nosuch", SAMPLE, ()),
            ("PYTHONIOENCODING", "ascii", SAMPLE, ()),
            ("PYTHONUTF8", "0", SAMPLE, ()),
            ("TERM", "nosuch", SAMPLE, ()),
            ("TERM", None, SAMPLE, ()),
            ("COLUMNS", "0", SAMPLE, ()),
            ("COLUMNS", "-5", SAMPLE, ()),
            ("COLUMNS", "x", SAMPLE, ()),
            ("HOME", "/nosuch", SAMPLE, ()),
            ("HOME", None, SAMPLE, ()),
            ("XDG_CACHE_HOME", "/proc/nosuch", SAMPLE, ()),
            ("TMPDIR", "/nosuch", SAMPLE, ()),
            ("MPLBACKEND", "nosuch", EVALUATE_NUMPY, ()),
            ("MPLCONFIGDIR", "/proc/nosuch", EVALUATE_NUMPY, ()),
            ("FORCE_COLOR", "1", SAMPLE, ()),
            ("PATH", "", SAMPLE, ()),
        ]
    )
    process = Process(environment={name: value})
    what = f"{name}={value}" if value is not None else f"no {name}"
    if names:
        return Case(what, command, Refused(names), process=process)
    accepted = Accepted(contains("whole split")) if command is EVALUATE else Accepted()
    return Case(what, command, accepted, process=process)


def closed_streams(rng: Random, folder: Path) -> Case:
    """A stream that is closed from the start: what is written to it is lost, no more."""
    closed = rng.choice(((0,), (1,), (2,), (0, 1, 2)))
    command = rng.choice((SAMPLE, EVALUATE_NUMPY, ["lecture"], ["--help"]))
    expected = Accepted(lambda outcome: "") if 1 in closed or 2 in closed else Accepted()
    return Case(f"streams {closed} closed", command, expected, process=Process(closed=closed))


def full_disk(rng: Random, folder: Path) -> Case:
    """/dev/full takes no byte: writing to it is an error that is told of."""
    command = rng.choice((SAMPLE, EVALUATE_NUMPY))
    process = Process(stdout="/dev/full")
    return Case("standard output is full", command, Refused(("space", "output")), process=process)


def stopped(rng: Random, folder: Path) -> Case:
    """A run that is interrupted saves itself, and says how to go on."""
    number = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    command = [*TRAIN, "--max-iters=1000000", "--eval-interval=100000", "--name=new"]

    def saved(outcome: Outcome) -> str:
        whole = any(name.endswith("sha256.json") for name in outcome.made)
        return "" if whole else "it saves no checkpoint"

    process = Process(signals=(number,), until="runs/new/metrics.jsonl")
    return Case(f"{number.name} while training", command, Accepted(saved), process=process)


KINDS: tuple[Kind, ...] = (
    no_integer, no_integer, no_integer, no_number, no_number, out_of_range, out_of_range, too_large,
    large_count, many_threads, no_choice, no_choice, no_divisor, contradiction, contradiction,
    given_twice, unknown, unknown, unknown, without_value, no_command, other_commands,
    other_commands, other_commands, nanogpt_spelling, nanogpt_spelling, nanogpt_spelling,
    nanogpt_recipe, not_finite, environment, environment, closed_streams, full_disk, stopped,
)  # fmt: skip
