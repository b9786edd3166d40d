"""The loops of a program in assembly, and the one that probably takes most of the time.

A loop is a set of blocks of which each can be reached from all others, as large as possible. The
loops in it are those that are left without the jumps to where it is entered. (This definition is
Steensgaard's. It allows several entries, which GCC makes.) The depth of a loop counts the loops
around it, with those around the calls of its function.

The hottest loop is that with most samples (see sampling.py). Without samples it is chosen by the
code: the deepest of those that compute, which do floating-point arithmetic or call a function of a
library, such as expf. If several are equally deep, it is the one with the most calls per iteration,
then with the most FLOPs, then with the fewest instructions, because compilers make longer versions
of a loop for other layouts.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.worker.instructions import CALL, JUMP, Instruction, Parser

LABEL = re.compile(r'("[^"]+"|[^\s"#/]+):')
LOCAL = re.compile(r"\.L|L[A-Z]{2}|Ltmp|Lloh")  # how labels within a function start
NOT_TAKEN = re.compile(r"j(?!mp)|b\.|cb|tb")  # jumps after which the next block may run
INDIRECT = re.compile(r"jmpq?\s+\*|br\s")
NO_CODE = re.compile(r"\.|(?:data16 |cs )*nop|xchg %ax|int3")  # directives and padding
PLACE = re.compile(r"// at ([0-9a-f]+)$")  # a comment with the address of a line
COMMENT = re.compile(r"\s*(?:#{1,2}\s|//|;).*$")
# x86: movabsq $name, %rax … callq *%rax. On Arm, names are called directly.
ADDRESS = re.compile(r"(?:movabsq \$|leaq? )([^\d(-][^(]*?)(?:\(%rip\))?, ?(%\w+)")
BY_REGISTER = re.compile(r"callq \*(%\w+)$")
# Calls that move or set memory do not compute.
MEMORY = re.compile(r"mem(set|cpy|move)")
# Lines of a loop that are shown; of a longer one, how many at the start and the end. Characters
# before the margin.
LONGEST, HEAD, TAIL, MARGIN = 60, 44, 15, 44


@dataclass
class Block:
    """Lines that run one after the other, its label, and the numbers of blocks that may follow.

    places: the addresses of the lines, if these are known.
    """

    label: str
    lines: list[str] = field(default_factory=list[str])
    places: list[int] = field(default_factory=list[int])
    follow: list[int] = field(default_factory=list[int])


class Loop(NamedTuple):
    """A loop: its first block, all its blocks but those of the loops in it, and its depth."""

    first: int
    blocks: list[int]
    depth: int


class Function(NamedTuple):
    """The blocks and loops of a function."""

    blocks: list[Block]
    loops: list[Loop]

    def depth(self, block: int) -> int:
        """Return how many loops a block is in."""
        return next((loop.depth for loop in self.loops if block in loop.blocks), 0)


def functions_of(text: str) -> dict[str, Function]:
    """Return the functions of an assembly by name."""
    found: dict[str, list[Block]] = {}
    blocks: list[Block] = []
    ended = False
    for line in text.splitlines():
        if label := LABEL.match(line):
            name = label[1].strip('"')
            if not LOCAL.match(name):
                blocks = found.setdefault(name, [])
            blocks.append(Block(name))
            ended = False
        elif (code := " ".join(COMMENT.sub("", line).split())) and not NO_CODE.match(code):
            if ended or not blocks:
                blocks.append(Block(""))
            blocks[-1].lines.append(code)
            if place := PLACE.search(line):
                blocks[-1].places.append(int(place[1], 16))
            ended = JUMP.match(code) is not None
    for blocks in found.values():
        connect(blocks)
        name_calls(blocks)
    return {name: Function(blocks, loops_of(blocks)) for name, blocks in found.items()}


def connect(blocks: list[Block]) -> None:
    """Note which blocks may follow each."""
    places = {block.label: number for number, block in enumerate(blocks) if block.label}
    indirect: list[int] = []
    for number, block in enumerate(blocks):
        last = block.lines[-1] if block.lines else ""
        jump = JUMP.match(last)
        if jump and (target := re.split(r"[\s,]+", last)[-1].strip('"')) in places:
            block.follow.append(places[target])
        if (not jump or NOT_TAKEN.match(last)) and number + 1 < len(blocks):
            block.follow.append(number + 1)
        if INDIRECT.match(last):
            indirect.append(number)
    # The targets of an indirect jump are in a table; taken is what is not reached otherwise.
    edges = {number: block.follow for number, block in enumerate(blocks)}
    left = {*edges} - {0}
    left -= walk(edges, 0, left)
    jumps = [each for each in indirect if each not in left]
    for number in sorted(left):
        if number in left and jumps:
            for jump in jumps:
                blocks[jump].follow.append(number)
            left -= {number} | walk(edges, number, left)
    for number in left:
        blocks[number].follow.clear()


def loops_of(blocks: Sequence[Block]) -> list[Loop]:
    """Return the loops of a function."""
    start = (-1, 0)
    every = {start} | {
        (number, each) for number, block in enumerate(blocks) for each in block.follow
    }
    found: list[Loop] = []

    def nest(edges: set[tuple[int, int]], depth: int) -> set[int]:
        """Add the loops made of some edges, and return their blocks."""
        inside = set[int]()
        for loop in components(edges):
            entries = {to for at, to in every if to in loop and at not in loop}
            inner = {(at, to) for at, to in edges if at in loop and to in loop - entries}
            found.append(Loop(min(entries), sorted(loop - nest(inner, depth + 1)), depth))
            inside |= loop
        return inside

    nest(every, 1)
    return found


def components(edges: set[tuple[int, int]]) -> Iterator[set[int]]:
    """Yield the sets of blocks of which each can be reached from all others, and from itself."""
    after: dict[int, set[int]] = defaultdict(set)
    before: dict[int, set[int]] = defaultdict(set)
    for at, to in edges:
        after[at].add(to)
        before[to].add(at)
    left = {*after} & {*before}
    while left:
        start = max(left)  # Few blocks follow the last.
        if found := walk(before, start, walk(after, start, left)):
            yield found
        left -= found | {start}


def walk(edges: Mapping[int, Collection[int]], start: int, within: set[int]) -> set[int]:
    """Return the blocks of a set that are reached from one, which is among them if in a cycle."""
    found, waiting = set[int](), [start]
    while waiting:
        for each in edges.get(waiting.pop(), ()):
            if each in within and each not in found:
                found.add(each)
                waiting.append(each)
    return found


def name_calls(blocks: Sequence[Block]) -> None:
    """Replace the register of a call by the name of the function whose address it holds."""
    held: dict[str, str] = {}
    for block in blocks:
        for number, line in enumerate(block.lines):
            if address := ADDRESS.match(line):
                held[address[2]] = address[1]
            elif (call := BY_REGISTER.match(line)) and call[1] in held:
                block.lines[number] = f"callq {held[call[1]]}"


def callee_of(line: str) -> str | None:
    """Return the function that a line calls, jumps to, or takes the address of, if it does."""
    if address := ADDRESS.match(line):
        return address[1]
    called = CALL.match(line) or (JUMP.match(line) and not NOT_TAKEN.match(line))
    return line.split()[-1].strip('"').removesuffix("@plt") if called else None


def readable(name: str) -> str:
    """Return the name of a function without its modules and types, and what compilers add."""
    rest, last = name.removeprefix("_ZN"), name
    while rest != name and (size := re.match(r"\d+", rest)):  # Numba: the length of each part
        end = size.end() + int(size[0])
        last, rest = rest[size.end() : end], rest[end:]
    return re.sub(r"\.(_omp_fn|constprop|isra|part|cold)\b.*", "", last).rpartition(".")[2]


def depths_of(functions: Mapping[str, Function], start: str) -> dict[str, int]:
    """Return the functions that are called from `start`, and how many loops are around each."""
    found: dict[str, int] = {}
    waiting: list[tuple[str, int, tuple[str, ...]]] = [(start, 0, ())]
    while waiting:
        name, depth, path = waiting.pop()
        if name in functions and name not in path and depth > found.get(name, -1):
            found[name] = depth
            for number, block in enumerate(functions[name].blocks):
                inner = depth + functions[name].depth(number)
                called = filter(None, map(callee_of, block.lines))
                waiting += [(callee, inner, (*path, name)) for callee in called]
    return found


class HotLoop(NamedTuple):
    """A loop with the function that it is in, the lines of its blocks and what they do."""

    function: str
    depth: int
    lines: list[Instruction | str]
    calls: int = 0
    samples: float | None = None  # the fraction of samples in it, if any were taken

    @property
    def instructions(self) -> list[Instruction]:
        """The instructions, without labels."""
        return [each for each in self.lines if isinstance(each, Instruction)]

    @property
    def flops(self) -> int:
        """FLOPs of an iteration, without those of calls."""
        return sum(each.flops for each in self.instructions)

    @property
    def text(self) -> list[str]:
        """The loop line by line, with what each does at the margin, and counts at the end."""
        shown = [
            each
            if isinstance(each, str)
            else f"{self.margin(each)}  {each.text:{MARGIN}} {', '.join(each.kinds)}"
            for each in self.lines
        ]
        if len(shown) > LONGEST:
            shown[HEAD:-TAIL] = [f"  … {len(shown) - HEAD - TAIL} more lines …"]
        name, known = readable(self.function), self.samples is not None
        chosen = f"{self.samples:.0%} of the samples" if known else "chosen by its code"
        return [f"{name}, nesting depth {self.depth}, {chosen}:", *shown, self.summary]

    def margin(self, instruction: Instruction) -> str:
        """Return the percentage of samples at an instruction, if any were taken."""
        if self.samples is None:
            return ""
        return f"{instruction.samples:5.1%}" if instruction.samples else " " * 5

    @property
    def summary(self) -> str:
        """The number of instructions of each kind, and the FLOPs of an iteration."""
        counts = Counter(kind for each in self.instructions for kind in each.kinds)
        words = [f"{counts.pop(kind)} {kind}" for kind in sorted(counts) if "×" in kind]
        named = [(counts.pop(kind, 0), kind) for kind in ("load", "store", "call")]
        words += [f"{number} {kind}{'s' * (number > 1)}" for number, kind in named if number]
        return f"{', '.join(words)}, {counts.total()} others: {self.flops:,} FLOP per iteration"

    @property
    def heat(self) -> tuple[int, ...]:
        """The key by which the loops of a program are ordered."""
        computes = self.calls + self.flops > 0
        return computes, self.depth, self.calls, self.flops, -len(self.instructions)


def hottest(
    functions: Mapping[str, Function], starts: Sequence[str], parse: Parser
) -> HotLoop | None:
    """Return the hottest loop of what some functions run, or None if nothing computes in a loop."""
    found = [loop for start in starts for loop in loops_from(functions, start, parse)]
    best = max(found, key=lambda loop: loop.heat, default=None)
    return best if best and best.heat[0] else None


def sampled(
    functions: Mapping[str, Function], depths: Mapping[str, int], samples: Sequence[int],
    parse: Parser,
) -> HotLoop | None:  # fmt: skip
    """Return the loop with most samples, without the blocks that have none."""
    hits, found = Counter(samples), list[tuple[int, str, Loop]]()
    for name, function in functions.items():
        for loop in function.loops:
            places = (place for number in loop.blocks for place in function.blocks[number].places)
            found.append((sum(hits[place] for place in places), name, loop))
    most, name, loop = max(found, default=(0, "", None), key=lambda each: each[0])
    if loop is None or most == 0:
        return None
    lines: list[Instruction | str] = []
    for block in (functions[name].blocks[number] for number in loop.blocks):
        counts = [hits[place] for place in block.places]
        if any(counts):
            lines += [f"{block.label}:"] * bool(block.label)
            lines += [
                parse(line)._replace(samples=count / len(samples))
                for line, count in zip(block.lines, counts, strict=True)
            ]
    return HotLoop(name, depths[name] + loop.depth, lines, samples=most / len(samples))


def loops_from(functions: Mapping[str, Function], start: str, parse: Parser) -> Iterator[HotLoop]:
    """Yield the loops of what a function runs."""
    for name, depth in depths_of(functions, start).items():
        for loop in functions[name].loops:
            lines: list[Instruction | str] = []
            for block in (functions[name].blocks[number] for number in loop.blocks):
                lines += [f"{block.label}:"] * bool(block.label)
                lines += map(parse, block.lines)
            called = [
                callee_of(each.text)
                for each in lines
                if isinstance(each, Instruction) and CALL.match(each.text)
            ]
            calls = sum(each not in functions and not MEMORY.match(each or "") for each in called)
            yield HotLoop(name, depth + loop.depth, lines, calls)
