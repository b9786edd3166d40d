"""Fixtures of the tests of training."""

from collections.abc import Iterator

import pytest

from tinygpt_np.training import metrics


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """Train without plots, which take most of the time; test_metrics.py tests them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(metrics, "plot_losses", lambda run: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        yield
