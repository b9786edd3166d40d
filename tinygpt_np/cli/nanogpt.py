"""Accept the flags of nanoGPT's train.py and sample.py, so that its recipes run unchanged.

Most flags have the same name here: `--max_iters` is as good as `--max-iters`, and `--flag=value` as
`--flag value`. Flags with another name are renamed, and flags that do nothing here are ignored with
a note.
"""

from collections.abc import Container
from typing import Any

# Flags that nanoGPT gives as True or False, and their form here.
SWITCHES = {
    "bias": {"True": ["--bias"], "False": ["--no-bias"]},
    "eval_only": {"True": ["--eval-only"], "False": []},
}
# nanoGPT's datasets of the same text.
DATASETS = {
    "shakespeare_char": ["--data", "tinyshakespeare"],
    "shakespeare": ["--data", "tinyshakespeare", "--tokenizer", "gpt2"],
}
COMPILED = "kernels are compiled by --backend numba, which is the default"
LOGGED = "metrics are written to the run's folder"
IGNORED = {
    "train": {
        "eval_iters": "the loss is always that of the whole validation split",
        "log_interval": "every step is recorded",
        "always_save_checkpoint": "a checkpoint is saved at every evaluation",
        "compile": COMPILED,
        "wandb_log": LOGGED,
        "wandb_project": LOGGED,
        "wandb_run_name": LOGGED,
    },
    "sample": {"compile": COMPILED, "dtype": "sampling computes in float32"},
}
# Flags that exist only in nanoGPT, or mean something else there.
TRANSLATED = {
    "train": {*IGNORED["train"], "device", "dataset", "out_dir", "decay_lr"},
    "sample": {*IGNORED["sample"], "device", "out_dir", "init_from", "start", "max_new_tokens"},
}
FILE = "FILE:"


def translate(argv: list[str], defaults: Any) -> tuple[list[str], list[str]]:
    """Translate the command line of `tinygpt train` or `tinygpt sample`.

    Parameters
    ----------
    argv : list of str
        The command and its arguments.
    defaults : Train or Sample
        The settings that the flags override.

    Returns
    -------
    tuple of list of str
        The command line in our flags, and a note for each flag that is ignored.

    Raises
    ------
    ValueError
        If a flag asks for something that does not exist here.
    """
    command, *arguments = argv
    translate_flag = translate_train if command == "train" else translate_sample
    found, notes = [command], list[str]()
    for argument in joined(arguments, TRANSLATED[command]):
        name, equals, value = parts(argument)
        if command == "train" and value in SWITCHES.get(name, {}):
            found += SWITCHES[name][value]
        elif not equals:
            if name in TRANSLATED[command]:
                raise ValueError(f"{argument} needs a value")
            found.append(argument)
        elif command == "sample" and (name, value) == ("dtype", "float32"):
            pass
        elif name in IGNORED[command]:
            notes.append(f"{argument} is ignored: {IGNORED[command][name]}")
        elif name == "device":
            if value != "cpu":
                raise ValueError(f"{argument}: only --device=cpu is supported")
        elif command == "sample" and name == "out_dir" and is_pretrained(argv):
            notes.append(f"{argument} is ignored with --init_from={value_of(argv, 'init_from')}")
        else:
            found += translate_flag(argument, argv, defaults)
    return found, notes


def translate_train(argument: str, argv: list[str], defaults: Any) -> list[str]:
    """Translate `--name=value` of train.py."""
    name, _, value = parts(argument)
    if name == "dataset":
        return DATASETS.get(value, ["--data", f"data/{value}"])
    if name == "out_dir":
        return ["--name", value]
    if name == "decay_lr":
        if value not in ("True", "False"):
            flag = argument.partition("=")[0]
            raise ValueError(f"{flag} must be True or False, not {value!r}")
        rate = value_of(argv, "learning_rate") or str(defaults.learning_rate)
        return [] if value == "True" else ["--min-lr", rate, "--warmup-iters", "0"]
    if (name, value) == ("init_from", "resume"):
        raise ValueError(f"{argument}: use --resume RUN instead, with RUN a folder in runs/")
    return [argument]


def translate_sample(argument: str, argv: list[str], defaults: Any) -> list[str]:
    """Translate `--name=value` of sample.py."""
    name, _, value = parts(argument)
    if name == "out_dir":
        return [value]
    if name == "init_from":
        return [] if value == "resume" else [f"--model={value}"]
    if name == "start" and value == FILE:
        raise ValueError(f"{argument} must name a file after {FILE}")
    if name == "start" and value.startswith(FILE):
        return [f"--prompt-file={value.removeprefix(FILE)}"]
    if name == "start":
        return [f"--prompt={value}"]
    if name == "max_new_tokens":
        return [f"--tokens={value}"]
    return [argument]


def is_pretrained(argv: list[str]) -> bool:
    """Return whether sample.py would load a GPT-2 instead of the checkpoint in out_dir."""
    return value_of(argv, "init_from") not in (None, "resume")


def joined(argv: list[str], names: Container[str]) -> list[str]:
    """Return the arguments with `--name value` written as `--name=value` for the given names."""
    found: list[str] = []
    for argument in argv:
        name, equals, _ = parts(found[-1]) if found else ("", "", "")
        is_switch = argument in SWITCHES.get(name, {})
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
