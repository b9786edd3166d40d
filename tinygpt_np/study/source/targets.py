"""Find what to study: an operation, a block or a model of this package, or a user's functions.

A target consists of a forward, its backwards and the arguments of one call. User functions are
given as FILE.py:forward,backward and called with random arrays (arguments.py), or as Python
functions with the arguments of a call.
"""

import ast
import contextlib
import copy
import functools
import importlib.util
import inspect
import linecache
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.calls import SELF, ForwardCall, copied, describe, differentiable, named
from tinygpt_np.gradcheck.cases import case, variants_of
from tinygpt_np.gradcheck.convention import STANDARD, Convention
from tinygpt_np.gradcheck.tree import (
    Gradients,
    attribute_gradients,
    gradients_by_name,
    with_gradient,
)
from tinygpt_np.model import bigram, gpt
from tinygpt_np.model.bigram import Bigram
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.arguments import draw_arguments
from tinygpt_np.study.source.parse import Function, StudyError, find_function, methods_in, names_in
from tinygpt_np.study.source.paths import Namespace, differentiated, leaf

Kind = Literal["operation", "model", "user"]

# In reading order: no target calls a later one.
OPERATIONS = (
    *("linear", "embedding", "softmax", "cross_entropy", "layer_norm", "rms_norm", "gelu"),
    *("gelu_exact", "relu", "relu_squared", "silu", "swiglu", "dropout", "rotary", "attention"),
    "soft_cap",
)
MODELS = {
    "bigram": "bigram model", "heads": "queries and keys of a block", "block": "transformer block",
    "gpt": "GPT",
}  # fmt: skip
NAMES = (*OPERATIONS, *MODELS)
# With dropout, so that its masks are checked too.
CONFIG = replace(suite.CONFIG, dropout=0.3)
BLOCK = """A transformer block: attention, then feed-forward.

Each of the two reads a normalized copy of its input and adds its output to that input. So x is a
residual stream that the layers write to, and its gradient flows back along the stream unchanged.
"""
HEADS = """The queries and keys of a block, between c_attn and attention.

Each head is a row of D channels. QK-norm divides it by its root mean square, so that no dot product
grows with the weights; rotary positions then rotate its pairs of channels. Values stay as they are.
"""
# The part of the model's source that a target shows, by the prefix of its methods.
PREFIXES = {"block": "block_", "heads": "heads_"}
FORM = "FILE.py:forward,backward"


@dataclass(frozen=True)
class Target:
    """A forward with its backwards, and a call of it at generic values.

    name, title: on the command line, and for display. file: the displayed name of the source file.
    backwards: the one that follows the forward line by line comes first. module: the global names
    of the functions. args: the arguments of forward. wrt: those that have a gradient. seed: of the
    upstream gradient. params: the parameters of a model, which have a gradient too. variants: other
    ways to call the operation, such as without a bias.

    functions: forward and the backwards as Python functions. If given, their behaviour is checked
    too: that they compute what their lines compute and do not change or alias their inputs.
    convention: what forward returns and the backwards take; the object of two methods is called
    self.
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
    functions: tuple[Callable[..., Any], ...] = ()
    variants: tuple["Target", ...] = ()
    convention: Convention = STANDARD

    def with_params(self, changed: Tensors) -> Namespace:
        """Return the arguments with some parameters of the model changed."""
        model = copy.copy(self.args["self"])
        model.params = {**model.params, **changed}
        return {**self.args, "self": model}

    def gradients(self, returned: Any, after: Namespace) -> Gradients:
        """Return the gradients of arguments that a backward returned, by name.

        after: the namespace after the backward; the object of two methods may hold gradients.
        Raises ValueError if number or keys are wrong.
        """
        if self.kind == "model" and isinstance(returned, Mapping):
            found = cast(Mapping[str, Any], returned)
            return {name: found.get(name) for name in (*self.wrt, *self.params)}
        if self.kind == "model":  # A block stores the gradients of its parameters elsewhere.
            parts = list(cast(Any, returned)) if isinstance(returned, tuple | list) else [returned]
            if len(parts) != len(self.wrt):
                wanted = ", ".join(self.wrt) or "the parameters, by name"
                raise ValueError(f"backward must return a gradient for each of {wanted}")
            return dict(zip(self.wrt, parts, strict=True))
        found = gradients_by_name(returned, self.args, self.wrt)
        if SELF in self.args:
            kept = {**self.args, SELF: after[SELF]}
            found = attribute_gradients(self.args, kept, self.wrt) | found
        return {name: found.get(name) for name in self.wrt}

    def backward_args(self, backward: Function) -> Namespace:
        """Return the arguments of a model's backward that its forward has too, and `grads`."""
        known = {**self.args, "grads": gpt.Gradients()} if self.kind == "model" else {}
        return {name: known[name] for name in backward.arguments if name in known}


def find_target(name: str, described: str | None, seed: int) -> Target:
    """Return the target of a name, or of FILE.py:forward,backward and the value of --args."""
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
        first, *others = model_targets(name, seed)
        return replace(first, variants=tuple(others))
    raise StudyError(f"TARGET must be one of {', '.join(NAMES)}, or {FORM}, not {name}")


def docstring(name: str) -> str:
    """Return the docstring of a target of this package."""
    modules: dict[str, Any] = {"gpt": gpt, "bigram": bigram}
    own = {"block": BLOCK, "heads": HEADS}
    return own.get(name) or modules.get(name, getattr(ops, name, None)).__doc__ or ""


def operation(variant: str, seed: int = 0) -> Target:
    """Return an operation called with the generic values of the gradient checks."""
    chosen = case(variant, seed)
    name, module = chosen.operation, chosen.module
    text, file = inspect.getsource(module), f"ops/{name}.py"
    backwards = [name for name in ("backward_steps", "backward") if hasattr(module, name)]
    forward = find_function(text, "forward", file)
    defaults = {n: p.default for n, p in inspect.signature(module.forward).parameters.items()}
    return Target(
        name, variant, "operation", file, docstring(name),
        forward, tuple(find_function(text, backward, file) for backward in backwards),
        dict(vars(module)), defaults | chosen.args,
        chosen.differentiable, seed,
        functions=(module.forward, *(getattr(module, backward) for backward in backwards)),
    )  # fmt: skip


def model_targets(name: str, seed: int) -> Iterator[Target]:
    """Yield a model, or a part of a GPT; a GPT with GPT-2's parts first, then with newer ones."""
    if name == "bigram":
        yield model_target(name, MODELS[name], Bigram(CONFIG.vocab_size, seed, "float64"), seed)
        return
    configs = {MODELS[name]: CONFIG, **suite.NEWER}
    if name == "heads":  # GPT-2 leaves them as they are. The last configuration has both changes.
        first, *others = reversed(suite.NEWER.items())
        configs = {MODELS[name]: first[1], **dict(others)}
    for title, config in configs.items():
        yield model_target(name, title, suite.generic_gpt(config, seed), seed)


def model_target(
    name: str,
    title: str,
    model: GPT | Bigram,
    seed: int,
    batch: int = suite.BATCH,
    time: int = suite.TIME,
) -> Target:
    """Return a model, or a part of it, called at generic values with tokens (batch, time)."""
    tokens, _ = suite.batch(model.vocab_size, batch, time, seed)
    rng = generator(seed, "dropout")
    masks = model.draw_masks(batch, time, rng) if isinstance(model, GPT) else None
    args: Namespace = {"self": model, "tokens": tokens, "masks": masks}
    differentiable: tuple[str, ...] = ()
    params = model.params
    if name in PREFIXES:
        config, rows = cast(GPT, model).config, batch * time
        width, argument = (config.n_embd, "x") if name == "block" else (config.qkv_width, "qkv")
        x = generator(seed, "data").standard_normal((rows, width))  # (N, C) or (N, E)
        args = {"self": model, argument: x, "batch": batch}
        differentiable, params = (argument,), {}
        if name == "block":
            args |= {"h": "h.0", "masks": masks}
            params = {n: param for n, param in model.params.items() if n.startswith("h.0.")}
    module = gpt if isinstance(model, GPT) else bigram
    text, file = inspect.getsource(module), f"model/{module.__name__.rpartition('.')[2]}.py"
    forward, backward = (
        find_function(text, f"{type(model).__name__}.{PREFIXES.get(name, '')}{method}", file)
        for method in ("forward", "backward")
    )
    return Target(
        name, title, "model", file, docstring(name), forward, (backward,), dict(vars(module)), args,
        differentiable, seed, params,
    )  # fmt: skip


# Functions of a user


def user_target(text: str, described: str | None = None, seed: int = 0) -> Target:
    """Return the target that FILE.py:forward,backward describes; `described` is that of --args.

    The functions may be methods, as Class.forward and Class.backward; then an object is made.
    """
    path, names = split_user_target(text)
    module = import_file(path)
    file = path.name
    with tokenize.open(path) as opened:  # Uses the encoding that the file declares.
        source = opened.read()
    forward, *backwards = (find_function(source, name, file, steps_into=True) for name in names)
    functions: list[Any] = [functools.reduce(getattr, name.split("."), module) for name in names]
    owner, _, _ = names[0].rpartition(".")
    if owner:
        kind = getattr(module, owner)
        made, args = draw_arguments((kind, functions[0]), file, described, seed)
        made = kind(**made)
        functions = [getattr(made, name.rpartition(".")[2]) for name in names]
    else:
        (args,) = draw_arguments(functions[:1], file, described, seed)
    return with_call(Target(
        text, path.stem, "user", file, module.__doc__ or "", forward, tuple(backwards),
        dict(vars(module)), args, (), seed,
        functions=tuple(functions),
    ))  # fmt: skip


def with_call(target: Target) -> Target:
    """Return a target with its convention and the arguments that have a gradient.

    These are the leaves of floats for which a backward, if it runs, returns a gradient, or a name
    such as dx, even if that is None.
    """
    forward, *_, backward = target.functions
    try:
        args = {name: arg for name, arg in target.args.items() if name != SELF}
        call = ForwardCall(forward, args, None, backward)
    except Exception:  # The reason is found when the lines run.
        return replace(target, wrt=differentiable(target.args, None))
    rng, wrt = generator(target.seed, "gradcheck"), call.wrt
    upstream = {name: rng.standard_normal(np.shape(out)) for name, out in call.outputs.items()}
    with contextlib.suppress(Exception), np.errstate(all="ignore"):
        found = call.gradients(backward, copied(call.args), upstream)
        claimed = {base for name in names_in(target.backwards[-1].result)
                   for base in differentiated(name)}  # fmt: skip
        given = {*with_gradient(call.args, call.wrt, found)}
        wrt = tuple(name for name in call.wrt if name in given or leaf(name) in claimed)
    return replace(target, args=call.args, wrt=wrt, convention=call.convention)


def split_user_target(text: str) -> tuple[Path, list[str]]:
    """Split FILE.py:forward,backward into the file and the names of the functions."""
    file, colon, functions = text.rpartition(":")
    names = [name.strip() for name in functions.split(",")]
    if not colon or len(names) not in (2, 3) or not all(map(is_name, names)):
        raise StudyError(f"your own functions are given as {FORM}, not {text}")
    if not Path(file).is_file():
        raise StudyError(f"there is no file {file}")
    return Path(file), names


def is_name(text: str) -> bool:
    """Return whether a text is the name of a function, or Class.method."""
    parts = text.split(".")
    return len(parts) <= 2 and all(part.isidentifier() for part in parts)


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
        raise StudyError(f"{path} cannot be imported: {describe(error)}") from None
    finally:
        sys.path.pop(0)
    return module


def target_of(
    forward: Callable[..., Any], backward: Callable[..., Any],
    args: Sequence[Any] | Mapping[str, Any], seed: int = 0,
) -> Target:  # fmt: skip
    """Return the target of two functions, which may be in cells of a notebook, and their arguments.

    Raises StudyError if a source is not known, or cannot be run line by line.
    """
    functions = inspect.unwrap(forward), inspect.unwrap(backward)
    first, second = map(source_of, functions)
    module = {**names_around(functions[1]), **names_around(functions[0])}
    first, second = (replace(each, methods=methods_of(module)) for each in (first, second))
    defaults = {n: p.default for n, p in inspect.signature(forward).parameters.items()}
    return with_call(Target(
        first.name, first.name, "user", first.file, inspect.getdoc(forward) or "", first, (second,),
        module, defaults | named(forward, args), (), seed, functions=functions,
    ))  # fmt: skip


def source_of(function: Callable[..., Any]) -> Function:
    """Return the source of a function, which may be in a cell of a notebook. Raises StudyError."""
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        path = inspect.getsourcefile(function) or ""
    except TypeError:
        path = ""
    # Every text that is run by exec has this name, so its lines may be those of another one.
    text = "" if path == "<string>" else "".join(linecache.getlines(path))
    if not text:
        raise StudyError(f"the source of {name} is not known; define it in a file or in a cell")
    return find_function(text, name, file_name(path))


def names_around(function: Any) -> Namespace:
    """Return the global names that a function can use, and the local ones of functions around."""
    return {**function.__globals__, **inspect.getclosurevars(function).nonlocals}


def methods_of(module: Namespace) -> dict[str, Function]:
    """Return the methods of the classes defined in a module, which may consist of cells."""
    found: dict[str, Function] = {}
    for each in [each for each in module.values() if isinstance(each, type)]:
        functions = [f for f in vars(each).values() if inspect.isfunction(f)]
        if each.__module__ == module.get("__name__") and functions:
            path = functions[0].__code__.co_filename
            text = "".join(linecache.getlines(path))
            methods = methods_in(ast.parse(text), tuple(text.splitlines()), file_name(path))
            own = f"{each.__name__}."
            found |= {name: method for name, method in methods.items() if name.startswith(own)}
    return found


def file_name(path: str) -> str:
    """Return the name of a file, or that of a cell, such as In[3]."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cell = shell.compile.format_code_name(path) if shell else None
    return cell[1] if cell else Path(path).name
