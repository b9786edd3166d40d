"""The origin of an exercise: the source of a forward and its backward, and a call of it."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

from tinygpt_np import ops
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import VARIANTS, case, variants_of
from tinygpt_np.learn import warm_ups
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.models import micro_batches
from tinygpt_np.model import gpt
from tinygpt_np.model.gpt import GPT
from tinygpt_np.ops import contract
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.arguments import draw_arguments
from tinygpt_np.study.source.parse import Function, find_function
from tinygpt_np.study.source.targets import Target

Sizes = Mapping[str, int]
# Other sizes, and more blocks.
LARGER = replace(targets.CONFIG, vocab_size=9, block_size=8, n_layer=3, n_inner=7)
LARGER_TIME = 4
# Its forward adds up a quadrature for each element.
SMALL = {"gelu_exact": {"N": 2, "C": 3}}
# The checks of arguments take a third of the time of a small model.
UNGUARDED = contract.unguarded(ops)
MODELS = ("block", "gpt")
# Small, so that a check is quick; no two axes of a line have the same size.
BATCH, TIME = 2, 3
CONFIG = replace(targets.CONFIG, vocab_size=7, block_size=5, n_embd=4, n_inner=3)


@dataclass(frozen=True)
class Source:
    """The source of an exercise.

    module: it contains forward and backward. docstring: the derivation. backward: the function
    whose lines are asked for.
    """

    module: ModuleType
    docstring: str
    forward: Function
    backward: Function


@cache
def source_of(exercise: Exercise) -> Source:
    """Return the source of an exercise."""
    name, module = exercise.subject, module_of(exercise.subject)
    text = inspect.getsource(module)
    file = f"{module.__name__.removeprefix('tinygpt_np.').replace('.', '/')}.py"
    steps = "backward_steps" if hasattr(module, "backward_steps") else "backward"
    forward, backward = "forward", exercise.bug.function if exercise.bug else steps
    if name in MODELS:
        prefix = f"GPT.{targets.PREFIXES.get(name, '')}"
        forward, backward = f"{prefix}forward", f"{prefix}backward"
    docstring = targets.docstring(name) if name in MODELS else module.__doc__ or ""
    functions = (find_function(text, each, file) for each in (forward, backward))
    return Source(module, docstring, *functions)


def module_of(subject: str) -> ModuleType:
    """Return the module that contains the source of this name."""
    if subject in MODELS:
        return gpt
    if subject == "micro_batches":
        return micro_batches
    return getattr(ops if subject in ops.__all__ else warm_ups, subject)


def targets_of(exercise: Exercise, seed: int = 0, sizes: Sizes | None = None) -> Iterator[Target]:
    """Yield the ways to call the functions of an exercise, first the one for checking lines.

    sizes: those of some letters, for all but the models.
    """
    name = exercise.subject
    if name in MODELS:
        for title, config in {
            "as in GPT-2": CONFIG,
            **suite.NEWER,
            "a larger GPT-2": LARGER,
        }.items():
            model = suite.generic_gpt(config, seed)
            time = LARGER_TIME if config is LARGER else TIME
            target = targets.model_target(name, title, model, seed, BATCH, time)
            model.ops = UNGUARDED
            yield of_last_block(target, model) if config is LARGER and name == "block" else target
    elif name in ops.__all__:
        for variant in variants_of(name):
            sizes = sizes or SMALL.get(name, {})
            chosen = {k: v for k, v in sizes.items() if k in VARIANTS[variant].letters}
            target, args = operation(variant), case(variant, seed, chosen).args
            yield replace(target, args=target.args | args, seed=seed)
    else:
        yield plain_target(exercise, seed, sizes or {})


def of_last_block(target: Target, model: GPT) -> Target:
    """Return a call of a block with the parameters of the last one."""
    h = f"h.{model.config.n_layer - 1}"
    params = {name: p for name, p in model.params.items() if name.startswith(f"{h}.")}
    return replace(target, args=target.args | {"h": h}, params=params)


# Parsing a source takes longer than a call.
operation = cache(targets.operation)


def plain_target(exercise: Exercise, seed: int, sizes: Sizes) -> Target:
    """Return the functions of a module, called with arguments as its docstring describes them."""
    source = source_of(exercise)
    module, file = source.module, source.forward.file
    (args,) = draw_arguments((module.forward,), file, None, seed, sizes)
    return targets.with_call(Target(
        exercise.subject, exercise.subject, "user", file, source.docstring, source.forward,
        (source.backward,), dict(vars(module)), args, (), seed,
        functions=(module.forward, module.backward),
    ))  # fmt: skip
