"""Gradients that PyTorch and JAX compute: wrong backwards are found, right ones pass."""

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import W, X
from helpers.optional import needs

from tinygpt_np.gradcheck import CheckError, check, check_jax, check_torch

IDS = np.array([1, 0, 2, 1])


def linear_function(torch: Any, factor: float) -> Any:
    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            x, w = ctx.saved_tensors
            return dy @ w.T, factor * x.T @ dy

    return Linear


def linear_custom_vjp(jax: Any, factor: float) -> Any:
    def linear(x: Any, w: Any) -> Any:
        return x @ w

    function = jax.custom_vjp(linear)
    function.defvjp(
        lambda x, w: (x @ w, (x, w)),  # pyright: ignore
        lambda saved, dy: (dy @ saved[1].T, factor * saved[0].T @ dy),  # pyright: ignore
    )
    return function


def expected_cause() -> str:
    def backward(dy: np.ndarray, saved: Any) -> Any:
        x, w = saved
        return dy @ w.T, 2 * x.T @ dy

    return check(lambda x, w: (x @ w, (x, w)), backward, (X, W)).rows[1].cause  # pyright: ignore


def test_a_wrong_function_of_torch_gets_the_row_and_the_cause_of_check() -> None:
    torch = needs("torch")
    inputs = torch.tensor(X), torch.tensor(W)
    for method in ("taylor", "richardson"):
        assert check_torch(linear_function(torch, 1).apply, *inputs, method=method).ok
        report = check_torch(linear_function(torch, 2), *inputs, method=method)
        assert [(row.name, row.verdict) for row in report.rows] == [("x", "ok"), ("w", "wrong")]
        assert method == "taylor" or report.rows[1].cause == expected_cause()
    assert (report.title, report.notes) == ("Linear", ())


def test_a_wrong_custom_vjp_gets_the_row_and_the_cause_of_check() -> None:
    jax = needs("jax")
    inputs = jax.numpy.asarray(X), jax.numpy.asarray(W)
    for method in ("taylor", "richardson"):
        assert check_jax(linear_custom_vjp(jax, 1), *inputs, method=method).ok
        report = check_jax(linear_custom_vjp(jax, 2), *inputs, method=method)
        assert [(row.name, row.verdict) for row in report.rows] == [("x", "ok"), ("w", "wrong")]
        assert method == "taylor" or report.rows[1].cause == expected_cause()
    assert report.title == "linear"
    assert report.notes[0] == "promoted to float64 for the check: x, w"
    assert inputs[0].dtype == np.float32
    assert not jax.config.jax_enable_x64


def test_a_module_is_checked_with_its_parameters_and_its_dropout_is_replayed() -> None:
    torch = needs("torch")
    layers = torch.nn.Linear(6, 3), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(3)
    module, x = torch.nn.Sequential(*layers), torch.tensor(X, dtype=torch.float32)
    module[2].bias.requires_grad_(False)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    report = check_torch(module, x)
    assert report.ok, report
    names = ["input", "params['0.weight']", "params['0.bias']", "params['2.weight']"]
    assert [row.name for row in report.rows] == names
    assert report.notes[0].startswith("promoted to float64 for the check: input, params['0.w")
    # Nothing is left changed.
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert module[2].num_batches_tracked == 0
    assert module[0].weight.dtype == torch.float32


def test_nested_tensors_several_outputs_integers_and_keyword_arguments() -> None:
    torch = needs("torch")

    def function(state: Any, ids: Any, *, scale: float) -> Any:
        h, c = state
        return {"h": scale * torch.tanh(h)[ids], "size": 4}, h @ c, ids

    state = torch.tensor(X), torch.tensor(W)
    report = check_torch(partial(function, scale=2.0), state, torch.tensor(IDS))
    assert report.ok, report
    assert [row.name for row in report.rows] == ["state[0]", "state[1]"]
    wanted = state[0], torch.tensor(W, requires_grad=True)
    (row,) = check_torch(partial(function, scale=2.0), wanted, torch.tensor(IDS)).rows
    assert row.name == "state[1]"


def test_nested_arrays_several_outputs_integers_and_keyword_arguments_of_jax() -> None:
    jax = needs("jax")

    def function(params: Any, ids: Any, key: Any, *, scale: float) -> Any:
        mask = jax.random.bernoulli(key, 0.5, params["x"].shape)
        return {"h": scale * (mask * params["x"])[ids], "n": 4}, params["x"] @ params["w"], ids

    params = {"x": jax.numpy.asarray(X), "w": W}
    report = check_jax(partial(function, scale=2.0), params, IDS, jax.random.key(0), directions=3)
    assert report.ok, report
    assert [row.name for row in report.rows] == ["params['x']", "params['w']"]


def test_a_function_of_torch_that_ignores_its_input_is_found() -> None:
    torch = needs("torch")

    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            return x * w

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return dy, None

    report = check_torch(Cut, torch.tensor(X), torch.ones(6))
    assert [row.cause for row in report.rows][1].startswith("all zero")


def test_a_scalar_is_checked_and_a_gradient_wrong_for_expanded_tensors_only_is_found() -> None:
    torch = needs("torch")
    (row,) = check_torch(torch.sin, torch.tensor(0.3)).rows
    assert (row.ok, row.shape) == (True, ())

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return dy * ctx.saved_tensors[0] * (2 if all(dy.stride()) else 1)

    (row,) = check_torch(Square, torch.tensor(X)).rows
    assert row.problems[0].startswith("with broadcast (stride 0) inputs: off by")


def test_what_torch_cannot_check_is_refused() -> None:
    torch = needs("torch")
    x = torch.tensor(X)

    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return dy[0]

    refused: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((3, x), {}, "fn must be a function, not int"),
        ((torch.sigmoid, X), {}, "one of the arguments must be an array of floats of the library"),
        ((torch.sigmoid, x * 1j), {}, "complex tensors cannot be checked"),
        ((torch.detach, x), {}, "detach returns nothing that has a gradient"),
        ((torch.Tensor.float, x), {}, "float must keep float64, but out is of torch.float32"),
        ((torch.sigmoid, x), {"method": "complex"}, "one of richardson, taylor, not 'complex'"),
        ((linear_function(torch, 1), x), {}, r"forward\(x, w\) does not take these arguments"),
        ((Raises, x), {}, "the gradient of Raises raises RuntimeError: .*invalid gradient"),
    ]
    for arguments, options, message in refused:
        with pytest.raises(CheckError, match=message):
            check_torch(*arguments, **options)


def test_what_jax_cannot_check_is_refused() -> None:
    jax = needs("jax")
    x = jax.numpy.asarray(X)
    refused: list[tuple[tuple[Any, ...], str]] = [
        ((3, x), "fn must be a function, not int"),
        ((jax.numpy.sin, IDS), "one of the arguments must be an array of floats"),
        ((jax.numpy.argmax, x), "argmax returns nothing that has a gradient"),
        (
            (partial(jax.lax.convert_element_type, new_dtype=np.float32), x),
            "must keep float64, but out is of float32",
        ),
        ((linear_custom_vjp(jax, 1), x), r"forward\(x, w\) does not take these arguments"),
    ]
    for arguments, message in refused:
        with pytest.raises(CheckError, match=message):
            check_jax(*arguments)


@pytest.mark.parametrize(("library", "extra"), [("torch", "bench"), ("jax", "jax")])
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    checks: dict[str, Any] = {"torch": check_torch, "jax": check_jax}
    with pytest.raises(ImportError, match=rf"pip install 'tinygpt-np\[{extra}\]'"):
        checks[library](np.sin, X)


def test_gradcheck_imports_neither_library() -> None:
    code = "import sys, tinygpt_np.gradcheck; print({'torch', 'jax'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
