"""Draw the diagram of a model from its forward: a box for each layer, a circle for each sum.

Each call `layer.forward(…)` becomes a box that links to the page of its operation, and
`block_forward(…)` one that links to the page of the block. The sum of two names becomes a circle.
Other lines pass on what they read. The code does not depend on a particular model.
"""

import ast
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tinygpt_np.study.source.parse import names_in
from tinygpt_np.study.source.trace import Step, Trace

# In pixels: the size of a box and of a sum, and the distances between rows and columns.
WIDTH, HEIGHT, RADIUS = 150, 40, 12
ROW, COLUMN, LANE, MARGIN = 64, 166, 22, 6
CORNER = 10


@dataclass(frozen=True)
class Box:
    """A layer, a sum, or the name of an input or output.

    reads: the indices of the boxes whose output it reads. shape: of its output. layer: its name,
    such as "ln_1" or "layer = 0". page: the target whose page it links to, or "". x, y: the centre.
    """

    kind: Literal["name", "layer", "sum"]
    text: str
    reads: tuple[int, ...]
    shape: str = ""
    layer: str = ""
    page: str = ""
    x: float = 0
    y: float = 0

    @property
    def half(self) -> float:
        """Half the height."""
        return {"name": 12, "layer": HEIGHT / 2, "sum": RADIUS}[self.kind]


@dataclass(frozen=True)
class Edge:
    """An arrow, with a label at x, y. is_skip: whether it goes around the boxes in between."""

    path: str
    is_skip: bool
    shape: str
    x: float
    y: float


@dataclass(frozen=True)
class Diagram:
    """The boxes and arrows of a model."""

    boxes: list[Box]
    edges: list[Edge]
    width: float
    height: float


def diagram(trace: Trace) -> Diagram:
    """Return the diagram of a forward that was run."""
    found = boxes(trace)
    # The length of the longest path from an input to each box.
    depths: list[int] = []
    for box in found:
        depths.append(max((depths[index] + 1 for index in box.reads), default=0))
    rows = [[i for i, d in enumerate(depths) if d == depth] for depth in range(max(depths) + 1)]
    columns = max(len(row) for row in rows)
    width = columns * COLUMN + 2 * LANE
    for depth, row in enumerate(rows):
        for column, index in enumerate(row):
            x = width / 2 + (column - (len(row) - 1) / 2) * COLUMN
            found[index] = replace(found[index], x=x, y=MARGIN + HEIGHT / 2 + depth * ROW)
    edges = [
        edge(found[source], found[index], depths[index] - depths[source] > 1)
        for index, box in enumerate(found)
        for source in box.reads
    ]
    return Diagram(found, edges, width, 2 * MARGIN + HEIGHT + ROW * max(depths))


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
        call, node, sets = layer_call(step), step.statement.node, step.statement.sets
        if call is not None:
            reads = names_in(call.args[0])
            for name in (name for name in reads if name not in source):
                put(Box("name", name, ()), name)
            put(layer_box(step, call, tuple(source[name] for name in reads)), sets[0])
            continue
        known = {*source} & step.statement.reads
        read = tuple(source[name] for name in names_in(node) if name in known)
        match node:
            case ast.Assign(value=ast.BinOp(op=ast.Add())) if len(read) > 1:
                put(Box("sum", "+", read, step.statement.shape), sets[0])
            case _ if read:
                source |= dict.fromkeys(sets, read[0])
            case _:
                pass
    result = trace.function.result
    first = result.elts[0] if isinstance(result, ast.Tuple) else result
    if isinstance(first, ast.Name) and first.id in source:
        found.append(Box("name", first.id, (source[first.id],)))
    return found


def layer_call(step: Step) -> ast.Call | None:
    """Return the call of a forward on a line, or None."""
    calls = (part for part in ast.walk(step.statement.node) if isinstance(part, ast.Call))
    return next((call for call in calls if ast.unparse(call.func).endswith("forward")), None)


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


def edge(source: Box, reader: Box, is_skip: bool) -> Edge:
    """Return the arrow from a box to one that reads it; a skip connection goes around."""
    start, end = source.y + source.half, reader.y - reader.half
    if is_skip:
        lane, side = source.x + WIDTH / 2 + LANE, reader.x + reader.half
        path = (
            f"M{source.x:g},{start + 8:g} H{lane - CORNER:g} q{CORNER},0 {CORNER},{CORNER} "
            f"V{reader.y - CORNER:g} q0,{CORNER} {-CORNER},{CORNER} H{side:g}"
        )
        return Edge(path, True, "", lane, reader.y)
    turns = end if source.x == reader.x else end - 14
    around = f" H{reader.x:g} V{end:g}" if turns != end else ""
    path = f"M{source.x:g},{start:g} V{turns:g}{around}"
    return Edge(path, False, source.shape, source.x + 8, (start + turns) / 2 + 4)
