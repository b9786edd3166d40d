"""Tests of running a function step by step: branches, loops, methods and early returns."""

from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from helpers.study_targets import FILE, module_of, trace

from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.trace import Trace, Value

X = np.arange(1.0, 4.0)


def steps_of(*lines: str, args: dict[str, Any] | None = None) -> list[str]:
    """Run the lines between z = x * 2 and return z; return the steps with their iterations."""
    body = "\n".join(f"    {line}" for line in ("z = x * 2", *lines, "return z, x"))
    text = f"def forward(x, n=3):\n{body}"
    traced = trace(text, {"x": X, "n": 3, **(args or {})})
    expected = module_of(text)["forward"](X.copy())[0]
    np.testing.assert_array_equal(traced.returned[0], expected)
    doubled = module_of(text)["forward"](2 * X)[0]
    if not any("if z" in line or "while" in line for line in lines):
        np.testing.assert_array_equal(traced.output_with(Value("x", -1), 2 * X), doubled)
        np.testing.assert_array_equal(traced.output_with(Value("z", 0), 4 * X), doubled)
    return [f"{step.statement.text} {step.iteration}".strip() for step in traced.steps[1:]]


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        (["if n > 2:", "    z = z + 1", "else:", "    z = z + 9"], ["z = z + 1"]),
        (["if n > 9:", "    z = z + 1", "elif z.sum() > 0:", "    z = z + 9"], ["z = z + 9"]),
        (["if n > 9:", "    z = z + 1"], []),
        (["if n:", "    if n > 9:", "        z = 0", "    else:", "        z = -z"], ["z = -z"]),
        (["with np.errstate(all='ignore'):", "    z = z / 3"], ["z = z / 3"]),
        (["assert n", "pass", "print(n)", "'text'", "z = -z"], ["z = -z"]),
        (["for i in range(2):", "    z = z + i"], ["z = z + i i = 0", "z = z + i i = 1"]),
        (
            ["for i in range(n):", "    if i == 1:", "        continue", "    z = z + i"],
            ["z = z + i i = 0", "z = z + i i = 2"],
        ),
        (["for i in range(n):", "    if i:", "        break", "    z = -z"], ["z = -z i = 0"]),
        (["for i in range(n):", "    i = i + 1", "    z = z * i"],
         [f"{text} i = {i}" for i in range(3) for text in ("i = i + 1", "z = z * i")]),
        (["for i in range(2):", "    for j in range(2):", "        z = z + i * j"],
         [f"z = z + i * j i = {i}, j = {j}" for i in (0, 1) for j in (0, 1)]),
        (["for i, (a, b) in enumerate([(1, 2)]):", "    z = z + a * b"],
         ["z = z + a * b i = 0, a = 1, b = 2"]),
        (["for i in reversed(range(2)):", "    z = z * i"], ["z = z * i i = 1", "z = z * i i = 0"]),
        (["for i in []:", "    z = -z"], []),
        (["for i in range(n):", "    pass", "z = z * i"], ["z = z * i"]),
        (["while n > 1:", "    n = n - 1", "    z = -z"],
         [f"{text} round = {i}" for i in (0, 1) for text in ("n = n - 1", "z = -z")]),
        # A condition or an iterable that changes something is a step.
        (["if (k := n) > 2:", "    z = z * k"], ["if (k := n) > 2", "z = z * k"]),
        (["rng = np.random.default_rng(1)", "if rng.random() > 2:", "    z = -z"],
         ["rng = np.random.default_rng(1)", "if rng.random() > 2"]),
        (["rng = np.random.default_rng(1)", "for i in rng.permutation(2):", "    z = z + i"],
         ["rng = np.random.default_rng(1)", "for i in rng.permutation(2)",
          *(f"z = z + i i = {i}" for i in np.random.default_rng(1).permutation(2))]),
        (["rng = np.random.default_rng(1)", "for u in rng.random(1):", "    z = z * u"],
         ["rng = np.random.default_rng(1)", "for u in rng.random(1)",
          "for u in rng.random(1) round = 0", "z = z * u round = 0"]),
        # An item that is an array depends on it.
        (["y = 0", "for row in z:", "    y = y + row * row", "z = z + y"],
         ["y = 0", *(f"{text} round = {i}" for i in range(3)
                     for text in ("for row in z", "y = y + row * row")), "z = z + y"]),
        (["y = 0", "for t, row in enumerate(z):", "    y = y + t * row", "z = z + y"],
         ["y = 0", *(f"{text} round = {i}" for i in range(3)
                     for text in ("for t, row in enumerate(z)", "y = y + t * row")), "z = z + y"]),
        # Long loops, and nests of loops that are long together.
        (["for i in range(17):", "    z = z + i"], ["for i in range(17): …"]),
        (["for i in range(5):", "    for j in range(5):", "        z = z + i * j"],
         ["for i in range(5): …"]),
        (["for i in range(2):", "    z = -z", "    for j in range(9):", "        z = z + i * j"],
         [f"{text} i = {i}" for i in (0, 1) for text in ("z = -z", "for j in range(9): …")]),
        # Parts of a statement.
        (["f = lambda v: v * z", "z = f(z)"], ["f = lambda v: v * z", "z = f(z)"]),
        (["def f(v):", "    return v * z", "z = f(z)"], ["def f(v): …", "z = f(z)"]),
        (["z = sum((k := v) * i for i, v in enumerate(z)) + z"],
         ["z = sum((k := v) * i for i, v in enumerate(z)) + z"]),
        (["if n > 2:", "    return -z, x", "z = z + 1"], []),
        (["for i in range(3):", "    if i:", "        return z * i, x", "    z = -z"],
         ["z = -z i = 0"]),
    ],
)  # fmt: skip
def test_each_statement_that_runs_is_a_step(lines: list[str], steps: list[str]) -> None:
    assert steps_of(*lines) == steps


def test_a_branch_is_replayed_as_it_ran() -> None:
    text = "def forward(x):\n    if x.sum() > 0:\n        y = x * 2\n    else:\n        y = x * 3\n"
    traced = trace(text + "    return y, 0", {"x": X})
    np.testing.assert_array_equal(traced.output_with(Value("x", -1), -X), -2 * X)


def test_the_end_of_a_long_while_loop_is_one_step() -> None:
    steps = steps_of("while n < 40:", "    n = n + 1", "    z = z + n")
    assert len(steps) == 33
    assert steps[-1] == "while n < 40: …"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["for i in range(40):", "    if i > 3:", "        return z"], "return inside a long"),
        (["if n > 4:", "    return z, x"], "must return a value, but it ends without a return"),
        (["def f():", "    nonlocal z", "    z = 3", "return z"], "run alone: no binding"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_its_line(lines: list[str], message: str) -> None:
    body = "\n".join(f"    {line}" for line in ("z = x * 2", *lines))
    with pytest.raises(StudyError, match=rf"{FILE}.* line \d+: .*{message}"):
        trace(f"def forward(x, n=3):\n{body}", {"x": X, "n": 3})


# Methods

CLASSES = """
import numpy as np
def twice(x):
    return 2 * x
class Base:
    def __call__(self, x):
        return self.forward(x)
class Layer(Base):
    def __init__(self, w, scale=2):
        self.w, self.scale = w, scale
    @staticmethod
    def act(z):
        return np.tanh(z)
    def forward(self, x):
        np_ = x * self.w
        x = self.act(np_)
        self.x = x
        return self.scale * self.x
    def square(self, x):
        return twice(x)
    def add(self, x, *, to=1):
        if to is None:
            return x
        self.total = x + to
        return self.total
def forward(x, w):
    {}
    return y, 0
"""


def traced_classes(*lines: str) -> Trace:
    text = CLASSES.format("\n    ".join(lines))
    module = module_of(text)
    args = {"x": X, "w": X[::-1].copy()}
    traced = Trace(find_function(dedent(text), "forward", FILE, steps_into=True), module, args)
    np.testing.assert_array_equal(traced.returned[0], module["forward"](**args)[0])
    for name in args:
        changed = {**args, name: args[name] * 1.5}
        found = traced.output_with(Value(name, -1), changed[name])
        np.testing.assert_allclose(found, module["forward"](**changed)[0], rtol=1e-15)
    return traced


INIT = ["self.w, self.scale = w, scale"]
FORWARD = ["np_ = x * self.w", "x = self.act(np_)", "self.x = x", "return self.scale * self.x"]


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        (["layer = Layer(w)", "y = layer.forward(x)"],
         ["layer = Layer(w)", *INIT, "x = x", *FORWARD]),
        (["layer = Layer(w, scale=3)", "y = layer.add(x + 1)"],
         ["layer = Layer(w, scale=3)", *INIT, "x = x + 1", "self.total = x + to",
          "return self.total"]),
        # A local name of forward does not hide the global name that a method reads.
        (["twice = 3", "layer = Layer(w)", "y = layer.square(x)"],
         ["twice = 3", "layer = Layer(w)", *INIT, "return twice(x)"]),
        # An object without a name.
        (["y = Layer(w).add(x)"], ["y = Layer(w).add(x)"]),
        (["layer = Layer(w)", "y = 2 * layer(x) + 1"],
         ["layer = Layer(w)", *INIT, "x = x", *FORWARD, "return self.forward(x)",
          "y = 2 * layer(x) + 1"]),
        (["layer = Layer(w)", "y = layer.add(layer.add(x), to=w)"],
         ["layer = Layer(w)", *INIT, "self.total = x + to", "return self.total",
          "self.total = x + to", "return self.total"]),
        (["layer = Layer(w)", "y = layer.add(x, to=None)"],
         ["layer = Layer(w)", *INIT, "return x"]),
        (["layer = Layer(w)", "layer.forward(x)", "y = layer.x"],
         ["layer = Layer(w)", *INIT, "x = x", *FORWARD[:-1], "y = layer.x"]),
        # Not in the order in which they are written, or not always.
        (["layer = Layer(w)", "y = sum(layer.add(v) for v in x)"],
         ["layer = Layer(w)", *INIT, "y = sum(layer.add(v) for v in x)"]),
    ],
)  # fmt: skip
def test_the_statements_of_methods_are_steps(lines: list[str], steps: list[str]) -> None:
    assert [step.statement.text for step in traced_classes(*lines).steps] == steps


def test_values_of_objects_are_named_by_the_first_path_to_the_object() -> None:
    traced = traced_classes(
        "layers = [Layer(w), Layer(2 * w)]", "for layer in layers:", "    x = layer.forward(x)",
        "y = x",
    )  # fmt: skip
    names = [name for step in traced.steps for name in step.statement.sets if ".x" in name]
    assert names == ["layers[0].x", "layers[1].x"]
    assert traced.steps[0].statement.text == "layers = [Layer(w), Layer(2 * w)]"
    assert {"layers[0].w", "layers[1].w"} <= {value.name for value in traced.values()}
    assert [step.iteration for step in traced.steps][4::4] == [
        "layer = layers[0]",
        "layer = layers[1]",
    ]
    first = next(value for value in traced.values() if value.name == "layers[0].x")
    assert [traced.steps[use].statement.text for use in traced.uses(first)] == [FORWARD[-1]]
    same = traced.output_with(first, traced.data(first).copy())
    np.testing.assert_array_equal(same, traced.returned[0])
    assert (traced.output_with(first, 2 * traced.data(first)) != same).all()
    assert traced.steps[-1].function.name == "forward"
