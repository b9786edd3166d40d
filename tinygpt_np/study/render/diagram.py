"""Draw the diagram of a forward: a box for each layer, a circle for each sum or matrix product.

Each call `layer.forward(…)` becomes a box that links to the page of its operation, and
`block_forward(…)` and `heads_forward(…)` ones that link to their pages. The sum or the matrix
product of two names becomes a circle. Other lines pass on what they read. The code does not depend
on a particular model. Next to the arrow of each value is that of its gradient, in the opposite
direction.
"""

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tinygpt_np.study.proof.rules import called_operation
from tinygpt_np.study.source.parse import names_in
from tinygpt_np.study.source.paths import Namespace
from tinygpt_np.study.source.trace import Step, Trace

# In pixels: the size of a box and of a circle, and the distances between rows and columns.
WIDTH, HEIGHT, RADIUS = 150, 40, 12
ROW, COLUMN, MARGIN = 72, 290, 6
# From the centre of a box: an input that only it reads, and the lane of a skip connection.
SIDE, LANE = 130, 178
# The distance between the arrows of a value and of its gradient, of a label from the middle between
# them, and the width of a letter of a label.
APART, GAP, LETTER = 8, 13, 7.3
CIRCLES: dict[type[ast.operator], str] = {ast.Add: "+", ast.MatMult: "@"}
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """A layer, a circle, or the name of an input or output.

    output: the name of its output, and shape: the shape of it; has_gradient: whether it has one.
    reads: the indices of the boxes whose output it reads. layer: its name, such as "ln_1" or
    "layer = 0". page: the target whose page it links to, or "". x, y: the centre.
    """

    kind: Literal["name", "layer", "circle"]
    text: str
    reads: tuple[int, ...]
    output: str
    shape: str = ""
    has_gradient: bool = True
    layer: str = ""
    page: str = ""
    x: float = 0
    y: float = 0

    @property
    def half(self) -> float:
        """Half the height."""
        return {"name": 12, "layer": HEIGHT / 2, "circle": RADIUS}[self.kind]

    @property
    def wide(self) -> float:
        """Half the width."""
        return {"name": 36, "layer": WIDTH / 2, "circle": RADIUS}[self.kind]


@dataclass(frozen=True)
class Edge:
    """The arrow of a value, and the arrow of its gradient, which has no points if there is none.

    name, gradient: the labels to the left and to the right of x, y.
    """

    points: Points
    back: Points
    name: str
    gradient: str
    x: float
    y: float


@dataclass(frozen=True)
class Diagram:
    """The boxes and arrows of a model; x is 0 in the middle, and left is the smallest x."""

    boxes: list[Box]
    edges: list[Edge]
    left: float
    width: float
    height: float


def diagram(traces: Sequence[Trace], wrt: Collection[str]) -> Diagram:
    """Return the diagram of a forward that was run, and of functions that call it.

    wrt: the inputs that have a gradient.
    """
    found = boxes(traces, wrt)
    rows = rows_of(found)
    is_aside = [not box.reads and row > 0 for box, row in zip(found, rows, strict=True)]
    columns = [
        [i for i, row in enumerate(rows) if row == number and not is_aside[i]]
        for number in range(max(rows) + 1)
    ]
    for index, box in enumerate(found):
        row = columns[rows[index]]
        x = -SIDE if is_aside[index] else (row.index(index) - (len(row) - 1) / 2) * COLUMN
        found[index] = replace(box, x=x, y=MARGIN + HEIGHT / 2 + rows[index] * ROW)
    edges = [edge(found[source], box) for box in found for source in box.reads]
    spans = [(box.x - box.wide, box.x + box.wide) for box in found]
    spans += [
        (each.x - GAP - LETTER * len(each.name), each.x + GAP + LETTER * len(each.gradient))
        for each in edges
    ]
    spans += [point[:1] * 2 for each in edges for point in (*each.points, *each.back)]
    left = min(start for start, _ in spans) - MARGIN
    right = max(end for _, end in spans) + MARGIN
    height = 2 * MARGIN + HEIGHT + ROW * max(rows)
    return Diagram(found, edges, left, right - left, height)


def rows_of(found: Sequence[Box]) -> list[int]:
    """Return the row of each box, below all that it reads; a late input is next to its reader."""
    rows: list[int] = []
    for box in found:
        rows.append(max((rows[index] + 1 for index in box.reads), default=0))
    for index, box in enumerate(found):
        readers = [row for row, other in zip(rows, found, strict=True) if index in other.reads]
        if not box.reads and min(readers) > 1:
            rows[index] = min(readers)
    return rows


def boxes(traces: Sequence[Trace], wrt: Collection[str]) -> list[Box]:
    """Return the boxes in the order of the forward, from the inputs to the output."""
    found: list[Box] = []
    # The box that computes each name.
    source: dict[str, int] = {}

    def put(box: Box) -> None:
        source[box.output] = len(found)
        found.append(box)

    for trace in traces:
        for name, value in trace.args.items():
            if isinstance(value, np.ndarray) and name not in source:
                put(input_box(trace, name, wrt))
        for step in trace.steps:
            layer, statement = layer_call(step, trace.at(step.index)), step.statement
            if layer is None:
                read = [name for name in names_in(statement.node) if name in statement.reads]
                known = tuple(dict.fromkeys(source[name] for name in read if name in source))
                circle = circle_of(statement.node) if len(read) > 1 else ""
                if circle and known:
                    put(Box("circle", circle, known, statement.sets[0], statement.shape))
                elif known:
                    source |= dict.fromkeys(statement.sets, known[0])
            elif layer[1] != "self":  # self.forward has a trace of its own.
                first, *others = map(names_in, layer[0].args)
                for name in (name for name in first if name not in source):
                    put(input_box(trace, name, wrt))
                names = (*first, *(name for each in others for name in each if name in source))
                reads = tuple(dict.fromkeys(source[name] for name in names))
                put(layer_box(step, *layer, reads))
    result = traces[-1].function.result
    first = result.elts[0] if isinstance(result, ast.Tuple) else result
    name = next(name for name in names_in(first) if name in source)
    return [*found, Box("name", name, (source[name],), name)]


def circle_of(node: ast.stmt) -> str:
    """Return the sign of a sum or of a matrix product, or ""."""
    match node:
        case ast.Assign(value=ast.BinOp(op=operator)):
            return CIRCLES.get(type(operator), "")
        case _:
            return ""


def input_box(trace: Trace, name: str, wrt: Collection[str]) -> Box:
    """Return the box of an input, with the shape that the docstring states."""
    docstring = ast.get_docstring(trace.function.node) or ""
    stated = re.search(rf"\b{name} (\([^()]*\))", docstring)
    return Box("name", name, (), name, stated[1] if stated else "", name in wrt)


def layer_call(step: Step, names: Namespace) -> tuple[ast.Call, str] | None:
    """Return the call of a forward on a line and its operation, or None."""
    parts = (part for part in ast.walk(step.statement.node) if isinstance(part, ast.Call))
    calls = [(part, part.func) for part in parts if isinstance(part.func, ast.Attribute)]
    named = ((call, called_operation(function, names)) for call, function in calls)
    return next(((call, name) for call, name in named if name), None)


def layer_box(step: Step, call: ast.Call, name: str, reads: tuple[int, ...]) -> Box:
    """Return the box of a layer; a string argument of the call is the name of the layer."""
    words = [
        part.value
        for argument in (*call.args, *call.keywords)
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    statement = step.statement
    layer = step.iteration or "".join(words[:1]).strip(".")
    text, shape = name.replace("_", " "), statement.shape
    return Box("layer", text, reads, statement.sets[0], shape, layer=layer, page=name)


def edge(source: Box, reader: Box) -> Edge:
    """Return the arrows between a box and one that reads it; a skip connection goes around."""
    start, end = source.y + source.half, reader.y - reader.half
    is_skip, is_aside = reader.y - source.y > ROW, reader.y == source.y
    gradient = f"d{source.output} {source.shape}" if source.has_gradient else ""
    # The name of an input is above its arrow.
    name = source.output if source.kind != "name" else ""

    def points(side: float) -> Points:
        x, y = source.x + side, reader.y + side
        if is_aside:
            return [(source.x + source.wide, y), (reader.x - reader.wide, y)]
        if is_skip:
            lane, top = source.x + LANE + side, start + APART - side
            return [(x, top), (lane, top), (lane, y), (reader.x + reader.wide, y)]
        if source.x == reader.x:
            return [(x, start), (x, end)]
        turn = end - 14 + (side if source.x < reader.x else -side)
        return [(x, start), (x, turn), (reader.x + side, turn), (reader.x + side, end)]

    down, up = points(-APART / 2), points(APART / 2)[::-1] if gradient else []
    if is_skip or is_aside:  # Their names are in the diagram already.
        name = gradient = ""
    turn = min(down[1][1], end - 14 - APART) if source.x != reader.x else end
    return Edge(down, up, name, gradient, source.x, (start + turn) / 2)
