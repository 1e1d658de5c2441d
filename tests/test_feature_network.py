"""pipeline/feature_network.py: initial weights in the real architecture, from where they come; saved networks."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import h5py
import numpy as np
import pytest
from conftest import PROJECT, load_stage

import config
from pipeline import feature_network, images
from pipeline.dataset import read_features, write_image
from pipeline.features import start_network
from pipeline.features.inception import LayerPooling, build_inception, choose_input_range, feature_function
from pipeline.features.whitening import normalise_rows
from pipeline.machinery import files
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import data_dir, img_dir, model_dir, training_images_dir
from pipeline.machinery.weights import Pretrained

START_WEIGHTS = PROJECT.parent / "shared" / "weights" / "inception_v3_start.weights.h5"
extraction = load_stage("03.feature_extraction.py")
training = load_stage("02.feature_network_fine_tuning.py")


@pytest.fixture(scope="module")
def backbone():
    """InceptionV3 at 75 pixels with normalisation statistics as of a network trained on 0..1."""
    backbone = build_inception(75, seed=1)
    sums = backbone.layers[1].get_weights()[0].sum(axis=(0, 1, 2))
    beta, _, variance = backbone.layers[2].get_weights()
    backbone.layers[2].set_weights([beta, 0.5 * sums, variance])
    assert choose_input_range(backbone, "auto") == (0.0, 1.0)
    return backbone


@pytest.fixture
def drawn(root, monkeypatch):
    """Three drawn images to cluster, twelve of four models to train on; nothing in Keras's cache, no network."""
    monkeypatch.setenv("KERAS_HOME", str(root / "keras"))
    monkeypatch.setattr(feature_network, "INCEPTION", feature_network.INCEPTION._replace(url="http://127.0.0.1:9/w.h5"))
    config.DATASET, config.TRAIN_DATASET, config.FEATURE_NETWORK = "d", "t", "pretrained"
    config.IMAGE_SIZE, config.COMPUTE_DTYPE, config.FEATURE_VIEWS = 75, "float32", "one"
    config.CROP_TO_PRODUCT, config.HEAD_EPOCHS, config.EPOCHS = False, 0, 0
    rng = np.random.default_rng(0)
    for i in range(15):
        image_bgr = np.full((75, 75, 3), 255, np.uint8)
        cv2.circle(image_bgr, (37, 37), int(rng.integers(10, 35)), rng.integers(0, 230, 3).tolist(), -1)
        folder = img_dir("d") if i < 3 else training_images_dir("t") / f"model{i % 4}"
        write_image(folder / f"{i}.png", image_bgr)
    return np.stack([images.read_bgr(img_dir("d") / f"{i}.png")[..., ::-1] for i in range(3)])  # RGB


@pytest.fixture
def served(backbone, tmp_path, monkeypatch):
    """The backbone's weights as a file of Keras 2, given by a web server on this machine as ImageNet's."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_keras_2_file(folder / "weights.h5", backbone)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    md5 = hashlib.md5((folder / "weights.h5").read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/weights.h5"
    yield Pretrained("InceptionV3 without top", url, md5)
    server.shutdown()
    server.server_close()


def write_keras_2_file(path, network) -> None:
    """Write weights in the layout of keras.applications' files: a group for each layer, names in attributes."""
    with h5py.File(path, "w") as handle:
        handle.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        handle.attrs["backend"], handle.attrs["keras_version"] = b"tensorflow", b"2.0.4"
        for layer in network.layers:
            group = handle.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value


def test_weights_by_their_path_load_and_take_zero_to_one():
    if not START_WEIGHTS.exists():
        pytest.skip("../shared/weights is not there")
    chosen = "../shared/weights/inception_v3_start.weights.h5"
    start = feature_network.build_start(chosen, 75, seed=0)
    assert (start.initial_weights, start.last_block, start.input_range) == (chosen, "mixed10", "auto")
    assert choose_input_range(start.backbone, "auto") == (0.0, 1.0)


def test_a_saved_network_loads_as_weights(backbone, tmp_path):
    backbone.save(tmp_path / "network.h5", include_optimizer=False)
    other = feature_network.load_trained(tmp_path / "network.h5", {}, 75, seed=0)
    assert all((a == b).all() for a, b in zip(backbone.get_weights(), other.get_weights(), strict=True))


def test_weights_of_another_network_or_another_shape_are_refused(backbone, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["layers/dense/vars/0"] = np.zeros(3)
    with pytest.raises(UserError, match="does not fit InceptionV3"):
        feature_network.load_trained(tmp_path / "other.h5", {}, 75, seed=0)
    backbone.save(tmp_path / "network.h5", include_optimizer=False)
    with h5py.File(tmp_path / "network.h5", "r+") as handle:
        kernels: list[str] = []
        handle.visititems(lambda name, item: kernels.append(name) if name.endswith("kernel") else None)
        shape = handle[kernels[0]].shape
        del handle[kernels[0]]
        handle[kernels[0]] = np.zeros((*shape[:3], shape[3] + 1), np.float32)
    with pytest.raises(UserError, match="does not fit InceptionV3"):
        feature_network.load_trained(tmp_path / "network.h5", {}, 75, seed=0)


def test_imagenets_file_is_downloaded_once_and_taken_with_its_own_range(drawn, served, backbone, monkeypatch):
    """Stages 03 and 02; though the weights alone look like those of a network that takes 0..1."""
    monkeypatch.setattr(feature_network, "INCEPTION", served)
    config.PRETRAINED_WEIGHTS = "imagenet"
    extraction.main()
    record = files.read_json(data_dir("d") / "features.json", "03")
    assert (record["initial_weights"], record["feature_layer"], record["pooling"]) == ("imagenet", "mixed7", "average")
    place = LayerPooling("mixed7", "average")
    expected = np.asarray(feature_function(backbone, place, (-1, 1), "one", "float32")(drawn))
    assert np.allclose(read_features("d")[0], normalise_rows(expected), atol=1e-4)
    assert served.cache_path.is_file()

    config.FEATURE_LAYER, config.POOLING, config.WHITENING = "mixed0", "max", 0
    training.main()
    record = files.read_json(model_dir("t") / "feature_network.json", "02")
    assert (record["initial_weights"], record["input_range"]) == ("imagenet", "-1..1")
    config.FEATURE_NETWORK = "fine-tuned"
    extraction.main()
    expected = np.asarray(feature_function(backbone, LayerPooling("mixed0", "max"), (-1, 1), "one", "float32")(drawn))
    assert np.allclose(read_features("d")[0], normalise_rows(expected), atol=1e-4)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A start network of random weights up to mixed1, in the place of the project's."""
    rng = np.random.default_rng(0)
    arrays = {}
    for i, shape in enumerate(start_network.kernel_shapes("mixed1")):
        arrays[f"conv2d_{i}/kernel"] = rng.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape).astype(np.float32)
        for part, value in (("beta", 0.1), ("moving_mean", 0.0), ("moving_variance", 1.0)):
            arrays[f"batch_normalization_{i}/{part}"] = np.full(shape[3], value, np.float32)
    network = start_network.StartNetwork(arrays, "mixed1", "mixed0", "gem", "0..1", None)
    np.savez(tmp_path / "start_network.npz", **start_network.pack(network))
    monkeypatch.setattr(start_network, "PATH", tmp_path / "start_network.npz")
    monkeypatch.setattr(start_network.read_start_network, "__defaults__", (tmp_path / "start_network.npz",))
    return network


def test_without_imagenets_weights_auto_takes_the_projects_own(drawn, own, capsys):
    """Its blocks, its place, its range; fine-tuned, its later blocks do not exist either."""
    extraction.main()
    assert "the project's own start network, up to mixed1" in capsys.readouterr().out
    record = files.read_json(data_dir("d") / "features.json", "03")
    assert record["initial_weights"] == "start network" and record["feature_layer"] == "mixed0"
    assert record["pooling"] == "gem"
    whole = build_inception(75, seed=0)
    start_network.assign_weights(whole, start_network.read_start_network())
    expected = np.asarray(feature_function(whole, LayerPooling("mixed0", "gem"), (0, 1), "one", "float32")(drawn))
    assert np.allclose(read_features("d")[0], normalise_rows(expected), atol=1e-4)

    config.WHITENING = 0
    training.main()
    record = files.read_json(model_dir("t") / "feature_network.json", "02")
    assert (record["initial_weights"], record["input_range"]) == ("start network", "0..1")
    assert record["last_block"] == "mixed1" and record["feature_layer"] in ("mixed0", "mixed1")
    config.FEATURE_NETWORK = "fine-tuned"
    extraction.main()
    place = LayerPooling(record["feature_layer"], record["pooling"])
    expected = np.asarray(feature_function(whole, place, (0, 1), "one", "float32")(drawn))
    assert np.allclose(read_features("d")[0], normalise_rows(expected), atol=1e-4)


def test_a_block_that_the_start_network_lacks_is_named(drawn, own):
    config.FEATURE_LAYER = "mixed7"
    with pytest.raises(UserError, match='FEATURE_LAYER = "mixed7": the project\'s own start network, up to mixed1'):
        extraction.main()


def test_other_initial_weights_are_other_weights_for_the_record(drawn, own, monkeypatch):
    before = feature_network.identify("auto", seed=0)
    assert before.startswith("start network ")
    assert feature_network.identify("random", seed=0) != feature_network.identify("random", seed=1)
    with start_network.PATH.open("ab") as handle:
        handle.write(b"x")
    assert feature_network.identify("auto", seed=0) not in (before, "imagenet")
    feature_network.INCEPTION.cache_path.parent.mkdir(parents=True)
    feature_network.INCEPTION.cache_path.touch()
    assert feature_network.identify("auto", seed=0) == "imagenet"
