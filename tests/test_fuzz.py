"""Random and damaged bytes into every reader: a good value or a clear error, nothing else.

The short form tries some hundred inputs per reader; `python3 run_tests.py -m long tests/test_fuzz.py` tries 20,000.
"""

import io
import json
import os
import tempfile
from pathlib import Path

import corpus
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.images import MAX_PIXELS, ImageError, read_image
from pipeline.settings import UserError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
IMAGES = [*(data for data in corpus.good().values() if len(data) < 60_000), *corpus.bad().values()]


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
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
    assert files.read_record(path) is None or isinstance(files.read_record(path)["made_from"], dict)
    assert files.up_to_date(path, {"stage": "x"}) is False


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


TABLE = 'image,label\na.jpg,1\n"b,""c"".jpg",2\n가.jpg,\n'.encode()
RECORD = json.dumps(
    {"made_from": {"stage": "x", "inputs": {"a": "b"}}, "outputs": {"a.npy": "0"}, "n": [1, None]}
).encode()
ARRAYS = [npy(np.eye(3, dtype=np.float32)), npy(np.array(["a", "가"])), npy(np.zeros((0, 4)))]
READERS = {
    "image": (IMAGES, ".jpg", look_at_image),
    "table": ([TABLE], ".csv", look_at_table),
    "json": ([RECORD, b"[" * 100_000], ".json", look_at_json),
    "array": (ARRAYS, ".npy", look_at_array),
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
