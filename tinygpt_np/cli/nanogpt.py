"""The flags of nanoGPT's train.py, so that its recipes can be typed in unchanged.

Most are ours: an underscore is as good as a hyphen, and `--flag=value` as `--flag value`. What is
said in another way there is put into our words here; what has no meaning here is left out, and that
is said.
"""

from tinygpt_np.config import TrainConfig

# Switches that nanoGPT wants a True or a False for, and what these are here.
SWITCHES = {
    "bias": {"True": ["--bias"], "False": ["--no-bias"]},
    "eval_only": {"True": ["--eval-only"], "False": []},
}
# Datasets of nanoGPT's that are the same text.
DATASETS = {
    "shakespeare_char": ["--data", "tinyshakespeare"],
    "shakespeare": ["--data", "tinyshakespeare", "--tokenizer", "gpt2"],
}
WITHOUT_MEANING = {
    "eval_iters": "the loss is that of the whole validation split",
    "log_interval": "every step is written down",
    "always_save_checkpoint": "a checkpoint is saved at every evaluation",
    "compile": "kernels are compiled by --backend numba, which is the default",
    "wandb_log": "a run is written to its own folder",
    "wandb_project": "a run is written to its own folder",
    "wandb_run_name": "a run is written to its own folder",
}


def translate(argv: list[str], defaults: TrainConfig) -> tuple[list[str], list[str]]:
    """The arguments of `tinygpt train` in our words, and a note for each that has no meaning here.

    defaults: what the flags override. Raises ValueError for what cannot be had here.
    """
    found: list[str] = []
    notes: list[str] = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        name = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        if value in SWITCHES.get(name, {}):
            found += SWITCHES[name][value]
        elif not equals:
            found.append(argument)
        elif name in WITHOUT_MEANING:
            notes.append(f"{argument} has no meaning here: {WITHOUT_MEANING[name]}")
        elif name == "device":
            if value != "cpu":
                raise ValueError(f"{argument}: there is no device here but the cpu")
        elif name == "dataset":
            found += DATASETS.get(value, ["--data", f"data/{value}"])
        elif name == "out_dir":
            found += ["--name", value]
        elif name == "decay_lr":
            if value == "False":
                rate = value_of(argv, "learning_rate") or str(defaults.learning_rate)
                found += ["--min-lr", rate, "--warmup-iters", "0"]
        elif (name, value) == ("init_from", "resume"):
            raise ValueError(f"{argument} is --resume RUN here, with RUN a folder in runs/")
        else:
            found.append(argument)
    return found, notes


def value_of(argv: list[str], name: str) -> str | None:
    """The value of a flag, `--name value` or `--name=value`, in either spelling; the last one."""
    value = None
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, given = argument.partition("=")
        if flag.startswith("--") and flag.removeprefix("--").replace("-", "_") == name:
            value = given if equals else following
    return value
