"""The docstrings of the stages are a contract: checked against each other, config.py and the documents."""

import ast
import re

import pytest
from conftest import PROJECT

from pipeline.machinery import records, settings

STAGES = (
    "make_sample_images.py",
    "make_background_network.py",
    "make_start_network.py",
    "00.make_labels_true.py",
    "01.img_preprocess.py",
    "make_training_image_folders.py",
    "02.feature_network_fine_tuning.py",
    "03.feature_extraction.py",
    "04.clustering_som.py",
    "05.evaluation.py",
    "06.visualization.py",
)


def docstring(stage: str) -> str:
    return ast.get_docstring(ast.parse((PROJECT / stage).read_text(encoding="utf-8")))


def paths(entry: str) -> list[tuple[str, str]]:
    """`a/D/x.csv, raw_img/D/ (yours)` -> [("a/D/x.csv", ""), ("raw_img/D/", "yours")], with T taken as D."""
    items = re.findall(r"([^\s,()]+)(?:\s*\(([^)]*)\))?", entry)
    return [(re.sub(r"/T/", "/D/", path), note) for path, note in items]


def covers(written: str, read: str) -> bool:
    """Whether the file or folder `read` is `written` or lies in it."""
    return read == written or (written.endswith("/") and read.startswith(written))


@pytest.mark.parametrize("stage", STAGES)
def test_docstring_has_commands_and_the_three_entries(stage):
    doc = docstring(stage)
    assert f"python {stage}" in doc
    assert set(settings.contract(doc)) == {"Reads", "Writes", "Config"}


BY_MACHINERY = {"N_JOBS", "REDO", "SCHEDULER", "SCHEDULER_TLS"}


@pytest.mark.parametrize("stage", STAGES)
def test_config_entry_names_exactly_the_settings_that_script_and_rooms_use(stage):
    named = re.findall(r"[A-Z][A-Z0-9_]+", settings.contract(docstring(stage))["Config"])
    assert len(set(named)) == len(named)
    code = "\n".join((PROJECT / path).read_text(encoding="utf-8") for path in records.code_paths(PROJECT / stage))
    used = set(re.findall(r"\bconfig\.([A-Z][A-Z0-9_]+)", code))
    # every stage runs on N_JOBS cores, and again with REDO, and some on a cluster: the machinery reads these
    assert set(named) | BY_MACHINERY == used | BY_MACHINERY


@pytest.mark.parametrize("stage", STAGES)
def test_a_record_takes_what_decides_and_nothing_that_only_changes_the_time(stage):
    assert not BY_MACHINERY & set(settings.deciding(docstring(stage)))


def test_every_file_read_has_an_earlier_writer():
    written = []
    for stage in STAGES:
        entries = settings.contract(docstring(stage))
        for path, note in paths(entries["Reads"]):
            known = (
                "yours" in note
                or path in ("nothing", "config.py", "raw_img/D/")
                or any(covers(w, path) for w in written)
            )
            assert known, f"{stage} reads {path}, which no earlier stage writes"
        written += [path for path, _ in paths(entries["Writes"])]


def test_no_file_has_two_writers():
    writers = {}
    for stage in STAGES:
        for path, _ in paths(settings.contract(docstring(stage))["Writes"]):
            assert path not in writers, f"{path} is written by {writers[path]} and by {stage}"
            writers[path] = stage


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_readmes_name_every_stage(name):
    readme = (PROJECT / name).read_text(encoding="utf-8")
    assert [stage for stage in STAGES if stage not in readme] == []


def test_the_list_of_files_describes_every_file_written():
    described = (PROJECT / "doc" / "files.md").read_text(encoding="utf-8")
    for stage in STAGES:
        for path, _ in paths(settings.contract(docstring(stage))["Writes"]):
            name = path.rstrip("/").split("/")[-1]
            assert path in described or name in described, f"doc/files.md lacks {path}, which {stage} writes"


def test_every_document_that_a_document_links_to_exists():
    documents = [*PROJECT.glob("*.md"), *(PROJECT / "doc").glob("*.md"), PROJECT / "original_src" / "README.md"]
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_setting_is_used_by_some_stage():
    sources = [*PROJECT.glob("*.py"), *(PROJECT / "pipeline").rglob("*.py"), *(PROJECT / "original_src").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    unused = [name for name in settings.names() if not re.search(rf'\bconfig\.{name}\b|value\("{name}"\)', text)]
    assert unused == []


def test_every_stage_has_the_guard_and_does_nothing_on_import():
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If, ast.Expr)
    for stage in STAGES:
        body = ast.parse((PROJECT / stage).read_text(encoding="utf-8")).body
        assert re.fullmatch(r"if __name__ == '__main__':\n    \w+\.run\(main, __doc__\)", ast.unparse(body[-1])), stage
        assert all(isinstance(node, allowed) for node in body)
        # the one bare expression is the docstring
        assert sum(isinstance(node, ast.Expr) for node in body) == 1, stage
