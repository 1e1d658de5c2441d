"""Writing whole or not at all, tables, fingerprints, records and the features' two files."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT

import config
from pipeline.dataset import list_images, name_problem, read_features
from pipeline.machinery import files, records
from pipeline.machinery.errors import UserError


def test_whole_leaves_the_old_file_where_the_writer_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_whole_shows_nothing_before_the_end(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with files.atomic_write(path) as temporary:
        temporary.write_text("all")
        assert not path.exists() and temporary.parent == path.parent and temporary.suffix == ".csv"
    assert path.read_text() == "all" and [p.name for p in path.parent.iterdir()] == ["a.csv"]


def test_list_images_goes_into_folders_and_leaves_out_what_is_no_image(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/d/가 방, 1.webp", ".hidden.jpg", ".git/x.jpg", "notes.txt", "a/Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a/c.png", "a/d/가 방, 1.webp", "b.JPG"]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "a\u2028b.jpg", "a\tb.jpg", "\udcff.jpg"])
def test_name_problem_of_names_that_do_not_fit_on_a_line(name):
    assert "rename it" in name_problem(name)


@pytest.mark.parametrize("name", ["a b,c.jpg", "-a.jpg", "=1+1.jpg", '가방 "1".jpg', "👜.jpg", "x/y.jpg"])
def test_name_problem_of_names_that_are_fine(name):
    assert name_problem(name) is None


def test_csv_round_trip_with_cells_that_need_quotes(root):
    rows = [["a,b.jpg", "1"], ['say "x".jpg', "2"], ["가.jpg", ""]]
    path = root / "data" / "x" / "t.csv"
    files.write_csv(path, ["image", "label"], rows)
    assert [[r["image"], r["label"]] for r in files.read_csv(path, ["image", "label"], "00.py")] == rows
    assert path.read_bytes().count(b"\r") == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"image\na\n", "lacks the column label"), (b"image,label\na\n", "row 2"), (b"\xff\xfe\x00", "can't be read")],
)
def test_damaged_csv_names_the_file_and_the_stage(root, content, said):
    path = root / "data" / "x" / "t.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        files.read_csv(path, ["image", "label"], "00.make_labels_true.py")
    assert "data/x/t.csv" in str(error.value) and "00.make_labels_true.py" in str(error.value)


def test_missing_file_is_said_as_the_design_says(root):
    with pytest.raises(UserError) as error:
        files.require(root / "data" / "x" / "features.npy", "03.feature_extraction.py")
    assert str(error.value) == "data/x/features.npy not found: run 03.feature_extraction.py first"


def test_json_writes_numpy_values_and_null_for_nan(root):
    path = root / "data" / "a.json"
    files.write_json(path, {"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": (1, "가")})
    assert files.read_json(path, "x") == {"a": 0.5, "b": [0, 1], "c": None, "d": [1, "가"]}


def test_lines_keep_every_separator_but_the_newline(root):
    path = root / "data" / "names.txt"
    files.write_lines(path, ["a\u2028b", "c d"])
    assert files.read_lines(path, "x") == ["a\u2028b", "c d"]
    with pytest.raises(UserError, match="one line"):
        files.write_lines(path, ["a\nb"])
    assert files.read_lines(path, "x") == ["a\u2028b", "c d"]


def write_features(root, features, names):
    folder = root / "data" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", features)
    (folder / "img_paths.txt").write_text("".join(name + "\n" for name in names), encoding="utf-8")


def test_read_features(root):
    write_features(root, np.eye(2, 3, dtype=np.float32), ["a.jpg", "b.jpg"])
    features, img_paths = read_features("x")
    assert features.tolist() == [[1, 0, 0], [0, 1, 0]] and img_paths == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("features", "names", "said"),
    [
        (np.zeros((2, 3), np.float32), ["a"], "2 rows .* 1 lines"),
        (np.zeros((2, 3), np.float32), ["a", "a"], "a twice"),
        (np.zeros(2, np.float32), ["a", "b"], "shape"),
        (np.zeros((2, 3), np.int64), ["a", "b"], "int64"),
        (np.zeros((0, 3), np.float32), [], "no image"),
    ],
)
def test_features_that_do_not_fit_together(root, features, names, said):
    write_features(root, features, names)
    with pytest.raises(UserError, match=said):
        read_features("x")


def test_object_arrays_are_refused_and_not_executed(root):
    path = root / "data" / "x" / "features.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        files.read_npy(path, "03.feature_extraction.py")


def test_fingerprints_follow_content_not_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    before = records.fingerprint_file(path)
    os.utime(path, (0, 0))
    assert records.fingerprint_file(path) == before and len(before) == 32
    path.write_bytes(b"y")
    assert records.fingerprint_file(path) != before
    assert records.fingerprint_file(tmp_path / "none") == "missing"


def test_record_is_up_to_date_until_input_setting_or_output_changes(root):
    out, record = root / "data" / "out.txt", root / "data" / "out.json"

    def origin(inputs="1"):
        return records.made_from(__file__, {"in": inputs}, ["LABEL_FROM"])

    assert not records.up_to_date(record, origin())
    files.write_lines(out, ["a"])
    records.write_record(record, origin(), [out], n=1)
    assert records.up_to_date(record, origin()) and records.recorded(out, record)["n"] == 1
    assert not records.up_to_date(record, origin("2"))
    config.LABEL_FROM = "folder"
    assert not records.up_to_date(record, origin())
    config.LABEL_FROM = "name"
    config.REDO = True
    assert not records.up_to_date(record, origin())
    config.REDO = False
    files.write_lines(out, ["b"])
    assert not records.up_to_date(record, origin()) and records.recorded(out, record) is None


def test_check_in_step_names_both_files_and_the_stage(root):
    source, out, record = (root / "data" / name for name in ("in.txt", "out.txt", "out.json"))
    files.write_lines(source, ["1"])
    files.write_lines(out, ["a"])
    origin = records.made_from(__file__, {"data/in.txt": records.fingerprint_file(source)}, [])
    records.write_record(record, origin, [out])
    records.check_in_step(out, record, [source], "04.py")
    files.write_lines(source, ["2"])
    with pytest.raises(UserError, match=r"data/out.txt was made from another data/in.txt .* run 04.py"):
        records.check_in_step(out, record, [source], "04.py")


def test_what_a_killed_write_left_is_gone_after_the_next(root):
    path = root / "data" / "x" / "record.json"
    killed = (
        "import os, pathlib; from pipeline.machinery import files\n"
        f"with files.atomic_write(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", killed], cwd=PROJECT, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)})
    assert [p.read_text() for p in path.parent.iterdir()] == ["half"]
    files.write_json(path, {"a": 1})
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


ROOMS = {
    "stage.py": (
        '"""A stage.\n\nReads: nothing\nWrites: data/out.txt\nConfig: REDO\n"""\n'
        "from pipeline.machinery import files, paths, records, run\nfrom pipeline.rooms import near\n\n\n"
        "def main():\n"
        "    out, record = paths.root() / 'data' / 'out.txt', paths.root() / 'data' / 'out.json'\n"
        "    origin = records.made_from(__file__, {}, [])\n"
        "    if records.up_to_date(record, origin):\n"
        "        run.unchanged([out])\n"
        "        return\n"
        "    files.write_lines(out, [near.value()])\n"
        "    records.write_record(record, origin, [out])\n"
        "    print('done')\n\n\n"
        "if __name__ == '__main__':\n    run.run(main, __doc__)\n"
    ),
    "pipeline/rooms/__init__.py": "",
    "pipeline/rooms/near.py": "def value():\n    from .far import CONSTANT\n\n    return CONSTANT\n",
    "pipeline/rooms/far.py": '"""Far."""\nfrom pipeline import rooms\n\nCONSTANT = 1  # one\n',
    "pipeline/rooms/other.py": "CONSTANT = 1\n",
}


@pytest.fixture
def project(tmp_path):
    """A copy of the project with a stage of its own, whose constant stands in a module two imports away."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    shutil.copy(PROJECT / "config.py", folder)
    for name, content in ROOMS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def said_by_stage(project):
    environment = {name: value for name, value in os.environ.items() if name != "IMAGE_CLUSTER_ROOT"}
    done = subprocess.run([sys.executable, "stage.py"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(":")[0].strip()


def replace_in(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_stage_runs_again_when_a_module_two_imports_away_has_changed(project):
    assert [said_by_stage(project), said_by_stage(project)] == ["done", "unchanged"]
    replace_in(project / "pipeline" / "rooms" / "far.py", "CONSTANT = 1", "CONSTANT = 2")
    assert said_by_stage(project) == "done"
    assert (project / "data" / "out.txt").read_text() == "2\n"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pipeline/rooms/far.py", "# one", "# the first number"),
        ("pipeline/rooms/far.py", '"""Far."""', '"""Two imports away."""'),
        ("stage.py", "A stage.", "The stage."),
        ("pipeline/rooms/other.py", "1", "2"),
        ("config.py", "# ---- every stage", "# ---- all stages"),
    ],
    ids=["comment", "docstring", "docstring of the stage", "module that it does not import", "config.py"],
)
def test_a_stage_does_not_run_again_when_nothing_that_decides_has_changed(project, name, old, new):
    assert said_by_stage(project) == "done"
    replace_in(project / name, old, new)
    assert said_by_stage(project) == "unchanged"
