"""Accept the flags of nanoGPT's train.py and sample.py, so that its recipes run unchanged.

Most flags have the same name here: `--max_iters` is as good as `--max-iters`, and `--flag=value` as
`--flag value`. Flags with another name are renamed, and flags that do nothing here are ignored with
a note.
"""

from collections.abc import Container
from typing import Any

# nanoGPT's datasets of the same text.
DATASETS = {
    "shakespeare_char": ["--data", "tinyshakespeare"],
    "shakespeare": ["--data", "tinyshakespeare", "--tokenizer", "gpt2"],
}
COMPILED = "kernels are compiled by --backend numba, which is the default"
LOGGED = "metrics are written to the run's folder"
IGNORED = {
    "train": {
        "eval_iters": "the loss is that of the whole validation split, or of --eval-tokens",
        "log_interval": "every step is recorded",
        "always_save_checkpoint": "a checkpoint is saved at every evaluation",
        "compile": COMPILED,
        **dict.fromkeys(("wandb_log", "wandb_project", "wandb_run_name"), LOGGED),
    },
    "sample": {"compile": COMPILED, "dtype": "sampling computes in float32"},
}
# Flags that exist only in nanoGPT, or mean something else there.
TRANSLATED = {
    "train": {*IGNORED["train"], "device", "dataset", "out_dir", "decay_lr"},
    "sample": {*IGNORED["sample"], "device", "out_dir", "init_from", "start", "max_new_tokens"},
}


def translate(argv: list[str], defaults: Any) -> tuple[list[str], list[str]]:
    """Translate a command line; return it in our flags, and a note for each flag that is ignored.

    Raise ValueError if a flag asks for something that does not exist here.
    """
    command, *arguments = argv
    found, notes = [command], list[str]()
    model = value_of(argv, "init_from")
    for argument in joined(arguments, TRANSLATED[command]):
        name, equals, value = parts(argument)
        reason = IGNORED[command].get(name)
        if command == "sample" and name == "out_dir" and model not in (None, "resume"):
            reason = f"--init_from={model} is loaded"
        if name in TRANSLATED[command] and not equals:
            raise ValueError(f"{argument} needs a value")
        if (command, name, value) == ("sample", "dtype", "float32"):
            continue
        if reason is None:
            found += translate_flag(command, argument, argv, defaults)
        else:
            notes.append(f"{argument} is ignored: {reason}")
    return found, notes


def translate_flag(command: str, argument: str, argv: list[str], defaults: Any) -> list[str]:
    """Translate `--name=value`."""
    name, _, value = parts(argument)
    match command, name, value:
        case _, "device", "cpu":
            return []
        case _, "device", _:
            raise ValueError(f"{argument}: only --device=cpu is supported")
        case "train", "bias", "True" | "False":
            return ["--bias" if value == "True" else "--no-bias"]
        case "train", "eval_only", "True" | "False":
            return ["--eval-only"] if value == "True" else []
        case "train", "dataset", _:
            return DATASETS.get(value, ["--data", f"data/{value}"])
        case "train", "out_dir", _:
            return ["--name", value]
        case "train", "decay_lr", "True":
            return []
        case "train", "decay_lr", "False":
            rate = value_of(argv, "learning_rate") or str(defaults.learning_rate)
            return ["--min-lr", rate, "--warmup-iters", "0"]
        case "train", "decay_lr", _:
            flag = argument.partition("=")[0]
            raise ValueError(f"{flag} must be True or False, not {value!r}")
        case "train", "init_from", "resume":
            raise ValueError(f"{argument}: use --resume RUN instead, with RUN a folder in runs/")
        case "sample", "out_dir", _:
            return [value]
        case "sample", "init_from", _:
            return [] if value == "resume" else [f"--model={value}"]
        case "sample", "start", "FILE:":
            raise ValueError(f"{argument} must name a file after FILE:")
        case "sample", "start", _ if value.startswith("FILE:"):
            return [f"--prompt-file={value.removeprefix('FILE:')}"]
        case "sample", "start", _:
            return [f"--prompt={value}"]
        case "sample", "max_new_tokens", _:
            return [f"--tokens={value}"]
        case _:
            return [argument]


def is_nanogpts(argv: list[str]) -> bool:
    """Return whether a command line has a flag that only nanoGPT's train.py has."""
    return any(parts(argument)[0] in TRANSLATED["train"] for argument in argv)


def joined(argv: list[str], names: Container[str]) -> list[str]:
    """Return the arguments with `--name value` written as `--name=value` for the given names."""
    found: list[str] = []
    for argument in argv:
        name, equals, _ = parts(found[-1]) if found else ("", "", "")
        is_switch = name in ("bias", "eval_only") and argument in ("True", "False")
        if not equals and (is_switch or (name in names and not argument.startswith("--"))):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def parts(argument: str) -> tuple[str, str, str]:
    """Return the name of a flag with underscores, "=" or nothing, and its value."""
    flag, equals, value = argument.partition("=")
    name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
    return name, equals, value


def value_of(argv: list[str], name: str) -> str | None:
    """Return the last value of a flag, given as `--name value` or `--name=value`, or None."""
    value = None
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        found, equals, given = parts(argument)
        if found == name:
            value = given if equals else following
    return value
