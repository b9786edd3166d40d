"""Measure how far rounding moves a result, by Monte Carlo arithmetic.

Code is run on arrays that multiply the result of each floating operation by 1 + η·ξ, with a random
ξ in [-1, 1] and an η much larger than machine epsilon. The deviation of the result, divided by η,
is its sensitivity to rounding: multiplied by the epsilon of a dtype, it is the rounding error to be
expected in that dtype. It includes the cancellation inside the code, and a result that is wrong for
another reason deviates no more than a right one.

Source: Parker, "Monte Carlo Arithmetic" (1997).
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.probes import Probes

# The size of the noise, and the factor by which it is reduced to see whether the effect is linear.
NOISE, REDUCTION = 2.0**-30, 256.0
# The number of runs of the code, each with other noise.
SAMPLES = 6
# The largest error of correct code, in units of the largest deviation of the samples. Functions
# such as exp are off by up to 4 ulp, and the largest of a few samples may be small by chance.
FACTOR = 32.0
# Ufuncs whose floating results are exact.
EXACT = {
    "absolute", "ceil", "clip", "conjugate", "copysign", "fabs", "floor", "floor_divide", "fmax",
    "fmin", "heaviside", "ldexp", "maximum", "minimum", "negative", "positive", "rint", "sign",
    "trunc",
}  # fmt: skip
# Complex products and quotients add several real products, which may cancel.
OF_PRODUCTS = {"multiply", "divide", "square", "reciprocal", "power"}
# Functions that compute sums without ufuncs.
SUMS = {
    "convolve", "correlate", "cov", "dot", "einsum", "inner", "interp", "kron", "tensordot",
    "trapezoid", "vdot",
}  # fmt: skip


class Noise:
    """The noise that is added at the moment: its size η and its generator.

    Random numbers are read from a pool at random places, which is faster than drawing them.
    """

    size = 0.0
    rng = generator(0, "gradcheck")
    pool = np.empty(0)

    @classmethod
    @contextmanager
    def of(cls, size: float, seed: int) -> Generator[None]:
        """Add noise of this size to every operation on noisy arrays."""
        cls.size, cls.rng = size, generator(seed, "gradcheck")
        try:
            yield
        finally:
            cls.size = 0.0

    @classmethod
    def added(cls, value: Any, times: float = 1.0) -> Any:
        """Return a number or an array with noise; what is no float is returned as it is."""
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype.kind not in "fc":
            return value
        # Drawn even if it is not added, so that runs of other sizes have the same noise.
        noise = cls.size * times * cls.drawn(value.shape)
        if dtype.kind == "f":
            return np.asarray(value * (1 + noise), dtype)
        result = np.empty(value.shape, dtype)
        result.real = value.real * (1 + noise)
        result.imag = value.imag * (1 + cls.size * times * cls.drawn(value.shape))
        return result

    @classmethod
    def spread(cls, value: Any) -> Any:
        """Return a matrix whose elements have noise relative to the largest of them."""
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype.kind not in "fc" or not value.size:
            return value
        noise = cls.added(np.full(value.shape, 1 + 1j)) - (1 + 1j)
        real = value.real + noise.real * np.abs(value.real).max()
        if dtype.kind == "f":
            return real
        return real + 1j * (value.imag + noise.imag * np.abs(value.imag).max())

    @classmethod
    def drawn(cls, shape: tuple[int, ...]) -> np.ndarray:
        """Return random numbers in [-1, 1] (*shape)."""
        count = math.prod(shape)
        if len(cls.pool) < 2 * count:
            cls.pool = generator(0, "gradcheck").uniform(-1, 1, max(2 * count, 2**18))
        start = int(cls.rng.integers(len(cls.pool) - count))
        return cls.pool[start : start + count].reshape(shape)


class NoisyArray(np.ndarray):
    """An array every floating operation on which has noise; see Noise."""

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        """Run a ufunc or one of its methods on plain arrays, with noise."""
        name, plain = ufunc.__name__, [bare(each) for each in inputs]
        if "where" in options:
            options["where"] = bare(options["where"])
        is_sum = (method != "__call__" or ufunc.signature is not None) and name not in EXACT
        if is_sum:
            # The first input of ufunc.at is its output.
            kept = plain[:1] if method == "at" else []
            plain = [*kept, *(summand(each) for each in plain[len(kept) :])]
        elif name in OF_PRODUCTS and any(np.iscomplexobj(each) for each in plain):
            plain = [Noise.added(each) for each in plain]
        elif name == "log1p" and np.iscomplexobj(plain[0]):
            # NumPy computes it as log(1 + z).
            plain = [Noise.added(1 + plain[0]) - 1]
        if out is not None:
            options["out"] = tuple(bare(each) for each in out)
        result = getattr(ufunc, method)(*plain, **options)
        if method == "at" or result is None:
            return None
        if name not in EXACT:
            several: Any = cast(Any, result) if isinstance(result, tuple) else (result,)
            noisy = tuple(Noise.added(each) for each in several)
            for each, to in zip(noisy, out or (), strict=False):
                if to is not None:
                    bare(to)[...] = each
            result = noisy if several is result else noisy[0]
        if out is not None:
            return out[0] if len(out) == 1 else out
        return noisy_view(result)

    def __array_function__(
        self, func: Any, types: Iterable[type], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        """Run a function of NumPy; one that computes sums itself gets noise before and after."""
        if str(func.__module__).startswith(("numpy.linalg", "numpy.fft")):
            before = after = Noise.spread
        elif func.__name__ in SUMS:
            before, after = summand, Noise.added
        else:
            return noisy_view(super().__array_function__(func, types, args, kwargs))
        return noisy_view(nested(after, func(*nested(before, args), **nested(bare, kwargs))))

    def dot(self, b: Any, out: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the dot product; the method of ndarray calls no ufunc."""
        return np.dot(self, b) if out is None else np.dot(self, b, out=out)


def bare(value: Any) -> Any:
    """Return a noisy array as a plain one, and everything else as it is."""
    return value.view(np.ndarray) if isinstance(value, NoisyArray) else value


def summand(value: Any) -> Any:
    """Return terms that are about to be added, with noise for each partial sum."""
    value = bare(value)
    return Noise.added(value, max(1.0, math.sqrt(getattr(value, "size", 1)) / 4))


def nested(change: Callable[[Any], Any], value: Any) -> Any:
    """Return arguments or results with every array in them changed."""
    if isinstance(value, dict):
        named = cast(dict[str, Any], value)
        return {name: nested(change, each) for name, each in named.items()}
    if type(value) in (tuple, list):
        return type(value)(nested(change, each) for each in value)
    if isinstance(value, tuple):  # The named tuples of np.linalg.
        return tuple(nested(change, each) for each in cast(Any, value))
    return change(bare(value))


def noisy_view(value: Any) -> Any:
    """Return floating arrays and numbers as noisy arrays, which share their memory."""
    if type(value) in (tuple, list):
        return type(value)(noisy_view(each) for each in value)
    is_float = getattr(getattr(value, "dtype", None), "kind", "") in ("f", "c")
    return np.asarray(value).view(NoisyArray) if is_float else value


class Rounding:
    """The effect of rounding on the results of some code, measured when it is first asked for.

    run: runs the code on noisy arrays and returns arrays by name.
    """

    def __init__(self, run: Callable[[], Mapping[str, Any]]) -> None:
        self.run = run
        self.known = dict[tuple[str, Probes | None], np.ndarray | None]()

    @cached_property
    def results(self) -> dict[str, np.ndarray] | None:
        """Results by name, (samples, 3, *shape): without noise, at η and at the reduced η.

        None if the code does not run on noisy arrays.
        """
        try:
            with np.errstate(all="ignore"), Noise.of(0.0, 0):
                still = self.once()
            found: dict[str, list[list[np.ndarray]]] = {name: [] for name in still}
            for seed in range(SAMPLES):
                for size in (NOISE, NOISE / REDUCTION):
                    with np.errstate(all="ignore"), Noise.of(size, seed):
                        moved = self.once()
                    for name, value in moved.items():
                        if size == NOISE:
                            found[name].append([still[name]])
                        found[name][-1].append(value)
        except Exception:  # Any error on noisy arrays means that the code does not take them.
            return None
        return {name: np.array(each) for name, each in found.items()}

    def once(self) -> dict[str, np.ndarray]:
        """Run the code; return plain arrays of float64."""
        found = {name: bare(value) for name, value in self.run().items() if value is not None}
        return {name: np.array(value, np.float64) for name, value in found.items()}

    def of(self, name: str, probes: Probes | None = None) -> np.ndarray | None:
        """Return the sensitivity of a result to rounding along probes (P,), or None if unknown."""
        key = name, probes
        if key not in self.known:
            results, along = (self.results or {}).get(name), probes.along if probes else np.ravel
            self.known[key] = None
            if results is not None and (results != results[0, 0]).any():
                flat = [[along(each) for each in sample] for sample in results]
                self.known[key] = sensitivity(np.array(flat))
        return self.known[key]


def sensitivity(results: np.ndarray) -> np.ndarray:
    """Results (samples, 3, P) without noise, at η and at the reduced η -> sensitivity (P,).

    An effect that does not shrink with η is a comparison with another outcome, as at a tie: it does
    not count. One that neither shrinks in proportion nor stays the same is saturated: the result
    has no correct digit at this η, and its sensitivity is infinite.
    """
    still, noisy, less = results.swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        large, small, change = (
            np.abs(a - b) for a, b in ((noisy, still), (less, still), (noisy, less))
        )
        shrinks = small <= large.max(axis=0) / 16
        # Saturated results may all be far below the one without noise, but they are not the same.
        sizes = np.minimum(large, np.maximum(np.abs(noisy), np.abs(less)))
        same = ~shrinks & (change <= 0.1 * sizes)
    effect = np.where(same, 0.0, np.where(shrinks, small * REDUCTION, np.inf))
    return effect.max(axis=0) / NOISE
