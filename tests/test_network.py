"""pipeline/network.py: images into squares, weights in and out, folding, pooling."""

import socket
import threading
import time

import cv2
import h5py
import numpy as np
import pytest
from conftest import PROJECT

import config
from pipeline import files, network, settings

START_WEIGHTS = PROJECT.parent / "shared" / "weights" / "inception_v3_start.weights.h5"


def picture(height: int, width: int, box: tuple[int, int, int, int], colour=(10, 20, 200)) -> np.ndarray:
    """A filled rectangle (top, bottom, left, right) on white, uint8 BGR."""
    image_bgr = np.full((height, width, 3), 255, np.uint8)
    top, bottom, left, right = box
    image_bgr[top:bottom, left:right] = colour
    return image_bgr


# ---- images --------------------------------------------------------------------------------------


def test_product_box_keeps_a_margin_and_stays_inside_the_image():
    assert network.product_box(picture(100, 100, (40, 60, 30, 80))) == (37, 63, 27, 83)
    assert network.product_box(picture(100, 100, (0, 100, 0, 50))) == (0, 100, 0, 56)


def test_product_box_of_a_white_image_is_the_image():
    assert network.product_box(np.full((20, 30, 3), 255, np.uint8)) == (0, 20, 0, 30)


def test_square_image_keeps_proportions_and_turns_bgr_into_rgb():
    square_rgb = network.square_image(np.full((50, 100, 3), (10, 20, 200), np.uint8), 64, crop=False)
    assert square_rgb.shape == (64, 64, 3) and square_rgb.dtype == np.uint8
    assert (square_rgb[16:48] == (200, 20, 10)).all()
    assert (square_rgb[:16] == 255).all() and (square_rgb[48:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3000, 2)])
def test_square_image_takes_extreme_shapes(shape):
    assert network.square_image(np.zeros((*shape, 3), np.uint8), 75, crop=True).shape == (75, 75, 3)


def test_cropped_product_does_not_depend_on_its_place_and_size():
    small = network.square_image(picture(200, 200, (20, 60, 30, 70)), 64, crop=True)
    large = network.square_image(picture(200, 200, (50, 150, 80, 180)), 64, crop=True)
    assert np.abs(small.astype(int) - large).mean() < 8  # the edges fall between other pixels


def test_square_mask_lies_where_square_image_has_the_product():
    image_bgr = picture(120, 200, (30, 90, 60, 110), colour=(0, 0, 0))
    mask = np.where(image_bgr[..., 0] == 0, 255, 0).astype(np.uint8)
    image_rgb = network.square_image(image_bgr, 80, crop=True)
    assert ((network.square_mask(mask, image_bgr, 80, crop=True) > 127) == (image_rgb[..., 0] < 128)).all()


# ---- pooling -------------------------------------------------------------------------------------


def test_pooling_by_hand():
    maps = np.float32([[[[1, 0]], [[3, 0]]], [[[0, 2]], [[0, 2]]]])  # (2 images, 2, 1, 2 channels)
    assert np.allclose(network.pooled(maps, "average"), [[2, 0], [0, 2]])
    assert np.allclose(network.pooled(maps, "max"), [[3, 0], [0, 2]])
    gem = np.asarray(network.pooled(maps, "gem"))
    assert np.allclose(gem, [[14 ** (1 / 3), 0], [0, 2]], atol=1e-3)  # ((1 + 27) / 2) ** (1/3)


def test_normalised_rows_have_length_one_and_zeros_stay():
    assert np.allclose(network.normalised(np.float32([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


# ---- the network ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lively():
    """InceptionV3 at 75 pixels, its batch normalisation far from what it is before any training."""
    inception = network.inception(75)
    rng = np.random.default_rng(0)
    for layer in inception.layers:
        if layer.name.startswith("batch_normalization"):
            beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.normal(0.2, 0.1, beta.shape),
                    rng.normal(0, 0.05, mean.shape),
                    rng.uniform(0.1, 0.4, variance.shape),
                ]
            )
    return inception


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Eight drawn images, uint8 RGB (8, 75, 75, 3)."""
    rng = np.random.default_rng(1)
    drawn = np.full((8, 75, 75, 3), 255, np.uint8)
    for image in drawn:
        cv2.circle(image, (37, 37), int(rng.integers(10, 35)), rng.integers(0, 255, 3).tolist(), -1)
    return drawn


def test_folding_batch_normalisation_changes_nothing(lively, photographs):
    part = network.cut(lively, ["mixed2"])
    inputs = network.scaled(photographs, -1, 1)
    plain, folded = np.asarray(part(inputs)), np.asarray(network.folded(part, "float32")(inputs))
    assert plain.std() > 0.01
    assert np.allclose(plain, folded, atol=1e-3 * np.abs(plain).max())


def test_bfloat16_features_are_within_cosine_0_999(lively, photographs):
    one, other = (
        network.normalised(np.asarray(network.feature_function(lively, "mixed7", "average", False, dtype)(photographs)))
        for dtype in ("float32", "bfloat16")
    )
    assert one.dtype == other.dtype == np.float32 and one.shape == (8, 768)
    assert (one * other).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(("flags", "fast"), [("fpu avx2 avx512f", False), ("fpu avx512f avx512_bf16", True)])
def test_auto_computes_in_bfloat16_only_where_the_processor_has_it(tmp_path, flags, fast):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n", encoding="ascii")
    if not fast and network.tensorflow().config.list_physical_devices("GPU"):
        pytest.skip("a GPU may be fast at bfloat16 where the processor is not")
    assert network.has_fast_bfloat16(tmp_path / "cpuinfo") is fast
    assert config.COMPUTE_DTYPE == "auto"
    assert network.compute_dtype() == ("bfloat16" if network.has_fast_bfloat16() else "float32")


def test_mirror_average_does_not_tell_an_image_from_its_mirror_image(lively, photographs):
    compute = network.feature_function(lively, "mixed1", "average", True, "float32")
    assert np.allclose(compute(photographs), compute(photographs[:, :, ::-1]), rtol=1e-4, atol=1e-5)


def test_random_weights_depend_on_the_seed_alone():
    def first_kernel() -> np.ndarray:
        return network.inception(75).layers[1].get_weights()[0]

    one = first_kernel()
    assert (one == first_kernel()).all()
    config.RANDOM_SEED = 1
    assert (one != first_kernel()).any()


@pytest.mark.parametrize(("mean_input", "expected"), [(0.5, (0.0, 1.0)), (-0.1, (-1.0, 1.0)), (0.0, (-1.0, 1.0))])
def test_input_range_is_read_from_the_first_normalisation(mean_input, expected):
    inception = network.inception(75)
    sums = inception.layers[1].get_weights()[0].sum(axis=(0, 1, 2))
    beta, _, variance = inception.layers[2].get_weights()
    inception.layers[2].set_weights([beta, mean_input * sums, variance])
    assert network.input_range(inception) == expected


def test_input_range_can_be_set(lively):
    config.INPUT_RANGE = "0..1"
    assert network.input_range(lively) == (0.0, 1.0)
    config.INPUT_RANGE = "-1..1"
    assert network.input_range(lively) == (-1.0, 1.0)


def test_start_weights_load_and_take_zero_to_one():
    if not START_WEIGHTS.exists():
        pytest.skip("../shared/weights is not there")
    config.PRETRAINED_WEIGHTS = "../shared/weights/inception_v3_start.weights.h5"
    inception = network.inception(75)
    assert network.initialise(inception) == config.PRETRAINED_WEIGHTS
    assert network.input_range(inception) == (0.0, 1.0)


# ---- weights files -------------------------------------------------------------------------------


def test_a_saved_network_loads_as_weights(lively, tmp_path):
    lively.save(tmp_path / "network.h5", include_optimizer=False)
    other = network.inception(75)
    network.load_weights(other, tmp_path / "network.h5")
    assert all((a == b).all() for a, b in zip(lively.get_weights(), other.get_weights(), strict=True))


def test_weights_that_are_no_hdf5_or_do_not_fit_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(settings.UserError, match="no HDF5 file"):
        network.load_weights(None, tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["layers/dense/vars/0"] = np.zeros(3)
    with pytest.raises(settings.UserError, match="does not fit"):
        network.load_weights(network.inception(75), tmp_path / "other.h5")


def test_weights_of_another_shape_are_refused(lively, tmp_path):
    lively.save(tmp_path / "network.h5", include_optimizer=False)
    with h5py.File(tmp_path / "network.h5", "r+") as handle:
        kernels: list[str] = []
        handle.visititems(lambda name, item: kernels.append(name) if name.endswith("kernel") else None)
        shape = handle[kernels[0]].shape
        del handle[kernels[0]]
        handle[kernels[0]] = np.zeros((*shape[:3], shape[3] + 1), np.float32)
    with pytest.raises(settings.UserError, match="does not fit InceptionV3"):
        network.load_weights(network.inception(75), tmp_path / "network.h5")


def test_weights_that_reach_outside_or_hold_objects_are_refused(tmp_path):
    with h5py.File(tmp_path / "link.h5", "w") as handle:
        handle["layer/kernel"] = h5py.ExternalLink("/etc/passwd", "/")
    with h5py.File(tmp_path / "soft.h5", "w") as handle:
        handle["layer"] = h5py.SoftLink("/elsewhere")
    with h5py.File(tmp_path / "object.h5", "w") as handle:
        handle.create_dataset("layer/kernel", data=["text"], dtype=h5py.string_dtype())
    with h5py.File(tmp_path / "external.h5", "w") as handle:
        handle.create_dataset("kernel", (4,), np.float32, external=[(str(tmp_path / "raw.bin"), 0, 16)])
    for name, reason in [
        ("link", "is a link"),
        ("soft", "is a link"),
        ("object", "of type"),
        ("external", "elsewhere"),
    ]:
        with pytest.raises(settings.UserError, match=reason):
            network.check_weights_file(tmp_path / f"{name}.h5")


def test_a_missing_weights_file_is_named():
    config.PRETRAINED_WEIGHTS = "nowhere.h5"
    with pytest.raises(settings.UserError, match=r"no file nowhere\.h5"):
        network.weights_known()


# ---- the download --------------------------------------------------------------------------------


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
    monkeypatch.setattr(network, "NO_ANSWER_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(OSError):
        network.download(server[0], tmp_path / "weights.h5", "0" * 32)
    assert time.monotonic() - begin < 10
    assert not (tmp_path / "weights.h5").exists()


def test_download_is_checked(server, tmp_path):
    server[1][0] = b"weights"
    with pytest.raises(OSError, match="not the file expected"):
        network.download(server[0], tmp_path / "weights.h5", "0" * 32)
    assert list(tmp_path.iterdir()) == []
    network.download(server[0], tmp_path / "weights.h5", "63f4f1e9b725370f459720575cd5f953")
    assert (tmp_path / "weights.h5").read_bytes() == b"weights"


def test_without_a_network_auto_starts_at_random_and_imagenet_is_an_error(root, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(root / "no-keras"))
    monkeypatch.setattr(network, "IMAGENET_URL", "http://127.0.0.1:9/weights.h5")  # port 9: nobody listens
    assert network.imagenet_path() is None
    assert network.weights_known().startswith("random")
    config.PRETRAINED_WEIGHTS = "imagenet"
    with pytest.raises(settings.UserError, match="could not be downloaded"):
        network.imagenet_path()


def test_weights_in_the_cache_are_taken(root, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(root / "keras"))
    network.keras_cache().parent.mkdir(parents=True)
    network.keras_cache().write_bytes(b"weights")
    assert network.weights_known() == "imagenet"
    assert network.imagenet_path() == network.keras_cache()
    assert files.fingerprint_file(network.keras_cache()) != "missing"
