"""Draw the diagram of a model from its forward: a box for each layer, a circle for each sum.

Each call `layer.forward(…)` becomes a box that links to the page of its operation, and
`block_forward(…)` one that links to the page of the block. The sum of two names becomes a circle.
Other lines pass on what they read. The code does not depend on a particular model.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinygpt_np.study.source.trace import Step, Trace

# In pixels: the size of a box and of a sum, and the distances between rows and columns.
WIDTH, HEIGHT, RADIUS = 150, 40, 12
ROW, COLUMN, LANE, MARGIN = 64, 166, 22, 6
CORNER = 10


@dataclass(frozen=True)
class Box:
    """A layer, a sum, or the name of an input or output.

    Attributes
    ----------
    reads : tuple of int
        The indices of the boxes whose output it reads.
    shape : str
        The shape of its output.
    layer : str
        The name of the layer, such as "ln_1" or "layer = 0".
    page : str
        The target whose page it links to, or "".
    """

    kind: Literal["name", "layer", "sum"]
    text: str
    reads: tuple[int, ...]
    shape: str = ""
    layer: str = ""
    page: str = ""


@dataclass(frozen=True)
class Placed:
    """A box with the coordinates of its centre."""

    box: Box
    x: float
    y: float

    @property
    def half(self) -> float:
        """Half the height."""
        return {"name": 12, "layer": HEIGHT / 2, "sum": RADIUS}[self.box.kind]


@dataclass(frozen=True)
class Edge:
    """An arrow between two boxes, with the shape of the array and the position of this label.

    `is_skip` tells whether it is a skip connection, drawn around the boxes in between.
    """

    path: str
    is_skip: bool
    shape: str
    x: float
    y: float


@dataclass(frozen=True)
class Diagram:
    """The boxes and arrows of a model."""

    placed: list[Placed]
    edges: list[Edge]
    width: float
    height: float


def diagram(trace: Trace) -> Diagram:
    """Return the diagram of a forward that was run."""
    found = boxes(trace)
    depths = depths_of(found)
    rows = [[i for i, d in enumerate(depths) if d == depth] for depth in range(max(depths) + 1)]
    columns = max(len(row) for row in rows)
    width = columns * COLUMN + 2 * LANE
    places: dict[int, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        for column, index in enumerate(row):
            x = width / 2 + (column - (len(row) - 1) / 2) * COLUMN
            places[index] = x, MARGIN + HEIGHT / 2 + depth * ROW
    placed = [Placed(box, *places[index]) for index, box in enumerate(found)]
    edges = [
        edge(placed[source], placed[index], depths[index] - depths[source] > 1)
        for index, box in enumerate(found)
        for source in box.reads
    ]
    return Diagram(placed, edges, width, 2 * MARGIN + HEIGHT + ROW * max(depths))


# The boxes


def boxes(trace: Trace) -> list[Box]:
    """Return the boxes in the order of the forward, from the inputs to the output."""
    found: list[Box] = []
    # The box that computes each name.
    source: dict[str, int] = {}

    def put(box: Box, name: str) -> None:
        source[name] = len(found)
        found.append(box)

    for name, value in trace.args.items():
        if isinstance(value, np.ndarray):
            put(Box("name", name, ()), name)
    for step in trace.steps:
        call, reads = layer_call(step), data_read(step, source)
        sets = step.statement.sets
        if call is not None:
            for name in (name for name in reads if name not in source):
                put(Box("name", name, ()), name)
            put(layer_box(step, call, tuple(source[name] for name in reads)), sets[0])
        elif len(reads) > 1 and is_sum(step):
            read = tuple(source[name] for name in reads)
            put(Box("sum", "+", read, step.statement.shape), sets[0])
        elif reads:
            source |= dict.fromkeys(sets, source[reads[0]])
    output = first_returned(trace)
    if output in source:
        found.append(Box("name", output, (source[output],)))
    return found


def layer_call(step: Step) -> ast.Call | None:
    """Return the call of a forward on a line, or None."""
    calls = (part for part in ast.walk(step.statement.node) if isinstance(part, ast.Call))
    return next((call for call in calls if ast.unparse(call.func).endswith("forward")), None)


def data_read(step: Step, source: dict[str, int]) -> list[str]:
    """Return the names that a line reads; for a layer, those in its first argument."""
    call = layer_call(step)
    if call is not None:
        return [part.id for part in ast.walk(call.args[0]) if isinstance(part, ast.Name)]
    names = (part.id for part in ast.walk(step.statement.node) if isinstance(part, ast.Name))
    return [name for name in names if name in source and name in step.statement.reads]


def is_sum(step: Step) -> bool:
    """Return whether a line is the sum of two expressions."""
    node = step.statement.node
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.BinOp)
        and isinstance(node.value.op, ast.Add)
    )


def layer_box(step: Step, call: ast.Call, reads: tuple[int, ...]) -> Box:
    """Return the box of a layer; a string argument of the call is the name of the layer."""
    owner, _, method = ast.unparse(call.func).rpartition(".")
    name = method.removesuffix("_forward") if method != "forward" else owner.rpartition(".")[2]
    words = [
        part.value
        for argument in (*call.args, *call.keywords)
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    layer = step.iteration or "".join(words[:1]).strip(".")
    return Box("layer", name.replace("_", " "), reads, step.statement.shape, layer, name)


def first_returned(trace: Trace) -> str:
    """Return the name of the output, or ""."""
    value = trace.function.returned.value
    first = value.elts[0] if isinstance(value, ast.Tuple) else value
    return first.id if isinstance(first, ast.Name) else ""


# The layout


def depths_of(found: Sequence[Box]) -> list[int]:
    """Return the length of the longest path from an input to each box."""
    depths: list[int] = []
    for box in found:
        depths.append(max((depths[index] + 1 for index in box.reads), default=0))
    return depths


def edge(source: Placed, reader: Placed, is_skip: bool) -> Edge:
    """Return the arrow from a box to one that reads it; a skip connection goes around."""
    start, end = source.y + source.half, reader.y - reader.half
    if is_skip:
        lane, side = source.x + WIDTH / 2 + LANE, reader.x + reader.half
        bend = start + 8
        path = (
            f"M{source.x:g},{bend:g} H{lane - CORNER:g} q{CORNER},0 {CORNER},{CORNER} "
            f"V{reader.y - CORNER:g} q0,{CORNER} {-CORNER},{CORNER} H{side:g}"
        )
        return Edge(path, True, "", lane, reader.y)
    turns = end if source.x == reader.x else end - 14
    path = f"M{source.x:g},{start:g} V{turns:g}"
    if turns != end:
        path += f" H{reader.x:g} V{end:g}"
    return Edge(path, False, source.box.shape, source.x + 8, (start + turns) / 2 + 4)
