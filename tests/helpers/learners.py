"""The text that a learner types: the text of an exercise with some or all of its lines written."""

import ast
from collections.abc import Container

from tinygpt_np.learn.attempt import read_file
from tinygpt_np.learn.course import Exercise, find
from tinygpt_np.learn.judge import Verdict, judge
from tinygpt_np.learn.skeleton import blanks, simple_statements, skeleton
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
