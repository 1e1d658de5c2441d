"""Random and damaged bytes into every reader: a good value or a clear error, nothing else.

The short form tries some hundred inputs per reader; `python3 run_tests.py -m long tests/test_fuzz.py` tries 20,000.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import corpus
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stages import PROJECT, load_stage

import config
from pipeline.cluster_files import read_corrections
from pipeline.images import MAX_PIXELS, ImageError, read_image
from pipeline.machinery import files, paths, records, weights
from pipeline.machinery import settings as pipeline_settings
from pipeline.machinery.errors import SettingError, UserError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
IMAGES = [*(data for data in corpus.good().values() if len(data) < 60_000), *corpus.bad().values()]


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def npz(save=np.savez, **values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **values)
    return buffer.getvalue()


def weights_file() -> bytes:
    """A weights file as Keras writes it, of two small layers."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as handle:
        for name in ("conv2d", "batch_normalization"):
            group = handle.create_group(f"layers/{name}/vars")
            group.create_dataset("0", data=np.arange(24, dtype=np.float32).reshape(2, 3, 4))
            group.create_dataset("1", data=np.zeros(4, np.float32), chunks=(2,), compression="gzip")
            group.attrs["name"] = name
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of `originals` with bytes replaced, removed, repeated or cut off; or bytes of its own."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        if not data:
            break
        # headers and tables stand at the front of most formats: look there more often
        position = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 700, 10**9]))) - 1))
        length = draw(st.integers(0, 40))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[position] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[position : position + length]
        elif kind == 2:
            data[position:position] = data[position : position + length]
        else:
            data[position : position + 4] = draw(st.binary(min_size=4, max_size=4))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return draw(st.binary(max_size=300)) if draw(st.integers(0, 9)) == 0 else bytes(data)


def in_file(data: bytes, suffix: str, read) -> None:
    """Hand `data` to `read` as a file in a root of its own."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("IMAGE_CLUSTER_ROOT")
        os.environ["IMAGE_CLUSTER_ROOT"] = folder
        try:
            path = Path(folder, f"a{suffix}")
            path.write_bytes(data)
            read(path)
        finally:
            if before is None:
                del os.environ["IMAGE_CLUSTER_ROOT"]
            else:
                os.environ["IMAGE_CLUSTER_ROOT"] = before


def look_at_image(path: Path) -> None:
    try:
        image_bgr, alpha = read_image(path)
    except ImageError as error:
        assert str(error)
        return
    assert image_bgr.dtype == np.uint8 and image_bgr.ndim == 3 and image_bgr.shape[2] == 3
    assert 0 < image_bgr.shape[0] * image_bgr.shape[1] <= MAX_PIXELS
    assert alpha is None or (alpha.shape == image_bgr.shape[:2] and alpha.dtype == np.uint8)


def look_at_table(path: Path) -> None:
    try:
        rows = files.read_csv(path, ["image", "label"], "00.make_labels_true.py")
    except UserError as error:
        assert "run 00.make_labels_true.py" in str(error)
        return
    assert all(isinstance(row["image"], str) and isinstance(row["label"], str) for row in rows)


def look_at_json(path: Path) -> None:
    try:
        assert isinstance(files.read_json(path, "04.clustering_som.py"), dict)
    except UserError as error:
        assert "run 04.clustering_som.py" in str(error)
    assert records.read_record(path) is None or isinstance(records.read_record(path)["made_from"], dict)
    assert records.up_to_date(path, {"stage": "x"}) is False


def look_at_array(path: Path) -> None:
    try:
        values = files.read_npy(path, "03.feature_extraction.py")
    except UserError as error:
        assert "run 03.feature_extraction.py" in str(error)
        return
    assert not values.dtype.hasobject


def look_at_lines(path: Path) -> None:
    try:
        assert all("\n" not in line for line in files.read_lines(path, "03.feature_extraction.py"))
    except UserError as error:
        assert "UTF-8" in str(error)


def look_at_archive(path: Path) -> None:
    try:
        values = files.read_npz(path, "04.clustering_som.py", ("a", "b"))
    except UserError as error:
        assert "run 04.clustering_som.py" in str(error)
        return
    assert not any(value.dtype.hasobject for value in values.values())
    assert sum(value.nbytes for value in values.values()) <= path.stat().st_size


def look_at_weights(path: Path) -> None:
    try:
        weights.check_weights_file(path, "DenseNet")
    except UserError as error:
        assert "weights" in str(error) or "HDF5" in str(error)


def look_at_corrections(path: Path) -> None:
    folder = paths.data_dir("x")
    folder.mkdir(parents=True)
    path.replace(folder / "corrections.csv")
    config.DATASET = "x"
    try:
        answers = read_corrections("x", ["a.jpg", "b.jpg", "가.jpg"])
    except UserError as error:
        assert "data/x/corrections.csv" in str(error)
        return
    assert all(0 <= row < 3 for one, other, _ in answers for row in (one, other))


TABLE = 'image,label\na.jpg,1\n"b,""c"".jpg",2\n가.jpg,\n'.encode()
RECORD = json.dumps(
    {"made_from": {"stage": "x", "inputs": {"a": "b"}}, "outputs": {"a.npy": "0"}, "n": [1, None]}
).encode()
CORRECTIONS = "image_a,image_b,verdict\na.jpg,b.jpg,same\n가.jpg,b.jpg,different\n".encode()
ARCHIVES = [
    npz(a=np.eye(4, dtype=np.float32), b=np.array("rectangular")),
    npz(a=np.asfortranarray(np.ones((3, 2))), b=np.zeros((0, 4), np.int32)),
    npz(np.savez_compressed, a=np.zeros(100_000), b=np.zeros(9)),
    npz(a=np.array([None, "x"], dtype=object), b=np.zeros(1)),
]
ARRAYS = [npy(np.eye(3, dtype=np.float32)), npy(np.array(["a", "가"])), npy(np.zeros((0, 4)))]
READERS = {
    "image": (IMAGES, ".jpg", look_at_image),
    "table": ([TABLE], ".csv", look_at_table),
    "json": ([RECORD, b"[" * 100_000], ".json", look_at_json),
    "array": (ARRAYS, ".npy", look_at_array),
    "archive": (ARCHIVES, ".npz", look_at_archive),
    "weights": ([weights_file()], ".h5", look_at_weights),
    "corrections": ([CORRECTIONS], ".csv", look_at_corrections),
    "lines": ([TABLE, "a\u2028b\r\n".encode()], ".txt", look_at_lines),
}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_bytes_give_a_value_or_a_clear_error(reader):
    originals, suffix, look = READERS[reader]
    QUICK(given(damaged(originals))(lambda data: in_file(data, suffix, look)))()


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_damaged_bytes_many_times(reader):
    originals, suffix, look = READERS[reader]
    LONG(given(damaged(originals))(lambda data: in_file(data, suffix, look)))()


@pytest.mark.parametrize("compressed", [np.savez, np.savez_compressed])
def test_archive_of_zeros_takes_no_more_memory_than_its_file(compressed, root):
    path = root / "data" / "x" / "a.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(npz(compressed, a=np.zeros(1_000_000), b=np.zeros(3)))
    if compressed is np.savez:
        assert files.read_npz(path, "x", ("a",))["a"].nbytes == 8_000_000
    else:
        with pytest.raises(UserError, match="damaged"):
            files.read_npz(path, "x", ("a",))


def test_weights_of_zeros_take_no_memory(root):
    path = root / "bomb.h5"
    with h5py.File(path, "w") as handle:
        handle.create_dataset("kernel", shape=(10**12,), dtype=np.float32, chunks=(10**6,), compression="gzip")
    with pytest.raises(UserError, match="too large"):
        weights.check_weights_file(path, "DenseNet")


# ---- settings from the command line ----------------------------------------------------------------

NAMES = pipeline_settings.names()
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["None", "True", "[" * 3000, "9" * 5000, "1e999", "nan", "'a'*9", "{}", "--", "../x", "a\0b", "\ud800"]
    ),
)
ARGUMENTS = st.one_of(st.text(max_size=30), st.builds("--{}={}".format, st.sampled_from(NAMES), VALUES))


def look_at_arguments(arguments: list[str]) -> None:
    before = {name: getattr(config, name) for name in NAMES}
    try:
        with contextlib.suppress(SettingError):
            pipeline_settings.apply_overrides(arguments)
            pipeline_settings.check()
            assert not set("/\\\0") & set(config.DATASET)
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def test_any_argument_is_a_setting_or_a_clear_error():
    QUICK(given(st.lists(ARGUMENTS, max_size=3))(look_at_arguments))()


@pytest.mark.long
def test_many_arguments():
    LONG(given(st.lists(ARGUMENTS, max_size=3))(look_at_arguments))()


# ---- records of another shape into whole stages ----------------------------------------------------

STRANGE = st.sampled_from([None, True, -1, 10**30, 0.5, "", "x", "../../x", [], {}, [[]], {"a": None}, {"images": 3}])
# the records that a stage reads or replaces, in the time that the stage takes
FAST = {
    "00.make_labels_true.py": ["data/x/labels_true.json"],
    "01.img_preprocess.py": ["data/x/preprocess.json"],
    "make_training_image_folders.py": ["data/x/training_images.json", "data/x/labels_true.json"],
    "04.clustering_som.py": ["data/x/som_training.json", "data/x/clustering.json", "data/x/features.json"],
    "05.evaluation.py": ["data/x/clustering.json", "data/x/features.json", "result/x/evaluation.json"],
}
SLOW = {
    "03.feature_extraction.py": ["data/x/features.json"],
    "06.visualization.py": ["data/x/clustering.json", "data/x/preprocess.json", "result/x/evaluation.json",
                            "data/x/features.json", "data/x/labels_true.json", "result/x/report.json"],
}  # fmt: skip


@st.composite
def reshaped(draw: st.DrawFn, value: object) -> object:
    """A JSON value with one or two of the values in it replaced, taken out or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        inner = value
        while isinstance(inner, dict | list) and inner:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = draw(st.sampled_from(keys))
            if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.integers(0, 3)) == 0:
                kind = draw(st.integers(0, 3))
                if kind == 0:
                    del inner[key]
                elif kind == 1 and isinstance(inner, dict):
                    inner["../" + key] = inner.pop(key)
                else:
                    inner[key] = draw(STRANGE)
                break
            inner = inner[key]
    return value


def check_stage(stage: str, record: str, done: Path, tmp_path: Path, monkeypatch, budget: settings) -> None:
    """Run a stage on reshaped records: it does its work or says what is wrong, and removes no photograph."""
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(tmp_path / "root"))
    config.DATASET = config.TRAIN_DATASET = "x"
    config.N_JOBS, config.FEATURE_NETWORK, config.IMAGE_SIZE, config.SAVE_MASKS = 2, "pretrained", 75, True
    config.REDO = stage.startswith("06")  # most of what it shows of the records is none of its inputs
    module = load_stage(stage)
    original = json.loads((done / record).read_text(encoding="utf-8"))

    def look(value: object) -> None:
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        shutil.copytree(done, tmp_path / "root", symlinks=True)
        (tmp_path / "root" / record).write_text(json.dumps(value), encoding="utf-8")
        with contextlib.suppress(UserError):
            module.main()
        assert len(list((tmp_path / "root" / "raw_img" / "x").iterdir())) == 16

    budget(given(reshaped(original))(look))()


def pairs(stages: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(stage, record) for stage, records in stages.items() for record in records]


@pytest.mark.parametrize(("stage", "record"), pairs(FAST))
def test_records_of_another_shape(stage, record, done, tmp_path, monkeypatch):
    check_stage(stage, record, done, tmp_path, monkeypatch, settings(QUICK, max_examples=4))


@pytest.mark.long
@pytest.mark.parametrize(("stage", "record"), pairs(FAST) + pairs(SLOW))
def test_records_of_many_shapes(stage, record, done, tmp_path, monkeypatch):
    n = 30 if stage in SLOW else 150
    check_stage(stage, record, done, tmp_path, monkeypatch, settings(LONG, max_examples=n))


# ---- what must not be in the code ------------------------------------------------------------------


def test_no_code_is_read_from_files():
    sources = [*PROJECT.glob("*.py"), *(PROJECT / "pipeline").rglob("*.py"), *(PROJECT / "original_src").glob("*.py")]
    for path in sources:
        source = path.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(import|from) (pickle|dill|marshal|shelve|yaml|joblib\.numpy_pickle)\b", source, re.M
        )
        assert not re.search(r"(?<![\w.])(eval|exec)\(|joblib\.load|load_model\(|shell=True|os\.system", source), path
        for call in re.findall(r"^(?! *>>>).*(np\.load\(.*)", source, re.M):  # but for examples in docstrings
            assert "allow_pickle=False" in call, path
