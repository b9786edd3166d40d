"""Accept the flags of nanoGPT's train.py and sample.py, so that its recipes run as they are.

Most flags have the same name here: an underscore is as good as a hyphen, and `--flag=value` as
`--flag value`. Flags with another name are renamed, and flags without a meaning here are left out
with a note.
"""

from collections.abc import Container

from tinygpt_np.config import TrainConfig

# Flags that nanoGPT gives as True or False, and what they are here.
SWITCHES = {
    "bias": {"True": ["--bias"], "False": ["--no-bias"]},
    "eval_only": {"True": ["--eval-only"], "False": []},
}
# Datasets of nanoGPT's that are the same text.
DATASETS = {
    "shakespeare_char": ["--data", "tinyshakespeare"],
    "shakespeare": ["--data", "tinyshakespeare", "--tokenizer", "gpt2"],
}
TRAIN_WITHOUT_MEANING = {
    "eval_iters": "the loss is always that of the whole validation split",
    "log_interval": "every step is recorded",
    "always_save_checkpoint": "a checkpoint is saved at every evaluation",
    "compile": "kernels are compiled by --backend numba, which is the default",
    "wandb_log": "metrics are written to the run's folder",
    "wandb_project": "metrics are written to the run's folder",
    "wandb_run_name": "metrics are written to the run's folder",
}
SAMPLE_WITHOUT_MEANING = {
    "compile": "kernels are compiled by --backend numba, which is the default",
    "dtype": "sampling computes in float32",
}
TRAIN_ONLY_THERE = {*TRAIN_WITHOUT_MEANING, "device", "dataset", "out_dir", "decay_lr"}
SAMPLE_ONLY_THERE = {
    *SAMPLE_WITHOUT_MEANING,
    *("device", "out_dir", "init_from", "start", "max_new_tokens"),
}
FILE = "FILE:"


def translate_train(argv: list[str], defaults: TrainConfig) -> tuple[list[str], list[str]]:
    """Translate the arguments of `tinygpt train` into our flags.

    Parameters
    ----------
    argv : list of str
        The command line.
    defaults : TrainConfig
        The settings that the flags override.

    Returns
    -------
    tuple of list of str
        The arguments in our flags, and a note for each flag that has no meaning here.

    Raises
    ------
    ValueError
        If a flag asks for something that does not exist here.
    """
    found: list[str] = []
    notes: list[str] = []
    for argument in joined(argv, TRAIN_ONLY_THERE):
        name, equals, value = parts(argument)
        if value in SWITCHES.get(name, {}):
            found += SWITCHES[name][value]
        elif not equals:
            check_not_translated(argument, name in TRAIN_ONLY_THERE)
            found.append(argument)
        elif name in TRAIN_WITHOUT_MEANING:
            notes.append(f"{argument} has no meaning here: {TRAIN_WITHOUT_MEANING[name]}")
        elif name == "device":
            check_device(argument, value)
        elif name == "dataset":
            found += DATASETS.get(value, ["--data", f"data/{value}"])
        elif name == "out_dir":
            found += ["--name", value]
        elif name == "decay_lr":
            if value not in ("True", "False"):
                flag = argument.partition("=")[0]
                raise ValueError(f"{flag} must be True or False, not {value!r}")
            if value == "False":
                rate = value_of(argv, "learning_rate") or str(defaults.learning_rate)
                found += ["--min-lr", rate, "--warmup-iters", "0"]
        elif (name, value) == ("init_from", "resume"):
            raise ValueError(f"{argument}: use --resume RUN instead, with RUN a folder in runs/")
        else:
            found.append(argument)
    return found, notes


def translate_sample(argv: list[str]) -> tuple[list[str], list[str]]:
    """Translate the arguments of `tinygpt sample`, like translate_train."""
    command, *arguments = joined(argv, SAMPLE_ONLY_THERE)
    found, notes = [command], list[str]()
    init_from = value_of(argv, "init_from")
    for argument in arguments:
        name, equals, value = parts(argument)
        if not equals:
            check_not_translated(argument, name in SAMPLE_ONLY_THERE)
            found.append(argument)
        elif name == "dtype" and value == "float32":
            pass
        elif name in SAMPLE_WITHOUT_MEANING:
            notes.append(f"{argument} has no meaning here: {SAMPLE_WITHOUT_MEANING[name]}")
        elif name == "device":
            check_device(argument, value)
        elif name == "out_dir":
            if init_from in (None, "resume"):
                found.insert(1, value)
            else:
                notes.append(f"{argument} has no meaning with --init_from={init_from}")
        elif name == "init_from":
            found += [] if value == "resume" else [f"--model={value}"]
        elif name == "start" and value == FILE:
            raise ValueError(f"{argument} must name a file after {FILE}")
        elif name == "start" and value.startswith(FILE):
            found.append(f"--prompt-file={value.removeprefix(FILE)}")
        elif name == "start":
            found.append(f"--prompt={value}")
        elif name == "max_new_tokens":
            found.append(f"--tokens={value}")
        else:
            found.append(argument)
    return found, notes


def check_not_translated(flag: str, translated: bool) -> None:
    """Raise ValueError for a flag without a value if it is one of nanoGPT's, which all take one."""
    if translated:
        raise ValueError(f"{flag} needs a value")


def check_device(argument: str, value: str) -> None:
    """Raise ValueError for any device but the CPU."""
    if value != "cpu":
        raise ValueError(f"{argument}: only --device=cpu is supported")


def joined(argv: list[str], names: Container[str]) -> list[str]:
    """Return the arguments with `--name value` written as `--name=value` for the given names."""
    found: list[str] = []
    for argument in argv:
        name, equals, _ = parts(found[-1]) if found else ("", "", "")
        switched = argument in SWITCHES.get(name, {})
        if not equals and (switched or (name in names and not argument.startswith("--"))):
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
