"""Prove the operations with planted bugs: the mutants of the gradient checks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tinygpt_np.gradcheck.cases import variants_of
from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, Site, sites
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, Proof
from tinygpt_np.study.source import targets


@dataclass(frozen=True)
class Bug:
    """A mutant and its proof. reason: why an equivalent mutant changes no gradient, or ""."""

    mutation: Mutation
    proof: Proof
    reason: str

    @property
    def first_wrong(self) -> BackwardLine | None:
        """The first wrong line."""
        return self.proof.first_wrong

    @property
    def cause(self) -> str:
        """The cause that the first wrong or missing line is given, or ""."""
        line = self.first_wrong
        return line.stated_cause if line else ""


def bugs(operation: str, seed: int = 0) -> Iterator[Bug]:
    """Yield all bugs that can be planted in the backwards of an operation."""
    truths = [Truth(targets.operation(name, seed)) for name in variants_of(operation)]
    for site in (site for site in sites() if site.operation == operation):
        for mutation in site.mutations():
            yield planted(site, mutation, truths)


def planted(site: Site, mutation: Mutation, truths: list[Truth]) -> Bug:
    """Return a bug with its proof, for the first call that shows it."""
    reason = EQUIVALENT.get((site.operation, site.function, mutation.before, mutation.after), "")
    mutant = site.compiled(mutation)
    proofs: list[Proof] = []
    for truth in truths:
        original = next(b for b in truth.target.backwards if b.name == site.function)
        proofs.append(prove(truth, replace(original, node=mutation.tree), mutant))
        if not proofs[-1].ok:
            return Bug(mutation, proofs[-1], reason)
    return Bug(mutation, proofs[0], reason)
