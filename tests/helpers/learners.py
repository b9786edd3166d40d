"""The text that a learner types: the text of an exercise with some or all of its lines written."""

import ast
import inspect
from collections.abc import Container

from tinygpt_np.learn.attempt import read_file
from tinygpt_np.learn.course import Exercise, find
from tinygpt_np.learn.judge import Verdict, judge
from tinygpt_np.learn.skeleton import blanks, plain, simple_statements, skeleton
from tinygpt_np.learn.sources import source_of
from tinygpt_np.study.source.parse import find_function


def solved(name: str, but: Container[int] = ()) -> str:
    """Return the file of an exercise with the lines of the source, but for some numbers of them."""
    exercise, found = find(name), list[str]()
    left = list(enumerate(blanks(exercise)))
    for line in skeleton(exercise).splitlines():
        if left and line.strip().startswith(left[0][1].target) and "..." in line:
            number, blank = left.pop(0)
            if number not in but:
                indent = line[: len(line) - len(line.lstrip())]
                found += [indent + each for each in blank.solution.splitlines()]
                continue
        found.append(line)
    assert not left
    return "\n".join(found) + "\n"


def planted(text: str, before: str, after: str) -> tuple[str, int]:
    """Return a file with other statements in the place of `before`, and their line."""
    nodes = simple_statements(find_function(text, "backward", "").node.body)
    lines = text.splitlines()
    for first in range(len(nodes)):
        for last in range(first, min(first + 3, len(nodes))):
            written = "; ".join(map(ast.unparse, nodes[first : last + 1]))
            if written == before.replace("\n", "; "):
                start, end = nodes[first].lineno - 1, nodes[last].end_lineno
                indent = " " * nodes[first].col_offset
                new = [indent + after] if after else []
                return "\n".join([*lines[:start], *new, *lines[end:]]) + "\n", start + 1
    (number,) = (n for n, line in enumerate(lines) if line.strip() == before)  # A header.
    lines[number] = lines[number].replace(before, after)
    return "\n".join(lines) + "\n", number + 1


def verdict_on(name: str, text: str) -> Verdict:
    """Return the verdict on the text of an exercise's file."""
    exercise: Exercise = find(name)
    return judge(read_file(exercise, text, f"learn/{exercise.file}"))


def finished(exercise: Exercise) -> str:
    """Return the file of any exercise with its solution; that of a bug hunt is marked."""
    if exercise.kind == "lines":
        return solved(exercise.name)
    text, source = skeleton(exercise), source_of(exercise)
    if exercise.kind == "closed":
        closed = find_function(inspect.getsource(source.module), "backward", "")
        return text.partition("def backward(")[0] + plain(closed) + "\n"
    (blank,) = blanks(exercise)
    right, lines = skeleton(exercise).splitlines(), source.backward.lines
    kept = {line.strip() for line in lines}
    start = next(n for n, line in enumerate(right) if line.startswith("def backward("))
    place = next(n for n in range(start + 2, len(right)) if right[n].strip() not in kept)
    indent = right[place][: len(right[place]) - len(right[place].lstrip())]
    right[place] = f"{indent}{blank.solution.splitlines()[0].partition('  #')[0]}  # bug"
    return "\n".join(right) + "\n"
