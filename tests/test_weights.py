"""Pretrained weights: found, downloaded, checked, loaded into an architecture."""

import socket
import threading
import time

import h5py
import numpy as np
import pytest

from pipeline.machinery import weights
from pipeline.machinery.errors import UserError

# port 9: nobody listens
PRETRAINED = weights.Pretrained("DenseNet", "http://127.0.0.1:9/weights.h5", "0" * 32)


class Network:
    """Stands for a Keras model: keeps the path of what it loads, or refuses it."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem

    def load_weights(self, path):
        if self.problem:
            raise ValueError(self.problem)
        self.loaded = path


@pytest.fixture
def good_file(tmp_path):
    """A file of weights."""
    with h5py.File(tmp_path / "good.h5", "w") as handle:
        handle["layers/dense/vars/0"] = np.zeros(3)
    return tmp_path / "good.h5"


def test_weights_of_a_path_are_loaded_and_told_by_their_content(good_file):
    network = Network()
    assert weights.initialise(network, PRETRAINED, str(good_file), "START", good_file / "x") == str(good_file)
    assert network.loaded == good_file
    before = weights.known(PRETRAINED, str(good_file), "START", 0)
    with h5py.File(good_file, "r+") as handle:
        handle["more"] = np.ones(1)
    assert weights.known(PRETRAINED, str(good_file), "START", 0) != before


def test_weights_that_are_no_hdf5_or_do_not_fit_are_refused(tmp_path, good_file):
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(UserError, match="no HDF5 file"):
        weights.load(Network(), tmp_path / "text.h5", "DenseNet")
    with pytest.raises(UserError, match=r"good.h5 does not fit DenseNet \(shapes differ\)"):
        weights.load(Network("shapes differ\nat length"), good_file, "DenseNet")


def test_weights_that_reach_outside_or_hold_objects_or_are_too_large_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "link.h5", "w") as handle:
        handle["layer/kernel"] = h5py.ExternalLink("/etc/passwd", "/")
    with h5py.File(tmp_path / "soft.h5", "w") as handle:
        handle["layer"] = h5py.SoftLink("/elsewhere")
    with h5py.File(tmp_path / "object.h5", "w") as handle:
        handle.create_dataset("layer/kernel", data=["text"], dtype=h5py.string_dtype())
    with h5py.File(tmp_path / "external.h5", "w") as handle:
        handle.create_dataset("kernel", (4,), np.float32, external=[(str(tmp_path / "raw.bin"), 0, 16)])
    with h5py.File(tmp_path / "large.h5", "w") as handle:
        handle.create_dataset("kernel", (1000,), np.float32, compression="gzip")
    monkeypatch.setattr(weights, "MAX_ARRAY_BYTES", 3999)
    for name, reason in [
        ("link", "is a link"),
        ("soft", "is a link"),
        ("object", "of type"),
        ("external", "elsewhere"),
        ("large", "too large for weights of DenseNet"),
    ]:
        with pytest.raises(UserError, match=reason):
            weights.check_weights_file(tmp_path / f"{name}.h5", "DenseNet")


def test_a_missing_weights_file_is_named_with_its_setting():
    with pytest.raises(UserError, match=r"START: no file nowhere\.h5"):
        weights.known(PRETRAINED, "nowhere.h5", "START", 0)


@pytest.fixture
def server():
    """A server on this machine: gives the address, and a function that says what it answers (None: nothing)."""
    listening = socket.create_server(("127.0.0.1", 0))
    answer: list[bytes | None] = [None]
    open_connections = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            open_connections.append(connection)
            if answer[0] is not None:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer[0]) + answer[0])
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/weights.h5", answer
    listening.close()
    for connection in open_connections:
        connection.close()


def test_download_without_an_answer_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "NO_ANSWER_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(OSError):
        weights.download(server[0], tmp_path / "weights.h5", "0" * 32)
    assert time.monotonic() - begin < 10
    assert not (tmp_path / "weights.h5").exists()


def test_download_is_checked(server, tmp_path):
    server[1][0] = b"weights"
    with pytest.raises(OSError, match="not the file expected"):
        weights.download(server[0], tmp_path / "weights.h5", "0" * 32)
    assert list(tmp_path.iterdir()) == []
    weights.download(server[0], tmp_path / "weights.h5", "63f4f1e9b725370f459720575cd5f953")
    assert (tmp_path / "weights.h5").read_bytes() == b"weights"


def test_without_a_network_auto_starts_at_random_and_imagenet_is_an_error(root, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(root / "no-keras"))
    unreached_path = root / "model" / ".not_reached"
    assert weights.initialise(Network(), PRETRAINED, "auto", "START", unreached_path) == "random"
    assert weights.known(PRETRAINED, "auto", "START", 5) == "random, RANDOM_SEED = 5"
    with pytest.raises(UserError, match=r"could not be downloaded .* set START to"):
        weights.initialise(Network(), PRETRAINED, "imagenet", "START", unreached_path)


def test_a_download_that_failed_is_not_tried_again_at_once_unless_needed(root, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(root / "no-keras"))
    asked = []

    def download(*arguments):
        asked.append(arguments)
        raise OSError("nobody there")

    monkeypatch.setattr(weights, "download", download)
    for _ in range(2):
        assert weights.imagenet_path(PRETRAINED, False, "START", root / "model" / ".not_reached") is None
    assert len(asked) == 1
    with pytest.raises(UserError, match="nobody there"):
        weights.imagenet_path(PRETRAINED, True, "START", root / "model" / ".not_reached")


def test_weights_in_the_cache_are_taken(root, monkeypatch, good_file):
    monkeypatch.setenv("KERAS_HOME", str(root / "keras"))
    PRETRAINED.cache_path.parent.mkdir(parents=True)
    good_file.rename(PRETRAINED.cache_path)
    assert weights.known(PRETRAINED, "auto", "START", 0) == "imagenet"
    network = Network()
    assert weights.initialise(network, PRETRAINED, "auto", "START", root / "x") == "imagenet"
    assert network.loaded == PRETRAINED.cache_path
