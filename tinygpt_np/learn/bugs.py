"""The bugs of the bug hunt: forty of the planted bugs of gradcheck, chosen by hand, easy to hard.

Each one is a mistake that people make. It changes one line, which study's proof finds, and it is
found by thinking: it raises no exception, leaves no line out, and looks like the lines around it.
"""

import ast
from dataclasses import dataclass, replace
from functools import cached_property

from tinygpt_np.gradcheck.mutations import KINDS, Mutation, sites
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.targets import Target


@dataclass(frozen=True)
class ChosenBug:
    """A planted bug. before, after: the right statement and the wrong one, as ast.unparse writes.

    operation, function: those of its site; an operation, or "gpt" for the methods of the model.
    """

    operation: str
    function: str
    before: str
    after: str

    @property
    def subject(self) -> str:
        """The source that an exercise about it is generated from."""
        return "block" if self.function == "block_backward" else self.operation

    @cached_property
    def mutation(self) -> Mutation:
        """The mutant of gradcheck."""
        return next(
            mutation
            for site in sites()
            if (site.operation, site.function) == (self.operation, self.function)
            for mutation in site.mutations()
            if (mutation.before, mutation.after) == (self.before, self.after)
        )

    def planted(self, line: str) -> str:
        """Return a line of the source with the wrong statement in the place of the right one."""
        return line.replace(as_written(self.before), as_written(self.after))

    def place(self, statements: list[ast.stmt]) -> int:
        """Return the index of the right statement among those of the source."""
        return [ast.unparse(each) for each in statements].index(self.before)


def hints(bug: ChosenBug, target: Target) -> tuple[str, str, str, str]:
    """Return four hints: where the wrong line is, the kind of mistake, its cause, the right line.

    target: a call of the bug's subject.
    """
    function = next(each for each in target.backwards if each.name == bug.function)
    truth = Truth(target)
    first = prove(truth, replace(function, node=bug.mutation.tree)).first_wrong
    assert first is not None
    steps, cause = truth.trace.steps, first.stated_cause
    is_closed = function is not target.backwards[0]
    if is_closed or first.reverses is None or first.reverses >= len(steps):
        where = f"The wrong line is in the {third(function, bug.mutation.line)} third of backward."
    else:
        where = f"The wrong line reverses `{steps[first.reverses].statement.text}`."
    return (
        where,
        f"The kind of mistake: {KINDS[bug.mutation.kind]}.",
        f"The cause: {cause}." if cause else f"The error: {first.message}.",
        f"The right line: `{as_written(bug.before)}`.",
    )


def third(function: Function, line: int) -> str:
    """Return in which third of the statements of a function a line is."""
    before = sum(node.end_lineno < line for node in function.body if node.end_lineno)
    return ("first", "middle", "last")[3 * before // len(function.body)]


def as_written(statement: str) -> str:
    """Return a statement with the quotes that this package uses."""
    return statement.replace("'", '"')


CHOSEN = (
    # A line that has one thing to check.
    ChosenBug("soft_cap", "backward", "dtanh = dy * cap", "dtanh = dy"),
    ChosenBug(
        "relu", "backward",
        "dx = np.where(passes, dy, 0)",
        "dx = np.where(passes, 0, dy)",
    ),
    ChosenBug("embedding", "backward", "np.add.at(dweight, ids, drows)", "dweight[ids] += drows"),
    ChosenBug("silu", "backward", "dx += dhalf / 2", "dx = dhalf / 2"),
    ChosenBug(
        "dropout", "backward",
        "dx = dy.copy() if mask is None else dy * mask",
        "dx = dy.copy()",
    ),
    ChosenBug(
        "linear", "backward",
        "dbias = None if unbiased else dy.sum(axis=0)",
        "dbias = None if unbiased else dy.mean(axis=0)",
    ),
    ChosenBug(
        "relu_squared", "backward_steps",
        "drectified = 2 * dy * rectified",
        "drectified = dy * rectified",
    ),
    ChosenBug("gelu_exact", "backward", "dcdf = dy * x", "dcdf = np.ones_like(dy) * x"),
    ChosenBug(
        "softmax", "backward_steps",
        "dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)",
        "dtotal = (dprobs * probs / total).sum(axis=-1, keepdims=True)",
    ),
    ChosenBug(
        "swiglu", "backward",
        "dx = np.concatenate([dgate, dup], axis=-1)",
        "dx = np.concatenate([dup, dgate], axis=-1)",
    ),
    ChosenBug(
        "attention", "backward",
        "dprobs = dropout.backward(dkept, saved_kept)",
        "dprobs = dkept",
    ),
    ChosenBug("rms_norm", "backward_steps", "dx = dxhat / rms", "dx = dxhat * rms"),
    ChosenBug("softmax", "backward_steps", "dexps += dtotal", "dexps = dtotal"),
    ChosenBug(
        "soft_cap", "backward",
        "dscaled = dtanh * (1 - tanh * tanh)",
        "dscaled = dtanh * (1 + tanh * tanh)",
    ),
    ChosenBug(
        "cross_entropy", "backward_steps",
        "dshifted += dexps * exps",
        "dshifted = dexps * exps",
    ),
    # A line to compare with its forward line, and with the shapes.
    ChosenBug(
        "layer_norm", "backward_steps",
        "dweight = (dscaled * xhat).sum(axis=0)",
        "dweight = (dscaled * xhat).sum(axis=-1)",
    ),
    ChosenBug(
        "rms_norm", "backward",
        "along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)",
        "along_xhat = (dxhat * xhat).sum(axis=-1, keepdims=True)",
    ),
    ChosenBug(
        "gelu", "backward",
        "dinner = dtanh * (1 - tanh * tanh)",
        "dinner = dtanh * (1 - tanh)",
    ),
    ChosenBug(
        "layer_norm", "backward_steps",
        "dmean = -dcentered.sum(axis=-1, keepdims=True)",
        "dmean = -dcentered",
    ),
    ChosenBug("attention", "backward", "dk = dproducts.mT @ q", "dk = dproducts @ q"),
    ChosenBug(
        "rotary", "backward",
        "dsecond_sin = -dturned_first",
        "dsecond_sin = dturned_first",
    ),
    ChosenBug(
        "cross_entropy", "backward_steps",
        "dsummed = float(dloss) / -count",
        "dsummed = float(dloss) / count",
    ),
    ChosenBug(
        "softmax", "backward",
        "weighted_mean = (dprobs * probs).sum(axis=-1, keepdims=True)",
        "weighted_mean = dprobs * probs",
    ),
    ChosenBug(
        "gpt", "block_backward",
        "dmid = dmid + grads.keep(f'{h}.ln_2', self.norm.backward(dnormed_2, ln_2))",
        "dmid = grads.keep(f'{h}.ln_2', self.norm.backward(dnormed_2, ln_2))",
    ),
    ChosenBug(
        "swiglu", "backward",
        "activated, up, saved_gate = saved",
        "up, activated, saved_gate = saved",
    ),
    ChosenBug(
        "layer_norm", "backward_steps",
        "dsquare = np.zeros_like(xhat) + dvar / xhat.shape[-1]",
        "dsquare = np.zeros_like(xhat) + dvar / xhat.shape[0]",
    ),
    ChosenBug("rms_norm", "backward_steps", "dmean_square = dpadded", "dmean_square = dpadded / 2"),
    ChosenBug(
        "attention", "backward",
        "visible = np.tri(time, dtype=bool)",
        "visible = np.tri(time, dtype=bool, k=-1)",
    ),
    ChosenBug("gpt", "backward", "dposition_rows = dembedded", "dposition_rows = dx"),
    ChosenBug(
        "cross_entropy", "backward",
        "dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / count)",
        "dlogits = (chosen - probs) * counted[:, None] * (float(dloss) / count)",
    ),
    # A line that looks right.
    ChosenBug("gelu", "backward", "dx += 2 * dsquare * x", "dx += 2 * dcube * x"),
    ChosenBug(
        "layer_norm", "backward",
        "dx = (dxhat - along_ones - xhat * along_xhat) / std",
        "dx = (dxhat - along_ones - along_xhat) / std",
    ),
    ChosenBug(
        "rotary", "backward",
        "cos, sin, interleaved = saved",
        "sin, cos, interleaved = saved",
    ),
    ChosenBug(
        "attention", "backward",
        "dparts = np.concatenate([dq, dkeys, dvalues], axis=1)",
        "dparts = np.concatenate([dq, dvalues, dkeys], axis=1)",
    ),
    ChosenBug(
        "layer_norm", "backward",
        "along_ones = dxhat.mean(axis=-1, keepdims=True)",
        "along_ones = dxhat.mean(axis=0, keepdims=True)",
    ),
    ChosenBug(
        "gpt", "block_backward",
        "dactivated = grads.keep(f'{h}.mlp.c_proj', ops.linear.backward(dout_2, proj_2))",
        "dactivated = grads.keep(f'{h}.attn.c_proj', ops.linear.backward(dout_2, proj_2))",
    ),
    ChosenBug("gelu", "backward", "dx += dcube * x * x", "dx += dcube * x * x * x"),
    ChosenBug("attention", "backward", "dq = dproducts @ k", "dq = dscores @ k"),
    ChosenBug(
        "cross_entropy", "backward",
        "dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / count)",
        "dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / log_probs.shape[0])",
    ),
    ChosenBug(
        "cross_entropy", "backward_steps",
        "exps = np.exp(log_probs) * total",
        "exps = np.exp(log_probs)",
    ),
)  # fmt: skip
