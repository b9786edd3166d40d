"""The targets that have a name: every operation, a transformer block, both models."""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import VARIANTS, case
from tinygpt_np.model import bigram
from tinygpt_np.model import gpt as model
from tinygpt_np.model.bigram import Bigram
from tinygpt_np.model.gpt import Gradients
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source import StudyError, find
from tinygpt_np.study.target import Target
from tinygpt_np.study.trace import Names

MODELS = ("block", "gpt", "bigram")
NAMES = (*ops.__all__, *MODELS)
# With dropout, so that its masks count.
CONFIG = replace(suite.CONFIG, dropout=0.3)
BLOCK = """A transformer block: attention, then feed-forward.

Each reads a normed copy of what flows past it, and is added to it: x is a stream that the layers
write to, and its gradient flows back along it undisturbed.
"""


def named(name: str, seed: int = 0) -> Target:
    """The target of a name. Raises StudyError, which lists them."""
    if name in ops.__all__:
        first, *others = (operation(variant, seed) for variant in variants(name))
        return replace(first, others=tuple(others))
    if name in MODELS:
        return {"block": block, "gpt": gpt, "bigram": bigram_model}[name](seed)
    raise StudyError(
        f"what to study must be one of {', '.join(NAMES)}, or FILE.py:forward,backward, not {name}"
    )


def summary(name: str) -> str:
    """What a target is, in a line: the first one of its file."""
    texts = {"block": BLOCK, "gpt": model.__doc__}
    module = texts.get(name) or getattr(ops, name, bigram).__doc__ or ""
    return module.partition("\n")[0]


def variants(operation: str) -> list[str]:
    """The ways to call an operation, the fullest first."""
    return [name for name, variant in VARIANTS.items() if variant.operation == operation]


def operation(variant: str, seed: int = 0) -> Target:
    """An operation at the generic values of the gradient checks."""
    chosen = case(variant, seed)
    module = chosen.module
    text = source_of(module)
    where = f"ops/{chosen.operation}.py"
    backwards = [n for n in ("backward_steps", "backward") if hasattr(module, n)]
    forward = find(text, "forward", where)
    return Target(
        chosen.operation, variant, "operation", where, module.__doc__ or "",
        forward, tuple(find(text, name, where) for name in backwards), dict(vars(module)),
        {**dict.fromkeys(forward.arguments), **chosen.args}, chosen.differentiable, seed,
        functions=(module.forward, *(getattr(module, name) for name in backwards)),
    )  # fmt: skip


def source_of(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def block(seed: int = 0) -> Target:
    """One transformer block: its input, and its parameters."""
    gpt = suite.generic_gpt(CONFIG, seed)
    shape = (suite.BATCH * suite.TIME, gpt.config.n_embd)
    x = generator(seed, "data").standard_normal(shape)  # (N, C)
    params = {name: param for name, param in gpt.params.items() if name.startswith("h.0.")}
    masks = gpt.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    args: Names = {"self": gpt, "x": x, "h": "h.0", "batch": suite.BATCH, "masks": masks}
    return of_model(
        "block", "transformer block", BLOCK, "block_", args, ("x",), params, seed,
        lambda: {"self": gpt, "h": "h.0", "grads": Gradients()},
    )  # fmt: skip


def gpt(seed: int = 0) -> Target:
    """The whole GPT."""
    whole = suite.generic_gpt(CONFIG, seed)
    tokens, _ = suite.batch(whole.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = whole.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    args: Names = {"self": whole, "tokens": tokens, "masks": masks}
    about = model.__doc__ or ""
    return of_model("gpt", "GPT", about, "", args, (), whole.params, seed, lambda: {"self": whole})


def bigram_model(seed: int = 0) -> Target:
    table = Bigram(suite.CONFIG.vocab_size, seed, "float64")
    tokens, _ = suite.batch(table.vocab_size, suite.BATCH, suite.TIME, seed)
    args: Names = {"self": table, "tokens": tokens, "masks": None}
    about = bigram.__doc__ or ""
    return of_model(
        "bigram", "bigram model", about, "", args, (), table.params, seed, lambda: {"self": table}
    )


def of_model(
    name: str, title: str, docstring: str, prefix: str, args: Names, wrt: tuple[str, ...],
    params: Tensors, seed: int, given: Callable[[], Names],
) -> Target:  # fmt: skip
    """The methods <prefix>forward and <prefix>backward of the model that is `self` in the args."""
    whole = args["self"]
    module = sys.modules[type(whole).__module__]
    text, where = source_of(module), f"{module.__name__.rpartition('.')[2]}.py"
    forward, backward = (
        find(text, f"{type(whole).__name__}.{prefix}{method}", where)
        for method in ("forward", "backward")
    )

    def with_params(changed: Tensors) -> Names:
        other = copy.copy(whole)
        other.params = {**whole.params, **changed}
        return {**args, "self": other}

    return Target(
        name, title, "model", where, docstring, forward, (backward,), dict(vars(module)), args, wrt,
        seed, params, with_params, given,
    )  # fmt: skip
