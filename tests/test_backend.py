"""Choosing the implementation by name."""

import pytest

from tinygpt_np import backend, ops


def test_numpy_is_ops() -> None:
    assert backend.load("numpy") is ops


@pytest.mark.parametrize("name", sorted(backend.BACKENDS))
def test_an_unknown_backend_is_named_beside_the_known(name: str) -> None:
    with pytest.raises(ValueError, match=rf"one of .*{name}.*, not 'nunpy'"):
        backend.load("nunpy")
