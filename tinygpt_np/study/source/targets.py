"""Find what to study: an operation, a block or a model of this package, or a user's functions.

A target consists of a forward, its backwards and the arguments of one call. User functions are
given as FILE.py:forward,backward and called with random arrays, so the shapes of their arguments
must be known: from the first line of forward's docstring, as in ops/, or from --args, in the same
notation.
"""

import ast
import copy
import importlib.util
import inspect
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import SIZES, VARIANTS, case
from tinygpt_np.gradcheck.function_check import differentiable
from tinygpt_np.model import bigram
from tinygpt_np.model import gpt as model
from tinygpt_np.model.bigram import Bigram
from tinygpt_np.model.gpt import Gradients
from tinygpt_np.ops.contract import Array, Count, parse
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.parse import Function, StudyError, find_function
from tinygpt_np.study.source.trace import Namespace

Kind = Literal["operation", "model", "user"]

MODELS = ("block", "gpt", "bigram")
NAMES = (*ops.__all__, *MODELS)
# With dropout, so that its masks are checked too.
CONFIG = replace(suite.CONFIG, dropout=0.3)
BLOCK = """A transformer block: attention, then feed-forward.

Each of the two reads a normalized copy of its input and adds its output to that input. So x is a
residual stream that the layers write to, and its gradient flows back along the stream unchanged.
"""
FORM = "FILE.py:forward,backward"
# Sizes of letters that the operations do not use, and of the axes that ... stands for.
OTHER_SIZES, ANY_AXES = (9, 10, 12, 13, 14, 15, 16, 17, 18, 19), (2, 3)


@dataclass(frozen=True)
class Target:
    """A forward with its backwards, and a call of it at generic values.

    Attributes
    ----------
    name, title : str
        The name on the command line, and the title for display.
    file : str
        The displayed name of the source file.
    backwards : tuple of Function
        The backward that follows the forward line by line comes first.
    module : Namespace
        The global names of the functions.
    args : Namespace
        The arguments of the call of forward.
    wrt : tuple of str
        The arguments that have a gradient.
    seed : int
        Seed of the upstream gradient.
    params : Tensors
        The parameters of a model, which have a gradient too.
    with_params : callable, optional
        Return the arguments with other parameters.
    backward_args : callable
        Return the arguments of a backward other than the upstream gradient and what was saved.
        Called for each run.
    functions : tuple of callable
        forward and the backwards as Python functions. If given, their behaviour is checked too:
        that they compute what their lines compute and do not change or alias their inputs.
    variants : tuple of Target
        Other ways to call the operation, such as without a bias.
    """

    name: str
    title: str
    kind: Kind
    file: str
    docstring: str
    forward: Function
    backwards: tuple[Function, ...]
    module: Namespace
    args: Namespace
    wrt: tuple[str, ...]
    seed: int = 0
    params: Tensors = field(default_factory=dict[str, np.ndarray])
    with_params: Callable[[Tensors], Namespace] | None = None
    backward_args: Callable[[], Namespace] = dict
    functions: tuple[Callable[..., Any], ...] = ()
    variants: tuple["Target", ...] = ()


def gradients_by_name(target: Target, returned: Any) -> dict[str, Any]:
    """Return the gradients returned by a backward, by the name of the argument or parameter.

    Raises
    ------
    ValueError
        If the number of gradients, or their keys, do not match.
    """
    names = [*target.wrt, *target.params]
    if isinstance(returned, Mapping):
        found = cast(Mapping[str, Any], returned)
        keys = {name: name if name in found else f"d{name}" for name in names}
        if not {*keys.values()} & {*found}:
            raise ValueError(f"the keys must be {', '.join(names)}, not {', '.join(found)}")
        return {name: found.get(key) for name, key in keys.items()}
    parts = list(cast(Any, returned)) if isinstance(returned, tuple | list) else [returned]
    if target.kind == "model":  # A block stores the gradients of its parameters elsewhere.
        return dict(zip(target.wrt, parts, strict=True))
    if len(parts) != len(names):
        # The gradient of an argument that was None is None.
        parts = [part for part in parts if part is not None]
    if len(parts) != len(names):
        expected = f"must return {len(names)} gradients ({', '.join(names)})"
        raise ValueError(f"{expected}, not {len(parts)}")
    return dict(zip(names, parts, strict=True))


def find_target(name: str, described: str | None, seed: int) -> Target:
    """Return the target with a name, or the one that FILE.py:forward,backward describes.

    `described` is the value of --args. Raises StudyError if there is no such target.
    """
    is_user = ":" in name or name.endswith(".py")
    if described is not None and not is_user:
        raise ValueError(
            f"--args describes the arguments of your own functions; {name} has its own arguments"
        )
    return user_target(name, described, seed) if is_user else named_target(name, seed)


# Targets of this package


def named_target(name: str, seed: int = 0) -> Target:
    """Return an operation with its variants, the block or a model. Raises StudyError."""
    if name in ops.__all__:
        first, *others = (operation(variant, seed) for variant in variants_of(name))
        return replace(first, variants=tuple(others))
    if name in MODELS:
        return {"block": block, "gpt": gpt, "bigram": bigram_model}[name](seed)
    raise StudyError(f"TARGET must be one of {', '.join(NAMES)}, or {FORM}, not {name}")


def summary(name: str) -> str:
    """Return a one-line description of a target: the first line of its docstring."""
    texts = {"block": BLOCK, "gpt": model.__doc__}
    module = texts.get(name) or getattr(ops, name, bigram).__doc__ or ""
    return module.partition("\n")[0]


def variants_of(operation: str) -> list[str]:
    """Return the ways to call an operation; the one with most arguments comes first."""
    return [name for name, variant in VARIANTS.items() if variant.operation == operation]


def operation(variant: str, seed: int = 0) -> Target:
    """Return an operation called with the generic values of the gradient checks."""
    chosen = case(variant, seed)
    module = chosen.module
    text = source_of(module)
    file = f"ops/{chosen.operation}.py"
    backwards = [n for n in ("backward_steps", "backward") if hasattr(module, n)]
    forward = find_function(text, "forward", file)
    return Target(
        chosen.operation, variant, "operation", file, module.__doc__ or "",
        forward, tuple(find_function(text, name, file) for name in backwards), dict(vars(module)),
        {**dict.fromkeys(forward.arguments), **chosen.args}, chosen.differentiable, seed,
        functions=(module.forward, *(getattr(module, name) for name in backwards)),
    )  # fmt: skip


def source_of(module: ModuleType) -> str:
    """Return the source of a module."""
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def block(seed: int = 0) -> Target:
    """Return the first transformer block of a GPT, with its input and its parameters."""
    gpt = suite.generic_gpt(CONFIG, seed)
    shape = (suite.BATCH * suite.TIME, gpt.config.n_embd)
    x = generator(seed, "data").standard_normal(shape)  # (N, C)
    params = {name: param for name, param in gpt.params.items() if name.startswith("h.0.")}
    masks = gpt.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    args: Namespace = {"self": gpt, "x": x, "h": "h.0", "batch": suite.BATCH, "masks": masks}
    return model_target(
        "block", "transformer block", BLOCK, "block_", args, ("x",), params, seed,
        lambda: {"self": gpt, "h": "h.0", "grads": Gradients()},
    )  # fmt: skip


def gpt(seed: int = 0) -> Target:
    """Return the GPT with all its parameters."""
    gpt = suite.generic_gpt(CONFIG, seed)
    tokens, _ = suite.batch(gpt.vocab_size, suite.BATCH, suite.TIME, seed)
    masks = gpt.draw_masks(suite.BATCH, suite.TIME, generator(seed, "dropout"))
    args: Namespace = {"self": gpt, "tokens": tokens, "masks": masks}
    about = model.__doc__ or ""
    return model_target("gpt", "GPT", about, "", args, (), gpt.params, seed, lambda: {"self": gpt})


def bigram_model(seed: int = 0) -> Target:
    """Return the bigram model."""
    table = Bigram(suite.CONFIG.vocab_size, seed, "float64")
    tokens, _ = suite.batch(table.vocab_size, suite.BATCH, suite.TIME, seed)
    args: Namespace = {"self": table, "tokens": tokens, "masks": None}
    about = bigram.__doc__ or ""
    return model_target(
        "bigram", "bigram model", about, "", args, (), table.params, seed, lambda: {"self": table}
    )


def model_target(
    name: str, title: str, docstring: str, prefix: str, args: Namespace, wrt: tuple[str, ...],
    params: Tensors, seed: int, backward_args: Callable[[], Namespace],
) -> Target:  # fmt: skip
    """Return the methods <prefix>forward and <prefix>backward of the model args["self"]."""
    instance = args["self"]
    module = sys.modules[type(instance).__module__]
    text, file = source_of(module), f"model/{module.__name__.rpartition('.')[2]}.py"
    forward, backward = (
        find_function(text, f"{type(instance).__name__}.{prefix}{method}", file)
        for method in ("forward", "backward")
    )

    def with_params(changed: Tensors) -> Namespace:
        other = copy.copy(instance)
        other.params = {**instance.params, **changed}
        return {**args, "self": other}

    return Target(
        name, title, "model", file, docstring, forward, (backward,), dict(vars(module)), args, wrt,
        seed, params, with_params, backward_args,
    )  # fmt: skip


# Functions in a user's file


def user_target(text: str, described: str | None = None, seed: int = 0) -> Target:
    """Return the target that FILE.py:forward,backward describes; `described` is that of --args."""
    path, names = split_user_target(text)
    module = import_file(path)
    file = path.name
    with tokenize.open(path) as opened:  # Uses the encoding that the file declares.
        source = opened.read()
    forward, *backwards = (find_function(source, name, file) for name in names)
    for backward in backwards:
        if len(backward.arguments) < 2:
            place = f"{file}: {backward.name}"
            raise StudyError(f"{place} must take the upstream gradient and what forward saved")
    args = arguments(getattr(module, forward.name), file, described, seed)
    wrt = arguments_with_gradient(differentiable(args, None), backwards[-1])
    return Target(
        text, path.stem, "user", file, module.__doc__ or "", forward, tuple(backwards),
        dict(vars(module)), args, wrt, seed,
        functions=tuple(getattr(module, name) for name in names),
    )  # fmt: skip


def arguments_with_gradient(floats: tuple[str, ...], backward: Function) -> tuple[str, ...]:
    """Return the float arrays that have a gradient.

    These are all of them, unless the backward returns fewer gradients d<name>: a mask, for example,
    has none.
    """
    value = backward.returned.value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    named = {part.id.removeprefix("d") for part in parts if isinstance(part, ast.Name)}
    if len(parts) < len(floats) and len(named) == len(parts) and named <= {*floats}:
        return tuple(name for name in floats if name in named)
    return floats


def split_user_target(text: str) -> tuple[Path, list[str]]:
    """Split FILE.py:forward,backward into the file and the names of the functions."""
    file, colon, functions = text.rpartition(":")
    names = [name.strip() for name in functions.split(",")]
    if not colon or len(names) not in (2, 3) or not all(name.isidentifier() for name in names):
        raise StudyError(f"your own functions are given as {FORM}, not {text}")
    path = Path(file)
    if not path.is_file():
        raise StudyError(f"there is no file {file}")
    return path, names


def import_file(path: Path) -> ModuleType:
    """Import a file, which may import other modules in its folder."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} must be a Python file, with a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        kind = type(error).__name__
        raise StudyError(f"{path} cannot be imported: {kind}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def arguments(function: Any, file: str, described: str | None, seed: int) -> Namespace:
    """Return random arguments of the described shapes, and the defaults of the others."""
    line = (inspect.getdoc(function) or "").partition("\n")[0]
    found = parse(line.partition(" -> ")[0] if described is None else described)
    names = list(inspect.signature(function).parameters)
    if found is None or not {each.name for each in found} <= {*names}:
        given = f"its docstring starts with {line!r}" if described is None else f"not {described!r}"
        raise StudyError(
            f"{file}: the first line of the docstring of {function.__name__} ({', '.join(names)}), "
            f"or --args, must describe its arguments in a form like "
            f"'x (N, C), weight (C, 3), ids (N,) integers in [0, V)', with capital letters or "
            f"numbers for sizes; {given}"
        )
    drawn = dict(draw(found, seed))
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    missing = [n for n in names if n not in drawn and defaults[n] is inspect.Parameter.empty]
    if missing:
        raise StudyError(
            f"{file}: {function.__name__} also takes {', '.join(missing)}, "
            "which must be described too"
        )
    return {name: drawn.get(name, defaults[name]) for name in names}


def draw(described: list[Array | Count], seed: int) -> Iterator[tuple[str, Any]]:
    """Draw values of order one, or integers, of the described shapes; each letter has one size."""
    rng, sizes = generator(seed, "data"), dict(SIZES)
    others = iter(OTHER_SIZES)
    for each in described:
        if isinstance(each, Count):
            yield each.name, sizes[each.letter]
            continue
        for letter in [letter for _, letter in each.axes] + list(each.end):
            if letter and letter not in sizes:
                sizes[letter] = next(others)
        shape = tuple(times * (sizes[letter] if letter else 1) for times, letter in each.axes)
        shape = ANY_AXES + shape if each.any_before else shape
        if each.end:
            yield each.name, rng.integers(max(each.lowest, 0), sizes[each.end], shape)
        else:
            yield each.name, np.asarray(rng.standard_normal(shape))
