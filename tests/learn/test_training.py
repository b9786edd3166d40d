"""The last exercise: a GPT is trained with the learner's backwards only."""

import inspect
import io
import re
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.learners import planted, solved
from helpers.small_gpts import assert_same_bits
from helpers.tiny_run import DATA
from rich.console import Console

from tinygpt_np import ops
from tinygpt_np.learn import folder as learners_folder
from tinygpt_np.learn import training
from tinygpt_np.learn.course import TRAINED, find
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.training import LearnersGPT
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.text import batches, dataset
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import Trainer

# A learner writes the lines of backward_steps, which rounds otherwise than the closed form.
STEPS = ("softmax", "cross_entropy", "layer_norm")
CONFIG = replace(
    training.CONFIG, block_size=8, n_embd=12, batch_size=3, max_iters=6, eval_interval=3
)
SHAPE = CONFIG.gpt(DATA.tokenizer.vocab_size)
TEXTS = {name: solved(name) for name in TRAINED}
# A wrong line for each function, in place of a right one.
WRONG = {
    "linear": ("dx = dproduct @ weight.T", "dx = 2 * dproduct @ weight.T"),
    "embedding": ("np.add.at(dweight, ids, drows)", "dweight[ids] = drows"),
    "gelu": ("dbend = dbent", "dbend = -dbent"),
    "softmax": ("dexps += dtotal", ""),
    "cross_entropy": ("dshifted += dexps * exps", ""),
    "layer_norm": ("dx += dmean / xhat.shape[-1]", ""),
    "attention": ("dq = dproducts @ k", "dq = dproducts @ q"),
    "block": ("dx, dkept_1 = (dmid, dmid)", "dx, dkept_1 = 0, dmid"),
    "gpt": (
        "grads['wte.weight'] = dtable + dhead_weight.T",
        "grads['wte.weight'] = dtable",
    ),
}


def model_of(but: Mapping[str, str] | None = None) -> tuple[LearnersGPT, Counter[str]]:
    """Return the model of a learner whose files are right, or others, and the counter of calls."""
    texts = {f"{name}.py": text for name, text in {**TEXTS, **(but or {})}.items()}
    calls = Counter[str]()
    attempts = training.read(Path("learn"), texts)
    return LearnersGPT(SHAPE, CONFIG.seed, attempts, calls), calls


def closed_form(name: str) -> str:
    """Return a file with the closed form of an operation."""
    head = TEXTS[name].partition("def backward(")[0]
    backward = inspect.getsource(inspect.unwrap(getattr(ops, name).backward))
    return f"{head}from typing import Any\n\n\n{backward}"


def reference() -> GPT:
    """Return a tg.GPT whose backwards are the backward_steps of the operations that have them."""
    model = GPT(SHAPE, CONFIG.seed)
    operations = {name: getattr(ops, name) for name in ops.__all__}
    for name in STEPS:
        module = operations[name]
        operations[name] = SimpleNamespace(forward=module.forward, backward=module.backward_steps)
    model.ops = SimpleNamespace(**operations)
    return model


def gradients(model: GPT) -> Tensors:
    tokens, targets = batches.random_batch(DATA.train, 3, 8, np.random.default_rng(0))
    return model.loss_and_grads(tokens, targets)[1]


def losses(model: GPT, run: Path) -> list[tuple[float | None, float | None]]:
    """Train a model and return its losses."""
    return [(row.loss, row.val_loss) for row in Trainer.start(run, CONFIG, DATA, model)]


def write(folder: Path, but: Mapping[str, str] | None = None) -> Path:
    """Write a learner's files, right ones or others, and return their folder."""
    folder.mkdir(exist_ok=True)
    for name, text in {**TEXTS, **(but or {})}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def train(folder: Path) -> tuple[Verdict, str]:
    """Return the verdict, and what is printed."""
    out = io.StringIO()
    return training.train(folder, Console(file=out, width=200)), out.getvalue()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in a second, and take the files as solved."""
    monkeypatch.setattr(training, "CONFIG", CONFIG)
    monkeypatch.setattr(training, "is_solved", lambda *_: True)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(training, "expected_band", lambda _: (0.0, 9.0))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(dataset, "load", lambda _: DATA)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(metrics, "plot_losses", lambda _: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


# The model


def test_the_losses_are_those_of_a_gpt_bit_for_bit(tmp_path: Path, short: None) -> None:
    found = losses(model_of()[0], tmp_path / "learner")
    # Attention of ops/ calls the closed form of softmax, so that of the learner is used for both.
    expected, attention = reference(), model_of()[0].ops.attention
    expected.ops.attention = attention
    assert found == losses(expected, tmp_path / "reference")


def test_closed_forms_give_the_losses_of_the_unchanged_gpt_bit_for_bit(
    tmp_path: Path, short: None
) -> None:
    closed = {name: closed_form(name) for name in STEPS}
    found = losses(model_of(closed)[0], tmp_path / "learner")
    assert found == losses(GPT(SHAPE, CONFIG.seed), tmp_path / "reference")


@pytest.mark.parametrize("name", TRAINED)
def test_a_wrong_backward_changes_the_gradients(name: str) -> None:
    text, _ = planted(TEXTS[name], *WRONG[name])
    wrong, right = gradients(model_of({name: text})[0]), gradients(model_of()[0])
    assert any(np.abs(wrong[each] - right[each]).max() > 1e-6 for each in right)


def test_a_wrong_backward_changes_the_losses(tmp_path: Path, short: None) -> None:
    text, _ = planted(TEXTS["softmax"], *WRONG["softmax"])
    wrong = losses(model_of({"softmax": text})[0], tmp_path / "wrong")
    right = losses(model_of()[0], tmp_path / "right")
    assert wrong[0] == right[0]  # Before the first update.
    assert wrong[1:] != right[1:]


def test_every_function_is_called_as_often_as_the_model_has_it() -> None:
    model, calls = model_of()
    gradients(model)
    assert calls == {
        "linear": 9, "embedding": 2, "gelu": 2, "softmax": 2, "cross_entropy": 1, "layer_norm": 5,
        "attention": 2, "block": 2, "gpt": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("imported", "call"),
    [
        ("from tinygpt_np.ops import dropout, softmax as other", "other.backward"),
        ("from tinygpt_np import ops\nfrom tinygpt_np.ops import dropout", "ops.softmax.backward"),
        (
            "from tinygpt_np.ops import dropout\nfrom tinygpt_np.ops.softmax import backward as b",
            "b",
        ),
    ],
)
def test_attention_uses_the_softmax_of_the_learner_under_any_name(imported: str, call: str) -> None:
    original = "from tinygpt_np.ops import dropout, softmax"
    text = TEXTS["attention"].replace(original, f"{original}\n{imported}")
    text = text.replace("softmax.backward(", f"{call}(")
    model, calls = model_of({"attention": text})
    gradients(model)
    assert calls["softmax"] == 2


def test_a_changed_forward_may_save_other_values() -> None:
    closed = closed_form("softmax")
    changed = closed.replace("return probs, (probs, total)", "return probs, (probs,)")
    changed = changed.replace("probs, _ = saved", "(probs,) = saved")
    assert changed.count("(probs,)") == 2
    found = gradients(model_of({"softmax": changed})[0])
    assert_same_bits(found, gradients(model_of({"softmax": closed})[0]))


def test_gradients_of_another_dtype_get_that_of_the_parameters() -> None:
    text = TEXTS["gelu"].replace("    return dx\n", "    return dx * np.float64(1)\n")
    found = gradients(model_of({"gelu": text})[0])
    assert {grad.dtype.name for grad in found.values()} == {"float32"}


# What is left


def test_missing_and_unsolved_files_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("linear", "embedding", "layer_norm", "gelu", "softmax")
    monkeypatch.setattr(training, "TRAINED", names)
    folder = write(
        tmp_path / "learn",
        {
            "gelu": solved("gelu", but=[3]),
            "embedding": planted(TEXTS["embedding"], *WRONG["embedding"])[0],
            "softmax": "def backward(",
        },
    )
    (folder / "linear.py").unlink()
    verdict, _ = train(folder)
    assert not verdict.ok
    assert "not solved yet: linear, embedding, gelu, softmax; " in verdict.problem
    assert verdict.problem.endswith("tinygpt learn start linear")
    assert not (folder / "runs").exists()


def test_the_command_for_an_exercise_with_a_file_is_check(tmp_path: Path) -> None:
    (tmp_path / "gelu.py").write_text("")
    assert training.what_is_left([find("gelu")], tmp_path).endswith("tinygpt learn check gelu")


# A run


def test_a_run_prints_its_progress_the_calls_and_the_band(tmp_path: Path, short: None) -> None:
    verdict, out = train(write(tmp_path / "learn"))
    assert verdict.ok
    assert re.search(r"step 3 .* val \d\.\d{3} .* 0:00:\d\d left", out)
    assert "linear 54, embedding 12, gelu 12, softmax 12, cross_entropy 6, layer_norm 30, " in out
    assert re.search(r"validation +\d\.\d{4} nats per character", out)
    assert runs.last_checkpoint(tmp_path / "learn" / training.RUN)[1].step == 6


def test_a_loss_outside_the_band_is_no_solution(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "expected_band", lambda _: (0.25, 0.5))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    verdict, _ = train(write(tmp_path / "learn"))
    assert not verdict.ok
    assert "outside the expected band, 0.250 to 0.500" in verdict.problem


def test_the_verdict_can_be_recorded(tmp_path: Path) -> None:
    progress = learners_folder.record(Verdict(find("training")), tmp_path)
    assert progress["training"].done


@pytest.fixture
def interrupted(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a learner whose run was interrupted after four steps."""
    write(tmp_path / "learn")
    with monkeypatch.context() as patched:
        record = Trainer.record

        def interrupt(trainer: Trainer, row: Metrics) -> Metrics:
            if row.step == 3:
                signal.raise_signal(signal.SIGINT)
            return record(trainer, row)

        patched.setattr(Trainer, "record", interrupt)
        verdict, _ = train(tmp_path / "learn")
    assert not verdict.ok
    assert verdict.problem == f"stopped before step 4 and saved; {training.COMMAND} continues"
    return tmp_path / "learn"


def test_an_interrupted_run_is_continued_bit_for_bit(interrupted: Path, tmp_path: Path) -> None:
    verdict, out = train(interrupted)
    assert verdict.ok
    assert re.search("resumed +at step 4", out)
    whole = write(tmp_path / "whole")
    train(whole)
    found, expected = (
        [(row.step, row.loss, row.val_loss) for row in metrics.read(folder / training.RUN)]
        for folder in (interrupted, whole)
    )
    assert found == expected


def test_with_changed_files_a_new_run_begins_and_the_old_one_is_kept(interrupted: Path) -> None:
    (interrupted / "gelu.py").write_text(f"{TEXTS['gelu']}\n# Nicer.\n", encoding="utf-8")
    verdict, _ = train(interrupted)
    assert verdict.ok
    steps = [
        runs.last_checkpoint(interrupted / "runs" / name)[1].step
        for name in ("training", "training-2")
    ]
    assert steps == [4, 6]
    copy = interrupted / "runs" / "training-2" / training.CODE / "gelu.py"
    assert copy.read_text(encoding="utf-8").endswith("# Nicer.\n")


def test_a_finished_run_is_kept_and_a_new_one_begins(tmp_path: Path, short: None) -> None:
    folder = write(tmp_path / "learn")
    for _ in range(2):
        assert train(folder)[0].ok
    assert {path.name for path in (folder / "runs").iterdir()} == {"training", "training-2"}


def test_a_function_that_raises_in_the_middle_ends_in_a_sentence(
    tmp_path: Path, short: None
) -> None:
    text = TEXTS["gelu"].replace(
        "    # y = x * gate\n",
        "    seen.append(1)\n    if len(seen) > 5:\n        raise KeyError('no more')\n",
    )
    folder = write(tmp_path / "learn", {"gelu": f"seen = []\n{text}"})
    line = f"seen = []\n{text}".splitlines().index("        raise KeyError('no more')") + 1
    verdict, _ = train(folder)
    assert not verdict.ok
    expected = f"at step 2, line {line} of {folder / 'gelu.py'} raises KeyError: 'no more'"
    assert verdict.problem == expected


def test_a_run_that_has_ended_is_not_locked(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, open_run = list[Trainer](), training.open_run

    def keep(*args: Any) -> Trainer:
        opened.append(open_run(*args))
        return opened[-1]

    monkeypatch.setattr(training, "open_run", keep)
    train(write(tmp_path / "learn"))
    assert not opened[0].lock.is_locked


def test_gradients_that_are_not_finite_end_in_a_sentence(tmp_path: Path, short: None) -> None:
    text, _ = planted(TEXTS["gelu"], "dbend = dbent", "dbend = dbent / 0")
    verdict, _ = train(write(tmp_path / "learn", {"gelu": text}))
    assert "at step 0: loss " in verdict.problem
    assert "The first tensor that is not finite is the gradient of" in verdict.problem


def test_an_error_of_no_learner_is_raised(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Trainer, __: Metrics) -> Metrics:
        raise OSError("the disk is full")

    monkeypatch.setattr(Trainer, "record", fail)
    with pytest.raises(OSError, match="the disk is full"):
        train(write(tmp_path / "learn"))


@pytest.mark.slow
def test_solved_files_train_the_preset_into_its_band(tmp_path: Path) -> None:
    verdict, out = train(write(tmp_path / "learn"))
    assert verdict.ok, verdict.problem
    assert "within the expected band" in out
    assert "linear 5,400, " in out
