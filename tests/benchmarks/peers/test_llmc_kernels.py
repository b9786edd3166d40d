"""llm.c's kernels, with a file in place of train_gpt2.c that has functions of its signatures.

-Ofast changes how a whole process rounds, so what is compiled is loaded in processes of its own.
"""

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from helpers.processes import LIMIT

from benchmarks import cases
from benchmarks.harness.worker import Process, WorkerError
from benchmarks.peers import llmc_kernels

# As llm.c's: weights (OC, C), gradients added to. No row of targets may be negative.
KERNELS = r"""
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

void matmul_forward(float *y, const float *x, const float *w, const float *b,
                    int B, int T, int C, int K) {
    #pragma omp parallel for
    for (int n = 0; n < B * T; n++)
        for (int k = 0; k < K; k++) {
            float sum = b ? b[k] : 0;
            for (int c = 0; c < C; c++) sum += x[n * C + c] * w[k * C + c];
            y[n * K + k] = sum;
        }
}

static void softmax_row(float *p, const float *x, int count) {
    float largest = x[0], total = 0;
    for (int i = 1; i < count; i++) largest = fmaxf(largest, x[i]);
    for (int i = 0; i < count; i++) total += p[i] = expf(x[i] - largest);
    for (int i = 0; i < count; i++) p[i] /= total;
}

void softmax_forward(float *p, float *x, int B, int T, int V, int Vp) {
    for (int n = 0; n < B * T; n++) softmax_row(p + n * Vp, x + n * Vp, V);
}

void crossentropy_forward(float *losses, float *p, int *targets, int B, int T, int Vp) {
    for (int n = 0; n < B * T; n++) {
        if (targets[n] < 0) abort();
        losses[n] = -logf(p[n * Vp + targets[n]]);
    }
}

void crossentropy_softmax_backward(float *dx, float *dlosses, float *p, int *targets,
                                   int B, int T, int V, int Vp) {
    for (int n = 0; n < B * T; n++)
        for (int v = 0; v < V; v++)
            dx[n * Vp + v] += (p[n * Vp + v] - (v == targets[n])) * dlosses[n];
}

void attention_forward(float *y, float *scores, float *p, float *qkv,
                       int B, int T, int C, int H) {
    int D = C / H;
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                size_t row = ((size_t)(b * H + h) * T + t) * T;
                float *q = qkv + (b * T + t) * 3 * C + h * D, *out = y + (b * T + t) * C + h * D;
                for (int s = 0; s <= t; s++) {
                    float *k = qkv + (b * T + s) * 3 * C + C + h * D, sum = 0;
                    for (int d = 0; d < D; d++) sum += q[d] * k[d];
                    scores[row + s] = sum / sqrtf(D);
                }
                softmax_row(p + row, scores + row, t + 1);
                for (int d = 0; d < D; d++) out[d] = 0;
                for (int s = 0; s <= t; s++)
                    for (int d = 0; d < D; d++)
                        out[d] += p[row + s] * qkv[(b * T + s) * 3 * C + 2 * C + h * D + d];
            }
}

void attention_backward(float *dqkv, float *dscores, float *dp, float *dy, float *qkv, float *p,
                        int B, int T, int C, int H) {
    int D = C / H;
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                size_t row = ((size_t)(b * H + h) * T + t) * T;
                int at = (b * T + t) * 3 * C + h * D;
                float *upstream = dy + (b * T + t) * C + h * D, mean = 0;
                for (int s = 0; s <= t; s++) {
                    int v = (b * T + s) * 3 * C + 2 * C + h * D;
                    for (int d = 0; d < D; d++) {
                        dp[row + s] += upstream[d] * qkv[v + d];
                        dqkv[v + d] += upstream[d] * p[row + s];
                    }
                    mean += p[row + s] * dp[row + s];
                }
                for (int s = 0; s <= t; s++) {
                    int k = (b * T + s) * 3 * C + C + h * D;
                    dscores[row + s] += p[row + s] * (dp[row + s] - mean);
                    for (int d = 0; d < D; d++) {
                        dqkv[at + d] += dscores[row + s] * qkv[k + d] / sqrtf(D);
                        dqkv[k + d] += dscores[row + s] * qkv[at + d] / sqrtf(D);
                    }
                }
            }
}

void layernorm_forward(float *y, float *mean, float *scale, float *x, float *w, float *b,
                       int B, int T, int C) {
    for (int n = 0; n < B * T; n++) {
        float sum = 0, squares = 0, *row = x + n * C;
        for (int c = 0; c < C; c++) sum += row[c];
        mean[n] = sum / C;
        for (int c = 0; c < C; c++) squares += (row[c] - mean[n]) * (row[c] - mean[n]);
        scale[n] = 1 / sqrtf(squares / C + 1e-5f);
        for (int c = 0; c < C; c++) y[n * C + c] = (row[c] - mean[n]) * scale[n] * w[c] + b[c];
    }
}

void layernorm_backward(float *dx, float *dw, float *db, float *dy, float *x, float *w,
                        float *mean, float *scale, int B, int T, int C) {
    for (int n = 0; n < B * T; n++) {
        float ones = 0, along = 0, *up = dy + n * C, *row = x + n * C;
        for (int c = 0; c < C; c++) {
            ones += up[c] * w[c] / C;
            along += up[c] * w[c] * (row[c] - mean[n]) * scale[n] / C;
        }
        for (int c = 0; c < C; c++) {
            float xhat = (row[c] - mean[n]) * scale[n];
            dx[n * C + c] += (up[c] * w[c] - ones - xhat * along) * scale[n];
            dw[c] += up[c] * xhat;
            db[c] += up[c];
        }
    }
}

static float gate(float x) { return tanhf(0.7978845608f * (x + 0.044715f * x * x * x)); }

void gelu_forward(float *y, float *x, int count) {
    for (int i = 0; i < count; i++) y[i] = x[i] * (1 + gate(x[i])) / 2;
}

void gelu_backward(float *dx, float *x, float *dy, int count) {
    for (int i = 0; i < count; i++) {
        float t = gate(x[i]), slope = 0.7978845608f * (1 + 0.134145f * x[i] * x[i]);
        dx[i] += dy[i] * ((1 + t) / 2 + x[i] / 2 * (1 - t * t) * slope);
    }
}

#ifndef TESTING
#error "main is not wanted"
#endif
"""
RIGHT = [
    ("matmul", "forward"),
    ("softmax", "forward"),
    ("attention", "forward"),
    ("attention", "backward"),
    ("layer_norm", "forward"),
    ("layer_norm", "backward"),
    ("gelu", "forward"),
    ("gelu", "backward"),
]
CROSS_ENTROPY = ("cross_entropy", "loss and gradient")


def compiler() -> bool:
    """Whether there is a cc that knows OpenMP."""
    command = ["cc", "-fopenmp", "-x", "c", "-c", "/dev/null", "-o", "/dev/null"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=LIMIT)
        return done.returncode == 0
    except FileNotFoundError:
        return False


needs_compiler = pytest.mark.skipif(not compiler(), reason="there is no cc with OpenMP here")


def started(folder: Path) -> Process:
    options = {"threads": 2, "folder": str(folder)}
    asked = {"source": llmc_kernels.__name__, "seed": 0, "options": options}
    return Process("llmc", "benchmarks.harness.rungs:Rungs", asked, 2)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process]:
    folder = tmp_path_factory.mktemp("llm.c")
    (folder / llmc_kernels.SOURCE).write_text(KERNELS)
    process = started(folder)
    yield process
    process.close()


def verdict(worker: Process, operation: str, direction: str) -> str | None:
    worker.ask("begin", operation=operation, direction=direction, shape="awkward")
    return worker.ask("open", name="llm.c", threads=2)["wrong"]


@needs_compiler
@pytest.mark.parametrize(("operation", "direction"), RIGHT)
def test_functions_are_called_with_llmc_s_signatures(
    worker: Process, operation: str, direction: str
) -> None:
    assert verdict(worker, operation, direction) is None


@needs_compiler
def test_cross_entropy_is_wrong_only_where_a_probability_underflows(worker: Process) -> None:
    wrong = verdict(worker, *CROSS_ENTROPY)
    assert wrong is not None
    assert wrong.startswith("losses[")
    assert wrong.endswith("2 of 101 elements are wrong")


@needs_compiler
def test_it_says_how_it_was_compiled(worker: Process) -> None:
    about = worker.ask("about")
    assert about["threads"] == 2
    assert about["compiler"]


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_all_that_is_offered_is_tested(operation: str) -> None:
    found = [(operation, way) for rung in llmc_kernels.rungs(operation) for way in rung.runners]
    assert found == [case for case in [*RIGHT, CROSS_ENTROPY] if case[0] == operation]


def test_a_folder_without_llmc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^llm.c: .*train_gpt2.c does not exist$"):
        llmc_kernels.set_up(1, str(tmp_path))


def test_a_machine_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / llmc_kernels.SOURCE).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"^llm.c: there is no C compiler, cc$"):
        llmc_kernels.set_up(1, str(tmp_path))


@needs_compiler
def test_the_first_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    (tmp_path / llmc_kernels.SOURCE).write_text("int two;\n#error it is broken\n#error twice\n")
    with pytest.raises(OSError, match=r"^llm.c: train_gpt2.c:2:2: error: .*it is broken"):
        llmc_kernels.set_up(1, str(tmp_path))


@needs_compiler
def test_a_missing_function_is_named(tmp_path: Path) -> None:
    (tmp_path / llmc_kernels.SOURCE).write_text("void matmul_forward(void) {}\n")
    process = started(tmp_path)
    try:
        with pytest.raises(WorkerError, match="has no softmax_forward"):
            process.ask("about")
    finally:
        process.close()
