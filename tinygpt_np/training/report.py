"""Report about a run in words, for `tinygpt train`: size, warnings, progress and losses."""

import contextlib
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from tinygpt_np import machine
from tinygpt_np.config import TrainConfig, counted, expected_band
from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import corpus
from tinygpt_np.training import engine, runs
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import Trainer

# After about as many passes, a model of GPT-2's kind starts to memorise the data.
MANY_PASSES = 10
LONGEST = 10**9  # seconds; a longer time left is not shown
# Settings that are shown if they are not GPT-2's, which are the defaults.
CHOICES = (
    "n_kv_head", "n_inner", "norm", "norm_epsilon", "positions", "rope_theta", "qk_norm",
    "activation", "tied_head", "logit_soft_cap", "optimizer",
)  # fmt: skip

Facts = Iterator[tuple[str, str]]


def before_training(trainer: Trainer) -> Facts:
    """Yield the data, the model, the steps to take, and warnings."""
    config, model = trainer.config, trainer.model
    memory = engine.memory_estimate(model.config, config, trainer.group)
    passes = passes_over_text(trainer)
    epochs = f"{passes:.1f}" if passes >= 0.1 else "less than 0.1"
    epochs += " passes over the text"
    per_step = counted(config.tokens_per_step, "token")
    yield "data", f"{trainer.dataset.name}: {trainer.dataset.about}"
    yield "model", f"{model_size(trainer)}; about {memory / 1e6:.0f} MB"
    yield from ranks(trainer, memory)
    yield from unlike_gpt2(config)
    if trainer.step == 0:
        steps = f"{counted(config.max_iters, 'step')} of {per_step}"
        yield "training", f"{steps}: {epochs}"
    else:
        yield "resumed", f"at step {trainer.step:,}"
        left = counted(config.max_iters - trainer.step, "more step")
        steps = f"{left} of {per_step}, to step {config.max_iters:,}: {epochs} in total"
        last = trainer.step == config.max_iters
        yield "training", "no steps left, only the last evaluation" if last else steps
    if config.init_from != "scratch":
        yield "from", config.init_from
    elif trainer.step == 0:
        guess = f"{math.log(model.vocab_size):.2f}, that of a uniform guess"
        yield "first loss", f"about ln {model.vocab_size} = {guess}"
    for warning in warnings(trainer):
        yield "note", warning


def ranks(trainer: Trainer, memory: int) -> Facts:
    """Yield the ranks, their threads and their memory, if there are several.

    Launchers bind ranks to cores: Open MPI's mpirun binds up to two ranks to one core each.
    """
    group = trainer.group
    if group.size == 1:
        return
    own = trainer.optimizer
    state = sum(each.nbytes for each in (*own.first.values(), *own.second.values()))
    threads = trainer.config.threads or group.cores
    rows = group.share([threads, memory / 1e6, state / 1e6])
    batches = trainer.config.gradient_accumulation_steps
    yield "ranks", f"{group.size}, each with {len(trainer.gradients.own)} of {batches} batches"
    for rank, (count, total, part) in enumerate(rows):
        yield (
            f"rank {rank}",
            f"on {group.hosts[rank]}, {counted(count, 'thread')}: about {total:.0f} MB, of it "
            f"{part:.1f} MB for its part of the optimizer's state",
        )
    everywhere = min(os.cpu_count() or 1, machine.cpu_quota())
    if trainer.config.threads == 0 and group.cores == 1 and 2 * len(group.local) <= everywhere:
        yield (
            "note",
            f"each rank on {group.host} may use one of {everywhere:.0f} cores; all of them are "
            "used with mpirun --bind-to none, or srun --cpus-per-task",
        )


def unlike_gpt2(config: TrainConfig) -> Facts:
    """Yield the flags of what is not as in GPT-2, unless there are none."""
    usual = TrainConfig()
    found = {name: getattr(config, name) for name in CHOICES}
    flags = [runs.as_flag(*each) for each in found.items() if each[1] != getattr(usual, each[0])]
    if flags:
        yield "unlike GPT-2", " ".join(flags)


def passes_over_text(trainer: Trainer) -> float:
    """Return how often training reads the text."""
    config = trainer.config
    return config.max_iters * config.tokens_per_step / len(trainer.dataset.train)


def warnings(trainer: Trainer) -> Iterator[str]:
    """Yield warnings about data or a schedule that do not suit the run."""
    config, tokens = trainer.config, len(trainer.dataset.train)
    passes, params = passes_over_text(trainer), param_count(trainer.model.config)
    ends = f"training ends at step {config.max_iters:,}"
    decayed = f"decayed to --min-lr (at --lr-decay-iters {config.lr_decay_iters:,})"
    if passes > MANY_PASSES:
        yield (
            f"the text is read {passes:.0f} times: the model may memorise it, "
            "and the validation loss may rise again"
        )
    if params > tokens:
        unit = "characters" if config.tokenizer == "char" else "tokens"
        yield f"there are more parameters ({params:,}) than training {unit} ({tokens:,})"
    if config.max_iters < config.warmup_iters:
        yield f"{ends}, during the warm-up (--warmup-iters {config.warmup_iters:,})"
    if config.min_lr < config.learning_rate:
        if config.max_iters < config.lr_decay_iters:
            yield f"{ends}, before the learning rate has {decayed}"
        if config.max_iters > config.lr_decay_iters:
            rest = f"stays there until step {config.max_iters:,}"
            yield f"the learning rate has {decayed} and {rest}"
    if unseen := trainer.dataset.unseen():
        yield f"characters that occur only in the validation split, never in training: {unseen!r}"


def progress(trainer: Trainer, row: Metrics, val_loss: float | None) -> str:
    """Return the losses, the speed and the time left. val_loss: the latest."""
    parts = [] if row.loss is None else [f"loss {row.loss:.3f}"]
    if val_loss is not None:
        parts.append(f"val {val_loss:.3f}")
    if trainer.step_seconds:
        seconds = statistics.median(trainer.step_seconds)
        parts.append(f"{trainer.config.tokens_per_step / seconds:,.0f} tokens/s")
    if row.loss is not None:
        parts.append(f"{timedelta(seconds=min(round(trainer.seconds_left()), LONGEST))} left")
    return "  ".join(parts)


def after_training(trainer: Trainer, loss: float) -> Facts:
    """Yield the validation loss, the best one, and whether the preset's expected band has it."""
    yield "validation", f"{in_both_units(trainer, loss)}, {evaluated_part(trainer)}"
    config = trainer.config
    if trainer.dataset.sha256 == corpus.TINYSHAKESPEARE_SHA256:  # It may have been given as a file.
        config = replace(config, data="tinyshakespeare")
    best = trainer.run / runs.CHECKPOINTS / checkpoint.BEST
    if config.keep_best:
        with contextlib.suppress(checkpoint.CheckpointError):  # It may be missing or damaged.
            state = checkpoint.state_of(checkpoint.read_json(best / checkpoint.STATE), best)
            if state.val_loss is not None and state.val_loss < loss:
                yield "best", f"{state.val_loss:.4f} at step {state.step:,}, kept in {best}"
    band = expected_band(config)
    if band is not None:
        verdict = "within" if band[0] <= loss <= band[1] else "outside"
        yield "", f"{verdict} the expected band, {band[0]:.3f} to {band[1]:.3f}"


def before_evaluation(trainer: Trainer) -> Facts:
    """Yield what --eval-only is about to evaluate."""
    yield "data", f"{trainer.dataset.name}: {trainer.dataset.about}"
    yield "model", model_size(trainer)
    yield from unlike_gpt2(trainer.config)
    if trainer.step > 0:
        yield "from", f"{trainer.run}, at step {trainer.step:,}"
    elif trainer.config.init_from != "scratch":
        yield "from", trainer.config.init_from
    else:
        yield "from", "scratch: new random weights, not trained"
    yield "evaluation", "nothing is trained or written"


def evaluation(trainer: Trainer) -> Facts:
    """Evaluate the validation split, or its first part, and as much of the training split."""
    first = trainer.dataset.train[: len(trainer.val)]
    loss = in_both_units(trainer, trainer.evaluate())
    yield "validation", f"{loss}, {evaluated_part(trainer)}"
    loss = in_nats(trainer, trainer.evaluate(first))
    yield "training", f"{loss}, over the first {len(first) - 1:,} tokens of the training split"


def evaluated_part(trainer: Trainer) -> str:
    """Return the part of the validation split that is evaluated."""
    part, whole = len(trainer.val), len(trainer.dataset.val)
    if part == whole:
        return "over the whole split"
    return f"over the first {part - 1:,} of {whole:,} tokens of the split"


def model_size(trainer: Trainer) -> str:
    """Return the number of parameters and the shape of a model."""
    return f"{param_count(trainer.model.config):,} parameters, {trainer.config.in_words()}"


def in_both_units(trainer: Trainer, loss: float) -> str:
    """Return a loss in nats, and in bits per character, which compare between tokenizers."""
    bits = replace(trainer.dataset, val=trainer.val).bits_per_character(loss)
    return f"{in_nats(trainer, loss)}, {bits:.4f} bits per character"


def in_nats(trainer: Trainer, loss: float) -> str:
    """Return a loss in nats per character or per token."""
    token = "character" if trainer.config.tokenizer == "char" else "token"
    return f"{loss:.4f} nats per {token}"
