"""Wrong flags of every command, and nanoGPT's spellings with wrong values."""

from pathlib import Path
from random import Random

from campaign import inputs
from campaign.damage import arguments, flags
from campaign.faults import Action, Damage, either, harmless, refused
from campaign.inputs import TRAIN

INTEGERS = (
    *("block-size", "n-layer", "n-head", "n-embd", "seed", "batch-size", "max-iters"),
    *("gradient-accumulation-steps", "eval-interval", "warmup-iters", "lr-decay-iters", "threads"),
)
NUMBERS = ("dropout", "learning-rate", "min-lr", "weight-decay", "beta1", "beta2", "grad-clip")
CHOICES = ("tokenizer", "backend", "matmul", "dtype", "gelu", "preset")
NO_INTEGER = (
    *("1.5", "x", "", " ", "nan", "inf", "1e3", "0x10", "1_", "--", "٣٣x", "1,000", "None", "True"),
)
NO_NUMBER = ("x", "", " ", "nan", "inf", "-inf", "1e999", "1,5", "0x1p3", "None", "--", "1.2.3")
NEGATIVE = ("-1", "-1000000", str(-(2**63)), str(-(10**40)))
LARGE = ("1000000000", str(2**40), str(2**63), str(10**40))
EVALUATE = (*TRAIN, "--eval-only")
COMMANDS = (TRAIN, ("sample", "mine"), ("convert", "mine", "out"), ("tokenize", "to"),
            ("prepare", "--out", "x"), ("lecture",), ("study",), ("gradcheck",), ("doctor",),
            ("runs",))  # fmt: skip
build = inputs.run


def unknown(rng: Random, folder: Path) -> Damage:
    flag = rng.choice(
        (
            *("--nosuch", "--n-layerz", "--dropuot=0.1", "-x", "---", "--=", "--=5", "--\ud800"),
            *("--no-nosuch", "--resumes=1", "--\x1b[31m", "--n layer=4"),
        )
    )
    name = flag.split("=")[0].strip("-").replace("\x1b", "")
    names = (name.encode(errors="backslashreplace").decode(), name.replace("-", "_"))
    return Damage(f"{flag!a}", (flag,), names)


def command(*cases: tuple[str, tuple[str, ...]]) -> Action:
    """Run one of these commands, each with what its message must name."""

    def action(rng: Random, folder: Path) -> Damage:
        line, names = rng.choice(cases)
        return Damage(line, tuple(line.split()), names)

    return action


OTHER_COMMANDS = command(
    ("nosuch", ("nosuch",)),
    ("Train", ("Train",)),
    ("--train", ("train",)),
    ("sample mine other", ("other",)),
    ("sample mine --model mine", ("--model",)),
    ("sample mine --n-layer 2", ("n-layer",)),
    ("convert", ("SOURCE", "OUT")),
    ("convert mine", ("OUT",)),
    ("convert mine a b", ("b",)),
    ("convert mine out --text", ("--text",)),
    ("convert mine out --text text.txt", ("--text",)),
    ("tokenize", ("text", "TEXT")),
    ("tokenize to --train sentencepiece", ("--train",)),
    ("tokenize --train sentencepiece", ("--out",)),
    ("tokenize --train gpt2 --out x", ("--train",)),
    ("tokenize to --out x", ("--out", "--train")),
    ("tokenize to --tokenizer-path text.txt", ("text.txt",)),
    ("tokenize 日 --data text.txt", ("U+65E5",)),
    ("tokenize to --vocab-size x", ("vocab-size", "vocab_size")),
    ("prepare", ("--out",)),
    ("prepare --data --out x", ("--data",)),
    ("prepare text.txt --out x", ("text.txt",)),
    ("lecture 99", ("99",)),
    ("lecture -1", ("-1",)),
    ("lecture nosuch", ("nosuch",)),
    ("lecture bigram --all", ("--all",)),
    ("study nosuch", ("nosuch",)),
    ("study softmax --line 999", ("999",)),
    ("study softmax --line -1", ("-1", "line")),
    ("study --line 3", ("--line",)),
    ("study text.txt:forward,backward", ("text.txt",)),
    ("study nosuch.py:forward,backward", ("nosuch.py",)),
    ("study softmax --seed x", ("seed",)),
    ("gradcheck nosuch", ("nosuch",)),
    ("gradcheck softmax --method nosuch", ("method", "nosuch")),
    ("gradcheck softmax --seed -1", ("seed",)),
    ("gradcheck softmax --html x", ("--html",)),
    ("gradcheck softmax --mutants --method central", ("method",)),
    ("doctor now", ("now",)),
)

FAULTS = (
    refused(flags(dict.fromkeys(INTEGERS, NO_INTEGER)), (TRAIN,), weight=3),
    refused(flags(dict.fromkeys(NUMBERS, NO_NUMBER)), (TRAIN,), weight=2),
    refused(flags(dict.fromkeys((*INTEGERS, *NUMBERS), NEGATIVE)), (TRAIN,), weight=2),
    refused(
        flags(
            dict.fromkeys(INTEGERS[:4], ("0",))
            | dict.fromkeys(("dropout", "beta1", "beta2"), ("1", "2", "-0.1", "1e300"))
            | {"n-head": ("3", "5", "7", "16", "1000000")}
        ),
        (TRAIN,),
    ),
    refused(
        flags(dict.fromkeys(("block-size", "n-layer", "n-embd", "batch-size"), LARGE)),
        (TRAIN,), "block-size", "n_layer", "n-layer", "n_embd", "n-embd", "batch", "MB", "memory",
        "too short",
    ),
    either(flags(dict.fromkeys(("max-iters", "warmup-iters", "lr-decay-iters", "eval-interval",
                                "threads"), LARGE)), (EVALUATE,)),
    refused(
        flags(dict.fromkeys(CHOICES, ("", "nosuch", "CHAR", "numpy ", "0", "\ud800", "--"))),
        (TRAIN,), weight=2,
    ),
    refused(
        arguments(
            *(("--dtype", "float64", "--backend", "numba"), ("--min-lr", "1")),
            *(("--learning-rate", "1e-9"), ("--tokenizer-path", "text.txt")),
            ("--tokenizer", "gpt2", "--tokenizer-path", "text.txt"),
            ("--tokenizer", "sentencepiece", "--tokenizer-path", "text.txt"),
            ("--tokenizer", "gpt2", "--tokenizer-path", "nosuch"),
            *(("--init-from", "nosuch"), ("--init-from", "mine", "--tokenizer-path", "text.txt")),
            *(("--resume", "mine", "--name", "other"), ("--preset", "smoke", "--resume", "mine")),
            *(("--block-size", "400"), ("--name", "mine")),
        ),
        (TRAIN,), "float64", "min_lr", "min-lr", "text.txt", "nosuch", "--name", "--preset",
        "--block-size", weight=2,
    ),
    refused(unknown, COMMANDS, weight=3),
    refused(
        arguments(*((f"--{flag}",) for flag in (*INTEGERS, *NUMBERS, *CHOICES, "data", "resume"))),
        (TRAIN,), *(name for flag in (*INTEGERS, *NUMBERS, *CHOICES, "data", "resume")
                    for name in (flag, flag.replace("-", "_"))),
    ),
    refused(OTHER_COMMANDS, ((),), weight=4),
    refused(
        flags(
            {
                "n_layer": ("x", "1.5", "0", "-4", "True", ""),
                "learning_rate": ("fast", "-1", "nan", "1e-3x"),
                "bias": ("Maybe", "true", "1", "None", ""),
                "device": ("cuda", "mps", "gpu", "cuda:0", ""),
                "dtype": ("bfloat16", "float16", "double", ""),
            }
        ),
        (TRAIN,), weight=2,
    ),
    refused(
        flags(
            {
                "init_from": ("resume", "gpt3", "nosuch", ""),
                "dataset": ("nosuch", "../x", "", "/nosuch"),
                "out_dir": ("a/b", "..", "/tmp"),
                "eval_only": ("Perhaps", "1", ""),
            }
        ),
        (TRAIN,), "init", "--data", "no file", "dataset", "--name", "eval", "--resume", "no model",
    ),
    harmless(
        arguments(
            *(("--device=cpu",), ("--compile=False", "--bias=False"), ("--eval_iters=20",)),
            *(("--log_interval=1", "--dropout=0.0"), ("--wandb_log=False", "--n_layer=1")),
        ),
        (EVALUATE,),
    ),
)  # fmt: skip
