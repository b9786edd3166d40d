"""The directions in which a tensor is moved, and the units of the steps along them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Probes:
    """The P directions in which a tensor is moved: all coordinates, or `directions` (P, *shape)."""

    shape: tuple[int, ...]
    directions: np.ndarray | None = None

    def __len__(self) -> int:
        return int(np.prod(self.shape)) if self.directions is None else len(self.directions)

    def __getitem__(self, number: int) -> np.ndarray:
        if self.directions is not None:
            return self.directions[number]
        direction = np.zeros(self.shape)
        direction.flat[number] = 1.0
        return direction

    def index(self, number: int) -> tuple[int, ...]:
        """Return the index of a coordinate in its tensor, or the number of a direction."""
        if self.directions is not None:
            return (number,)
        return tuple(int(i) for i in np.unravel_index(number, self.shape))

    def along(self, gradient: np.ndarray) -> np.ndarray:
        """Return the derivatives of a gradient (*shape) along the probes (P,), in float64."""
        flat = gradient.astype(np.float64).reshape(-1)
        return flat if self.directions is None else self.directions.reshape(len(self), -1) @ flat

    def scales(self, value: np.ndarray) -> np.ndarray:
        """Return two units of the steps along each probe (P, 2).

        A coordinate moves by a fraction of its own value, so that it keeps its sign and stays in
        the domain; or of the typical value, which loses fewer digits. A direction moves by a
        fraction of itself, or by less, so that each coordinate keeps its sign.
        """
        if self.directions is None:
            own = magnitudes(value).reshape(-1)
            return np.stack([own, np.full_like(own, typical(value))], axis=1)
        with np.errstate(all="ignore"):
            ratios = np.abs(value / self.directions).reshape(len(self), -1)
        ratios = np.where(np.isfinite(ratios) & (ratios > 0), ratios, 1.0)
        return np.stack([np.ones(len(self)), ratios.min(axis=1, initial=1.0)], axis=1)


def typical(value: np.ndarray) -> float:
    """Return the typical magnitude of the elements that are not zero; 1 if all are."""
    sizes = np.abs(value[value != 0])
    return float(np.median(sizes)) if sizes.size else 1.0


def magnitudes(value: np.ndarray) -> np.ndarray:
    """Return the magnitude of each element, the typical one for those that are 0."""
    return np.where(value != 0, np.abs(value), typical(value))
