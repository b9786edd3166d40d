"""Choose the planted bugs that a page asks about, so that its reader finds the wrong line.

Typical kinds of mistakes come first, and each kind once before any kind twice; a kind is asked
about the line with the fewest questions so far. A bug is left out if its line cannot be found by
thinking: if it changes no gradient, raises, removes the line, makes an earlier line wrong, or is
written in another style than the other lines.
"""

from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, Site, sites
from tinygpt_np.study.proof.bugs import Bug, planted
from tinygpt_np.study.proof.truth import Truth

COUNT = 10
# The kinds of mistakes, the most typical first.
TYPICAL = (
    *("sign", "factor dropped", "transpose", "sum dropped", "+= to =", "term dropped", "mask"),
    *("1/N", "scatter", "stale value", "operands swapped", "axis", "sum and mean", "keepdims"),
    *("factor inverted", "call skipped", "saved swapped", "order", "factor doubled"),
    *("condition", "upstream ignored", "factor 1/2"),
)


def questions(truth: Truth) -> list[Bug]:
    """Return at most ten bugs of an operation to ask about, always the same ones."""
    operation = truth.target.name
    waiting: dict[str, list[tuple[Site, Mutation]]] = {kind: [] for kind in TYPICAL}
    for site in (site for site in sites() if site.operation == operation):
        for mutation in site.mutations():
            if mutation.kind in waiting and looks_right(site, mutation, truth):
                waiting[mutation.kind].append((site, mutation))
    found: list[Bug] = []
    asked: dict[tuple[str, int], int] = {}

    def times_asked(candidate: tuple[Site, Mutation]) -> int:
        return asked.get((candidate[0].function, candidate[1].line), 0)

    while any(waiting.values()):
        for kind in (kind for kind in TYPICAL if waiting[kind]):
            for site, mutation in sorted(waiting[kind], key=times_asked):
                waiting[kind].remove((site, mutation))
                bug = planted(site, mutation, [truth])
                if is_found_at_its_line(bug):
                    found.append(bug)
                    place = site.function, mutation.line
                    asked[place] = asked.get(place, 0) + 1
                    break
            if len(found) == COUNT:
                return found
    return found


def looks_right(site: Site, mutation: Mutation, truth: Truth) -> bool:
    """Return whether a mutation changes a gradient, in a line written as ast.unparse writes it."""
    function = next(b for b in truth.target.backwards if b.name == site.function)
    texts = {statement.text for statement in (*function.statements, function.returned)}
    key = site.operation, site.function, mutation.before, mutation.after
    return mutation.before in texts and key not in EQUIVALENT


def is_found_at_its_line(bug: Bug) -> bool:
    """Return whether the changed line is the first that is wrong, and none raises."""
    raises = bool(bug.proof.trace.error) or any(each.error for each in bug.proof.trace.executed)
    first = bug.first_wrong
    is_wrong = first is not None and first.status == "wrong" and first.line == bug.mutation.line
    return is_wrong and not raises
