"""Where bugs are planted: every backward of ops/ and of model.py, in the running program."""

import ast
import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygpt_np import ops
from tinygpt_np.gradcheck.mutations import Mutation, mutations
from tinygpt_np.model import gpt


@dataclass(frozen=True)
class Site:
    """A function to plant bugs in. room: the operation, or "gpt"; owner: module or class."""

    room: str
    owner: Any
    module: ModuleType
    function: str

    def mutations(self) -> list[Mutation]:
        assert self.module.__file__ is not None
        source = Path(self.module.__file__).read_text(encoding="utf-8")
        special = [OTHER_GELU[self.room]] if self.room in OTHER_GELU else []
        return mutations(source, self.function) + special

    def compiled(self, mutation: Mutation) -> Callable[..., Any]:
        """The mutant, among the names of its module."""
        names = dict(vars(self.module))
        tree = ast.Module([mutation.tree], [])
        exec(compile(tree, f"<mutant of {self.room}>", "exec"), names)
        return names[self.function]

    @contextlib.contextmanager
    def planted(self, mutant: Callable[..., Any]) -> Generator[None]:
        """Puts a mutant in the place of what all code calls, for a while."""
        # The long way takes the place of the short one: nothing else calls it.
        name = "backward" if self.function == "backward_steps" else self.function
        original = getattr(self.owner, name)
        setattr(self.owner, name, mutant)
        try:
            yield
        finally:
            setattr(self.owner, name, original)


def other_gelu(other: str) -> Mutation:
    """The derivative of the other form of GELU, where this form went forward."""
    text = f"""
def backward(dy, saved):
    from tinygpt_np.ops import {other}
    return {other}.backward(dy, {other}.forward(saved[0])[1])
"""
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    after = f"return {other}.backward(dy, {other}.forward(x)[1])"
    return Mutation("backward", "other GELU", 0, "(all of it)", after, tree)


OTHER_GELU = {"gelu": other_gelu("gelu_exact"), "gelu_exact": other_gelu("gelu")}


def sites() -> list[Site]:
    """Every backward of ops/ and of model.py, in the order in which one reads them."""
    found = [
        Site(name, module, module, function)
        for name, module in ((name, getattr(ops, name)) for name in ops.__all__)
        for function in ("backward", "backward_steps")
        if hasattr(module, function)
    ]
    found += [Site("gpt", gpt.GPT, gpt, name) for name in ("backward", "block_backward")]
    return [*found, Site("gpt", gpt.Gradients, gpt, "keep")]
