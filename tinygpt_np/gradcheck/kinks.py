"""Find where a loss has a kink or jumps, and measure its derivatives from both sides there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygpt_np.gradcheck.oracles import (
    EPS,
    Curve,
    Estimate,
    complex_step,
    one_sided,
    real_terms,
    tangents,
)

# The distance from the point at which slopes are compared: by the complex step, and by differences,
# whose step must be above rounding.
REACH, STEP = 2.0**-36, 2.0**-18
# A kink changes the slope as much at a distance that is smaller by this factor.
CLOSER = 16
# The part of a slope that changes at a kink: at least this, for a coordinate and for a direction
# through all coordinates, where it is one among many.
LARGE, SMALL = 1e-6, 1e-11


@dataclass(frozen=True)
class Sides:
    """The derivatives from both sides; from the inside for both, at the edge of the domain."""

    left: Estimate
    right: Estimate

    def __truediv__(self, unit: float) -> "Sides":
        """Return the derivatives with respect to t from those with respect to t / unit."""
        left, right = (Estimate(e.value / unit, e.error / unit) for e in (self.left, self.right))
        return Sides(left, right)

    @property
    def middle(self) -> Estimate:
        """The mean of both derivatives."""
        error = max(self.left.error, self.right.error)
        return Estimate((self.left.value + self.right.value) / 2, error)

    def agree(self, other: Estimate) -> bool:
        """Return whether a derivative at the point itself is that of both sides, up to errors."""
        near = 16 * (self.middle.error + other.error) + LARGE * abs(self.middle.value)
        return bool(abs(other.value - self.middle.value) <= near)

    @property
    def differ(self) -> bool:
        """Whether there is a kink."""
        near = 16 * (self.left.error + self.right.error)
        sizes = abs(self.left.value) + abs(self.right.value)
        return abs(self.right.value - self.left.value) > near + LARGE * sizes


@dataclass(frozen=True)
class Kink:
    """The gradients at a kink. usual (A,): those of some convention. low, high: the extremes."""

    usual: np.ndarray
    low: float
    high: float


@dataclass(frozen=True)
class KinkFinder:
    """A search for kinks: by the complex step if the loss is `safe` for it, or by differences.

    eps: a machine epsilon; a kink at a distance of up to 64 eps counts.
    """

    safe: bool
    eps: float = EPS

    @property
    def reach(self) -> float:
        """The distance at which slopes are compared."""
        return max(REACH if self.safe else STEP, 64 * self.eps)

    def suspects(self, curve: Curve, part: float = LARGE) -> bool:
        """Return whether a slope may change abruptly at 0, a term may jump, or the domain end.

        part: the smallest change of a slope that matters, relative to the slope.
        """
        if not all(np.isfinite(real_terms(curve, t)).all() for t in (self.reach, -self.reach)):
            return True
        changed = self.slope_change if self.safe else self.difference_change
        wide, _ = changed(curve, self.reach, part)
        narrow, near = changed(curve, self.reach / CLOSER, part)
        # Comparisons with NaN are False.
        return not ((narrow <= wide / 4) | (narrow <= near)).all()

    def slope_change(self, curve: Curve, reach: float, part: float) -> tuple[np.ndarray, ...]:
        """Return the change of the slope of each term across 0, and the largest negligible one."""
        left, right = tangents(curve, -reach), tangents(curve, reach)
        with np.errstate(all="ignore"):
            return np.abs(right - left), part * (np.abs(right) + np.abs(left))

    def difference_change(self, curve: Curve, reach: float, part: float) -> tuple[np.ndarray, ...]:
        """Return the same by differences, for which 64 rounding errors are negligible."""
        start, ahead, behind = (real_terms(curve, t) for t in (0.0, reach, -reach))
        with np.errstate(all="ignore"):
            changes = np.abs((ahead - start) + (behind - start)) / reach
            size = np.abs(ahead) + np.abs(behind) + np.abs(start)
            near = part * (np.abs(ahead - start) + np.abs(behind - start)) / reach
            return changes, near + 64 * EPS * size / reach

    def sides(self, curve: Curve) -> Sides:
        """Return the derivatives from both sides."""
        left, right = self.side(curve, -1.0), self.side(curve, 1.0)
        left, right = (left or right), (right or left)
        nothing = Estimate(np.nan, np.inf)
        return Sides(left or nothing, right or nothing)

    def side(self, curve: Curve, sign: float) -> Estimate | None:
        """Return the derivative from one side, or None if it is outside the domain."""
        if not np.isfinite(real_terms(curve, sign * 4 * self.reach)).all():
            return None
        if not self.safe:
            return one_sided(curve, sign)
        near, middle, far = (
            complex_step(lambda t, r=reach: curve(sign * r + t))
            for reach in (self.reach, 2 * self.reach, 4 * self.reach)
        )
        # The slope at distance r is that of the side plus a multiple of r.
        value, rough = 2 * near.value - middle.value, 2 * middle.value - far.value
        return Estimate(value, abs(value - rough) + 3 * near.error)

    def kink(self, curve: Curve, sides: Sides, points: Sequence[float]) -> Kink:
        """Return what a gradient may be, from the slopes at `points` nearby as well.

        The usual ones are the derivatives from both sides, their mean, and 0 between them; for each
        term, the less steep or the steeper side or 0; and the derivative at any point nearby. If
        several kinks meet, as those of all units of a layer, each may follow a convention of its
        own, and other gradients are right, too.
        """
        left, right = sides.left.value, sides.right.value
        usual = [left, right, (left + right) / 2, min(max(0.0, min(left, right)), max(left, right))]
        one = False
        if self.safe and sides.left is not sides.right:
            terms = np.array([tangents(curve, -self.reach), tangents(curve, self.reach)])  # (2, K)
            steep = np.argmax(np.abs(terms), axis=0)[None]
            between = np.clip(0, terms.min(axis=0), terms.max(axis=0))
            chosen = (np.take_along_axis(terms, each, 0) for each in (steep, 1 - steep))
            usual += [*(float(each.sum()) for each in chosen), float(between.sum()), *points]
            near = LARGE * (abs(left) + abs(right))
            one = all(min(abs(each - left), abs(each - right)) <= near for each in points)
        known = np.array([each for each in usual if np.isfinite(each)] or [left])
        low, high = float(known.min()), float(known.max())
        spread = 0.0 if one else high - low
        return Kink(known, low - spread, high + spread)
