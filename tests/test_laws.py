"""The rules of the architecture (see README.md), checked by reading the source and by running it.

Rules 8 and 9, and that the two forms of rule 4 agree, are tested in ops/test_every_operation.py;
rule 10 in test_config.py and training/test_trainer.py too. The linter checks rule 11.
"""

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.architecture import (
    OPERATIONS,
    PACKAGE,
    TESTS,
    Watch,
    calls,
    class_names,
    find_cycle,
    flowing,
    forward_lines,
    functions,
    import_graph,
    imports,
    imports_dynamically,
    names_in,
    quotes,
    source,
)

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES, Case

GRAPH = import_graph(PACKAGE)
# The packages and root modules, from the lowest to the highest; each imports only lower ones.
LAYERS = [
    *("machine", "config", "ops", "storage", "text", "compiled", "backend", "model", "training"),
    *("gradcheck", "study", "lecture", "cli", "__main__"),
]
# Packages in which every module has a test file of the same name.
MIRRORED = [
    *("", "storage", "text", "text/tokenizers", "model", "compiled", "compiled/kernels"),
    *(
        "compiled/simd",
        "training",
        "gradcheck",
        "study/source",
        "study/proof",
        "study/render",
        "cli",
    ),
]

every_operation = pytest.mark.parametrize("operation", OPERATIONS)


# 1. Mirror


@every_operation
def test_every_operation_has_a_test_file_of_its_name(operation: str) -> None:
    assert (TESTS / "ops" / f"test_{operation}.py").exists()


@pytest.mark.parametrize("folder", MIRRORED)
def test_every_module_has_a_test_file_of_its_name(folder: str) -> None:
    modules = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__", "__main__"}
    if folder == "cli":
        modules -= {"gradcheck"}  # Its flags are tested in gradcheck/test_command.py.
    tested = {path.stem.removeprefix("test_") for path in (TESTS / folder).glob("test_*.py")}
    assert modules <= tested


def test_every_operation_is_exported() -> None:
    assert sorted(tg.ops.__all__) == OPERATIONS


@every_operation
def test_every_operation_has_a_compiled_twin(operation: str) -> None:
    twin, original = getattr(tg.kernels, operation), getattr(tg.ops, operation)
    for name in ("forward", "backward"):
        compiled, numpy = getattr(twin, name), getattr(original, name)
        assert inspect.signature(compiled) == inspect.signature(numpy)


# 2. Layers


@every_operation
def test_operations_import_numpy_and_each_other_only(operation: str) -> None:
    allowed = ("numpy", "typing", "typing.Any", "tinygpt_np.ops")
    for module in imports(PACKAGE / "ops" / f"{operation}.py"):
        assert module in allowed or module.startswith("tinygpt_np.ops."), module


def test_nothing_imports_upwards() -> None:
    for importer, imported in GRAPH.items():
        for module in imported:
            low, high = (LAYERS.index(name.split(".")[1]) for name in (module, importer))
            assert low <= high, f"{importer} imports {module}"


def test_the_packages_of_study_import_downwards() -> None:
    layers, prefix = ["source", "proof", "render"], "tinygpt_np.study."
    graph = {name: found for name, found in import_graph(PACKAGE).items() if prefix in name}
    assert len(graph) > 15
    for importer, imported in graph.items():
        for module in (name for name in imported if prefix in name):
            low, high = (layers.index(name.split(".")[2]) for name in (module, importer))
            assert low <= high, f"{importer} imports {module}"


def test_no_modules_import_each_other() -> None:
    assert len(GRAPH) > 50
    assert find_cycle(GRAPH) == []


def test_few_modules_are_outside_the_packages() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == {"backend", "config", "machine"}


def test_only_the_backend_imports_modules_by_a_name_that_is_computed() -> None:
    # __init__.py imports what it exports on first use, and the lecture its own chapters.
    expected = {"__init__.py", "backend.py", "lecture/__init__.py"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if imports_dynamically(path)
    }
    assert found == expected


@pytest.mark.parametrize(
    "statement",
    [
        "import tinygpt_np.high",
        "from tinygpt_np import high",
        "from tinygpt_np.high import name",
        "def f():\n    from tinygpt_np.high import name",
        "if TYPE_CHECKING:\n    from tinygpt_np import high",
        'importlib.import_module("tinygpt_np.high")',
        'MODULES = {"name": "tinygpt_np.high"}',
    ],
)
def test_every_kind_of_import_is_seen(tmp_path: Path, statement: str) -> None:
    package = tmp_path / "tinygpt_np"
    package.mkdir()
    (package / "low.py").write_text(statement + "\n")
    (package / "high.py").write_text("from tinygpt_np.low import name\n")
    graph = import_graph(package)
    assert graph["tinygpt_np.low"] == {"tinygpt_np.high"}
    assert set(find_cycle(graph)) == {"tinygpt_np.low", "tinygpt_np.high"}


def test_kernels_import_only_what_the_compile_cache_watches() -> None:
    # A change elsewhere would not invalidate the cached machine code; see compiled/cache.py.
    for importer, imported in GRAPH.items():
        if importer.startswith(("tinygpt_np.compiled.kernels.", "tinygpt_np.compiled.simd.")):
            packages = {module.split(".")[1] for module in imported}
            assert packages <= {"compiled", "ops", "config"}, importer


# 3. Pairing


@every_operation
def test_a_forward_is_a_straight_line_that_assigns_each_name_once(operation: str) -> None:
    text = source("ops", f"{operation}.py")
    function = functions(text)["forward"]
    taken = [argument.arg for argument in function.args.args]
    for line in forward_lines(operation):
        for name in line.sets:
            assert name not in taken, f"{operation}: {name} is set twice"
            taken.append(name)
    assert isinstance(function.body[-1], ast.Return)


@every_operation
def test_a_forward_does_one_operation_per_statement(operation: str) -> None:
    flows = flowing(operation)
    for line in forward_lines(operation):
        if set(line.sets) & flows:
            assert line.operations == 1, f"{operation}: {line.operations} in: {line.text}"


@every_operation
def test_a_backward_quotes_the_forward_in_reverse(operation: str) -> None:
    flows = flowing(operation)
    expected = [line.text for line in forward_lines(operation) if set(line.sets) & flows]
    assert [quote for quote, _ in quotes(operation)] == expected[::-1]


@every_operation
def test_each_quote_is_followed_by_the_gradients_of_what_the_line_reads(operation: str) -> None:
    flows = flowing(operation)
    lines = {line.text: line for line in forward_lines(operation)}
    for quote, gradients in quotes(operation):
        assert gradients == {f"d{name}" for name in lines[quote].reads & flows}, quote


# 4. Steps, then closed form


@pytest.mark.parametrize("operation", ["softmax", "cross_entropy", "layer_norm"])
def test_a_closed_form_follows_its_steps(operation: str) -> None:
    found = functions(source("ops", f"{operation}.py"))
    assert found["forward"].lineno < found["backward_steps"].lineno < found["backward"].lineno


# 5. Gradient names and 7. shapes, while running


@cache
def watch(name: str) -> Watch:
    """Trace the forward and the backwards of a case."""
    case = next(case for case in CASES if case.name == name)
    doutput = np.random.default_rng(0).standard_normal(case.forward().shape)

    def job() -> None:
        for backward in case.backwards():
            case.gradients(backward, doutput)

    return Watch("ops", f"{case.operation}.py").run(job)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_shape_comment_of_an_operation_is_true(case: Case) -> None:
    assert watch(case.name).checked >= 2


@cache
def watch_model() -> Watch:
    config = tg.GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, bias=True)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 5))
    model = tg.GPT(config)
    return Watch("model", "gpt.py").run(lambda: model.loss_and_grads(tokens, tokens))


def test_every_shape_comment_of_the_model_is_true() -> None:
    assert watch_model().checked >= 50


@pytest.mark.parametrize("prefix", ["", "block_"])
def test_every_gradient_in_the_model_has_a_name_and_its_shape(prefix: str) -> None:
    arrays = watch_model().arrays
    forward, backward = arrays[f"{prefix}forward"], arrays[f"{prefix}backward"]
    gradients = [name for name in backward if name.startswith("d")]
    assert len(gradients) >= 6
    for name in gradients:
        assert backward[name].shape == forward[name[1:]].shape, name


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_gradient_has_the_shape_of_its_name(case: Case) -> None:
    arrays = watch(case.name).arrays
    for function, found in arrays.items():
        if "backward" not in function:
            continue
        gradients = {
            n: g for n, g in found.items() if n.startswith("d") and n[1:] in arrays["forward"]
        }
        assert set(gradients) >= {f"d{name}" for name in case.differentiable}
        for name, gradient in gradients.items():
            assert gradient.shape == arrays["forward"][name[1:]].shape, f"{function}: {name}"


@every_operation
def test_a_name_with_d_in_a_backward_is_the_gradient_of_a_name(operation: str) -> None:
    found = functions(source("ops", f"{operation}.py"))
    forward = names_in(found["forward"]) | {arg.arg for arg in found["forward"].args.args}
    for name in ("backward", "backward_steps"):
        if name in found:
            arguments = {arg.arg for arg in found[name].args.args}
            stored = {
                part.id
                for part in ast.walk(found[name])
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
            for gradient in {n for n in stored | arguments if n.startswith("d")}:
                assert gradient[1:] in forward, f"{operation}.{name}: {gradient} of what?"


# 6. Reversal


@pytest.mark.parametrize("prefix", ["", "block_"])
def test_the_backward_of_the_model_is_its_forward_in_reverse(prefix: str) -> None:
    found = functions(source("model", "gpt.py"))
    forward = calls(found[f"{prefix}forward"], "forward")
    assert len(forward) >= 6
    assert calls(found[f"{prefix}backward"], "backward") == forward[::-1]


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


# 7. Shapes (the tests above check that each is given and true)


@pytest.mark.parametrize("path", [*(f"ops/{name}.py" for name in OPERATIONS), "model/gpt.py"])
def test_no_backward_reshapes(path: str) -> None:
    for name, function in functions(source(path)).items():
        if "backward" in name:
            assert "reshape" not in ast.unparse(function), f"{path}: {name}"


# 8. Complex-safe


@every_operation
def test_nothing_is_conjugated(operation: str) -> None:
    # The complex step differentiates analytic functions, and a conjugate is not one.
    assert "conj" not in source("ops", f"{operation}.py")


# 10. One generator per purpose


def test_generators_are_made_in_one_place() -> None:
    # Sampling without a seed takes a random one.
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "default_rng" in path.read_text(encoding="utf-8") and "lecture" not in path.parts
    }
    assert found == {"config.py", "model/sampling.py"}


# JSON


def test_json_that_is_nested_too_deeply_is_handled_wherever_json_is_read() -> None:
    for path in PACKAGE.rglob("*.py"):
        # A safetensors header has been parsed before, and tiktoken's file is checked by its hash.
        if path.name in ("hugging_face.py", "gpt2.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        handled = {
            call
            for node in ast.walk(tree)
            if isinstance(node, ast.Try)
            and any("RecursionError" in ast.unparse(h.type) for h in node.handlers if h.type)
            for statement in node.body
            for call in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.loads", "json.load"):
                assert node in handled, f"{path.name}, line {node.lineno}"


# Docstrings


def test_a_docstring_of_an_operation_is_at_most_25_lines() -> None:
    for operation in OPERATIONS:
        docstring = ast.get_docstring(ast.parse(source("ops", f"{operation}.py")))
        assert docstring is not None
        assert len(docstring.splitlines()) <= 25, operation


# Class names

# Names that were used for different things in different modules.
ONCE = {"Engine", "Team", "Task", "Trial", "Entrant", "Row", "Measured"}


def test_a_class_name_means_one_thing() -> None:
    names = [*class_names(PACKAGE), *class_names(PACKAGE.parent / "benchmarks")]
    assert [name for name in ONCE if names.count(name) > 1] == []


def test_a_class_that_is_defined_twice_is_seen(tmp_path: Path) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text("class Row:\n    pass\n")
    assert class_names(tmp_path) == ["Row", "Row"]


# Tests


def waits_without_a_limit(path: Path) -> list[str]:
    """Return the calls in a file that wait for a process or a thread without a timeout."""
    found: list[str] = []
    for call in calls_in(path):
        if not isinstance(call.func, ast.Attribute):
            continue
        called, method = ast.unparse(call.func), call.func.attr
        limited = any(keyword.arg == "timeout" for keyword in call.keywords)
        if (
            called in ("subprocess.run", "subprocess.check_output", "subprocess.check_call")
            or method in ("communicate", "urlopen")
            or (method in ("wait", "join", "result") and not call.args)
        ) and not limited:
            found.append(f"{path.name}:{call.lineno} {called}")
    return found


def calls_in(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_a_wait_without_a_limit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "waits.py"
    path.write_text("thread.join()\nthread.join(5)\nsubprocess.run(x)\nprocess.wait(timeout=1)\n")
    assert waits_without_a_limit(path) == ["waits.py:1 thread.join", "waits.py:3 subprocess.run"]


def test_tests_wait_for_processes_and_threads_with_a_limit() -> None:
    found = [wait for path in TESTS.rglob("*.py") for wait in waits_without_a_limit(path)]
    assert found == []
