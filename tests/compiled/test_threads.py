"""One setting for the threads of BLAS and Numba, put back afterwards."""

from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
import pytest
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]
from helpers.processes import printed
from numba.core import config

from tinygpt_np.compiled import threads

MOST: int = cast(Any, config).NUMBA_NUM_THREADS
get_num_threads: Callable[[], int] = cast(Any, numba).get_num_threads
pools: Callable[[], list[dict[str, Any]]] = threadpoolctl.threadpool_info
has_two = pytest.mark.skipif(MOST < 2, reason="one core has no threads to limit")


def counts() -> tuple[list[int], int]:
    """Threads of every BLAS, and of Numba."""
    blas = [pool["num_threads"] for pool in pools() if pool["user_api"] == "blas"]
    return blas, get_num_threads()


@has_two
@pytest.mark.parametrize("number", [1, 2])
def test_blas_and_numba_have_as_many_threads_as_said(number: int) -> None:
    with threads.limited(number):
        blas, numbas = counts()
    assert blas == [number] * len(blas)
    assert numbas == number


@has_two
def test_threads_are_put_back() -> None:
    before = counts()
    with threads.limited(1):
        assert counts() != before
    assert counts() == before


@has_two
def test_threads_are_put_back_after_an_error() -> None:
    before = counts()
    with pytest.raises(ZeroDivisionError), threads.limited(1):
        raise ZeroDivisionError
    assert counts() == before


def test_more_threads_than_numba_has_are_as_many_as_it_has() -> None:
    with threads.limited(MOST + 1):
        assert get_num_threads() == MOST


def test_limiting_does_not_import_numba() -> None:
    code = (
        "import sys; from tinygpt_np.compiled import threads\n"
        "with threads.limited(1): print('numba' in sys.modules)"
    )
    assert printed(code).strip() == "False"


@pytest.mark.parametrize("number", [0, -2])
def test_less_than_one_thread_is_refused(number: int) -> None:
    with (
        pytest.raises(ValueError, match=f"a positive integer, not {number}"),
        threads.limited(number),
    ):
        pass


@pytest.mark.parametrize("number", [threads.MOST_THREADS + 1, 10**8])
def test_more_threads_than_any_machine_has_are_refused(number: int) -> None:
    with (
        pytest.raises(ValueError, match=f"threads must be at most 1024, not {number}"),
        threads.limited(number),
    ):
        pass


@pytest.mark.parametrize("number", [1.0, True, "2", None, np.float32(1)])
def test_what_is_no_integer_is_refused(number: Any) -> None:
    with pytest.raises(TypeError, match="a positive integer, not"), threads.limited(number):
        pass
