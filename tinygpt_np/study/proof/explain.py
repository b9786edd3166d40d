"""Explain the wrong gradients that a check has found: which line is wrong, and why."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.cases import variants_of
from tinygpt_np.gradcheck.mutations import Mutation, Site
from tinygpt_np.gradcheck.tree import leaves
from tinygpt_np.hooks import Explanation
from tinygpt_np.study.proof.bugs import planted
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import MISTAKES, Proof
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.trace import Value

# With more elements in the arguments, it would take minutes to run the lines again and again.
MAX_ELEMENTS = 200_000


def explain(
    forward: Callable[..., Any], backward: Callable[..., Any], args: Mapping[str, Any],
    wrt: tuple[str, ...], seed: int,
) -> Explanation | None:  # fmt: skip
    """Return where a wrong backward has its first mistake, and the causes of wrong gradients.

    Return None if its lines cannot be run, or none of them is found to be wrong.
    """
    if sum(np.size(leaf) for leaf in leaves(dict(args)).values()) > MAX_ELEMENTS:
        return None
    try:
        target = replace(targets.target_of(forward, backward, args, seed), wrt=wrt)
        proof = prove(Truth(target), target.backwards[0])
    except Exception:  # An explanation is optional: any code can be checked, but not be studied.
        return None
    first = proof.first_wrong
    if first is None:
        return None
    where = f"{target.file}, line {first.line}: {first.text}"
    if first.status == "missing":
        where = f"{target.file}, after line {first.line}: {first.message}"
    return Explanation(where, {name: cause_of_result(proof, name) for name in wrt})


def cause_of_result(proof: Proof, name: str) -> str:
    """Return the cause of the first mistake on which a returned gradient depends."""
    mistakes = [line for line in proof.lines if line.status in MISTAKES]
    lines = [line for line in proof.lines if line.status != "missing"]
    setting = [
        index
        for index, line in enumerate(lines[: len(proof.trace.executed)])
        if any(g.pair is not None and g.pair.value == Value(name, -1) for g in line.gradients)
    ]
    if len(mistakes) > 1 and setting:
        used = {setting[-1], *proof.trace.ancestors(setting[-1])}
        mistakes = [line for line in mistakes if line in [lines[i] for i in used]] or mistakes
    return mistakes[0].stated_cause


def cause_of_bug(site: Site, mutation: Mutation, seed: int) -> str:
    """Return the cause that a planted bug in an operation is given."""
    return planted(site, mutation, truths_of(site.operation, seed)).cause


@cache
def truths_of(operation: str, seed: int) -> list[Truth]:
    """Return the expected gradients of every variant of an operation."""
    return [Truth(targets.operation(name, seed)) for name in variants_of(operation)]
