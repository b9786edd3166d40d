"""The rules of the architecture (see README.md), checked by reading the source and by running it.

Rules 8 and 9, and that both forms of rule 4 are right, are tested in ops/test_every_operation.py;
rule 10 in test_config.py and training/test_trainer.py too. The linter checks rule 11.
"""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.architecture import (
    OPERATIONS,
    PACKAGE,
    TESTS,
    Watch,
    count_operations,
    find_cycle,
    flowing,
    functions,
    import_graph,
    imports,
    parsed,
    quotes,
    source,
)

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES, Case

GRAPH = import_graph(PACKAGE)
# The packages and root modules, from the lowest to the highest; each imports only lower ones. In
# study, so do the packages in it.
LAYERS = [
    *(
        "hooks",
        "machine",
        "config",
        "ops",
        "storage",
        "text",
        "compiled",
        "backend",
        "model",
        "training",
    ),
    *(
        "gradcheck",
        "study.source",
        "study.proof",
        "study.render",
        "study",
        "learn",
        "lecture",
        "cli",
    ),
    "__main__",
]
# Packages in which every module has a test file of the same name.
MIRRORED = [
    *("", "ops", "storage", "text", "text/tokenizers", "model", "compiled", "compiled/kernels"),
    *("compiled/simd", "training", "training/ranks", "gradcheck", "cli"),
    *("study/source", "study/proof", "study/render", "learn"),
]

# A model with the parts that GPT-2 does not have.
NEWER: dict[str, Any] = {
    "n_embd": 18, "n_inner": 5, "norm": "rms_norm", "positions": "rotary_pairs",
    "qk_norm": True, "activation": "swiglu", "tied_head": False, "logit_soft_cap": 5.0,
}  # fmt: skip
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


def file_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# 1. Mirror


@pytest.mark.parametrize("folder", MIRRORED)
def test_every_module_has_a_test_file_of_its_name(folder: str) -> None:
    modules = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__", "__main__"}
    if folder == "cli":
        modules -= {"gradcheck"}  # Its flags are tested in gradcheck/test_command.py.
    tested = {path.stem.removeprefix("test_") for path in (TESTS / folder).glob("test_*.py")}
    assert modules <= tested


def test_every_operation_is_exported_and_has_a_compiled_twin() -> None:
    assert sorted(tg.ops.__all__) == OPERATIONS
    assert {*OPERATIONS} <= {*tg.kernels.__all__}


# 2. Layers


@every_operation
def test_operations_import_numpy_and_each_other_only(operation: str) -> None:
    allowed = ("numpy", "typing", "typing.Any", "tinygpt_np.ops")
    for module in imports(PACKAGE / "ops" / f"{operation}.py"):
        assert module in allowed or module.startswith("tinygpt_np.ops."), module


def layer_of(module: str) -> int:
    parts = module.split(".")
    return LAYERS.index(".".join(parts[1:3]) if "study." in module else parts[1])


def test_nothing_imports_upwards_and_no_modules_import_each_other() -> None:
    assert len(GRAPH) > 50
    for importer, imported in GRAPH.items():
        for module in imported:
            assert layer_of(module) <= layer_of(importer), f"{importer} imports {module}"
    assert find_cycle(GRAPH) == []


def test_only_the_backend_imports_modules_by_a_name_that_is_computed() -> None:
    dynamic = re.compile(r"import_module\((?!\"mpi4py\.)|__import__\(|runpy")
    found = {file_of(path) for path in PACKAGE.rglob("*.py") if dynamic.search(path.read_text())}
    # __init__.py imports what it exports on first use, and the lecture its own chapters.
    assert found == {"__init__.py", "backend.py", "lecture/__init__.py"}


STATEMENTS = [
    "import tinygpt_np.high",
    "from tinygpt_np import high",
    "from tinygpt_np.high import name",
    "def f():\n    from tinygpt_np.high import name",
    "if TYPE_CHECKING:\n    from tinygpt_np import high",
    'importlib.import_module("tinygpt_np.high")',
    'MODULES = {"name": "tinygpt_np.high"}',
]


def test_every_kind_of_import_and_a_cycle_are_seen(tmp_path: Path) -> None:
    package = tmp_path / "tinygpt_np"
    package.mkdir()
    (package / "high.py").write_text("from tinygpt_np.low0 import name\n")
    for number, statement in enumerate(STATEMENTS):
        (package / f"low{number}.py").write_text(statement + "\n")
    graph = import_graph(package)
    assert {tuple(graph[name]) for name in graph if "low" in name} == {("tinygpt_np.high",)}
    assert set(find_cycle(graph)) == {"tinygpt_np.low0", "tinygpt_np.high"}


def test_kernels_import_only_what_the_compile_cache_watches() -> None:
    # A change elsewhere would not invalidate the cached machine code; see compiled/cache.py.
    for importer, imported in GRAPH.items():
        if importer.startswith(("tinygpt_np.compiled.kernels.", "tinygpt_np.compiled.simd.")):
            packages = {module.split(".")[1] for module in imported}
            assert packages <= {"compiled", "ops", "config"}, importer


# 3. Pairing


@every_operation
def test_a_forward_is_a_straight_line_of_one_operation_that_assigns_each_name_once(
    operation: str,
) -> None:
    flows, taken = flowing(operation), list(parsed(operation).arguments)
    for line in parsed(operation).statements:
        assert isinstance(line.node, ast.Assign), line.text
        assert not {*line.sets} & {*taken}, f"a name is set twice in: {line.text}"
        taken += line.sets
        if {*line.sets} & flows:
            assert count_operations(line.node.value) == 1, line.text


@every_operation
def test_a_backward_quotes_the_forward_in_reverse_with_the_gradients_of_what_a_line_reads(
    operation: str,
) -> None:
    flows = flowing(operation)
    lines = [line for line in parsed(operation).statements if {*line.sets} & flows]
    expected = [(line.text, {f"d{name}" for name in line.reads & flows}) for line in lines[::-1]]
    assert quotes(operation) == expected


# 4. Steps, then closed form


def test_a_closed_form_follows_its_steps() -> None:
    found = {name: functions(source("ops", f"{name}.py")) for name in OPERATIONS}
    closed = {name: each for name, each in found.items() if "backward_steps" in each}
    names = {"softmax", "cross_entropy", "layer_norm", "rms_norm", "relu_squared"}
    assert {*closed} == names
    for each in closed.values():
        assert each["forward"].lineno < each["backward_steps"].lineno < each["backward"].lineno


# 5. Gradient names and 7. shapes, while running


def gradients_of_names(forward: dict[str, Any], backward: dict[str, Any]) -> set[str]:
    """Return the names whose gradients a backward has, which must have their shapes."""
    gradients = {name[1:] for name in backward if name.startswith("d") and name[1:] in forward}
    for name in gradients:
        assert backward[f"d{name}"].shape == forward[name].shape, name
    return gradients


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_shape_comment_of_an_operation_is_true_and_gradients_have_the_shapes_of_names(
    case: Case,
) -> None:
    doutput = np.random.default_rng(0).standard_normal(case.forward().shape)
    watch = Watch("ops", f"{case.operation}.py")
    watch.run(lambda: [case.gradients(backward, doutput) for backward in case.backwards()])
    assert watch.checked >= 2
    for backward in case.backwards():
        arrays = watch.arrays[backward.__name__]
        assert gradients_of_names(watch.arrays["forward"], arrays) >= {*case.differentiable}


@pytest.mark.parametrize("newer", [{}, NEWER], ids=["GPT-2", "newer"])
def test_every_shape_comment_of_the_model_is_true_and_gradients_have_the_shapes_of_names(
    newer: dict[str, Any],
) -> None:
    config = tg.GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 5))
    model, watch = tg.GPT(replace(config, **newer)), Watch("model", "gpt.py")
    watch.run(lambda: model.loss_and_grads(tokens, tokens))
    assert watch.checked >= 50
    for prefix in ("", "block_", *(["heads_"] if newer else [])):
        forward, backward = (watch.arrays[f"{prefix}{kind}"] for kind in ("forward", "backward"))
        named = {name for name in backward if name.startswith("d")}
        assert {f"d{name}" for name in gradients_of_names(forward, backward)} == named
        assert len(named) >= (3 if prefix == "heads_" else 6)


# 6. Reversal


@pytest.mark.parametrize("prefix", ["", "block_", "heads_"])
def test_the_backward_of_the_model_is_its_forward_in_reverse(prefix: str) -> None:
    found = functions(source("model", "gpt.py"))
    forward, backward = (
        re.findall(rf"(\w+)[._]{kind}\(", "\n".join(map(ast.unparse, found[prefix + kind].body)))
        for kind in ("forward", "backward")
    )
    assert len(forward) >= (2 if prefix == "heads_" else 6)
    assert backward == forward[::-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("y = x @ x.T", "no shape for y"),
        ("y = x @ x.T  # (N, C)", "is (2, 2); the letters are"),
        ("y = x @ x.T  # (rows)", "(rows) is not a shape"),
    ],
)
def test_a_missing_or_wrong_shape_is_seen(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "planted.py"
    path.write_text(f"def forward(x):\n    x = 1 * x  # (N, C)\n    {line}\n    return y\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with pytest.raises(AssertionError, match=re.escape(message)):
        Watch(str(path)).run(lambda: names["forward"](np.ones((2, 3))))


@pytest.mark.parametrize("path", [*(f"ops/{name}.py" for name in OPERATIONS), "model/gpt.py"])
def test_no_backward_reshapes(path: str) -> None:
    for name, function in functions(source(path)).items():
        if "backward" in name:
            assert "reshape" not in ast.unparse(function), f"{path}: {name}"


# 8. Complex-safe, 10. One generator per purpose, and the length of docstrings


def test_nothing_is_conjugated_and_docstrings_fit_a_screen() -> None:
    for operation in OPERATIONS:
        text = source("ops", f"{operation}.py")
        # The complex step differentiates analytic functions, and a conjugate is not one.
        assert "conj" not in text
        assert len((ast.get_docstring(ast.parse(text)) or "").splitlines()) in range(1, 26)


def test_generators_are_made_in_one_place() -> None:
    paths = (path for path in PACKAGE.rglob("*.py") if "lecture" not in path.parts)
    found = {file_of(path) for path in paths if "default_rng" in path.read_text(encoding="utf-8")}
    # Sampling without a seed takes a random one.
    assert found == {"config.py", "model/sampling.py"}


# Names that were used for different things in different modules.
ONCE = ("Engine", "Team", "Task", "Trial", "Entrant", "Row", "Measured")


def test_a_class_name_means_one_thing() -> None:
    paths = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "benchmarks").rglob("*.py")]
    names = re.findall(r"^ *class (\w+)", "\n".join(path.read_text() for path in paths), re.M)
    assert [name for name in ONCE if names.count(name) > 1] == []
