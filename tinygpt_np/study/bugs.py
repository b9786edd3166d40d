"""What each planted bug reddens: the mutants of the gradient checks, proven line by line."""

from collections.abc import Iterator
from dataclasses import dataclass

from tinygpt_np.gradcheck.mutations import EQUIVALENT, Mutation, Site, sites
from tinygpt_np.study import targets
from tinygpt_np.study.proof import Line, Proof
from tinygpt_np.study.prover import prove
from tinygpt_np.study.truth import Truth


@dataclass(frozen=True)
class Bug:
    """A mutant and its proof, at the first call of the operation that shows it.

    reason: why it changes no gradient, or "".
    """

    mutation: Mutation
    proof: Proof
    reason: str

    @property
    def blamed(self) -> Line | None:
        """The first line that is wrong."""
        return self.proof.first_wrong


def bugs(operation: str, seed: int = 0) -> Iterator[Bug]:
    """Every bug planted in the backwards of an operation."""
    truths = [Truth(targets.operation(name, seed)) for name in targets.variants(operation)]
    for site in (site for site in sites() if site.operation == operation):
        for mutation in site.mutations():
            yield planted(site, mutation, truths)


def planted(site: Site, mutation: Mutation, truths: list[Truth]) -> Bug:
    """One bug, at the first of the calls that shows it."""
    reason = EQUIVALENT.get((site.operation, site.function, mutation.before, mutation.after), "")
    mutant = site.compiled(mutation)
    proofs: list[Proof] = []
    for truth in truths:
        original = next(b for b in truth.target.backwards if b.name == site.function)
        function = original.changed(mutation.tree)
        proofs.append(prove(truth, function, mutant))
        if not proofs[-1].ok:
            return Bug(mutation, proofs[-1], reason)
    return Bug(mutation, proofs[0], reason)
