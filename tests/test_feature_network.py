"""pipeline/feature_network.py: initial weights and saved networks in the real architecture."""

import h5py
import numpy as np
import pytest
from conftest import PROJECT

from pipeline import feature_network
from pipeline.features.inception import build_inception, choose_input_range
from pipeline.machinery.errors import UserError

START_WEIGHTS = PROJECT.parent / "shared" / "weights" / "inception_v3_start.weights.h5"


@pytest.fixture(scope="module")
def backbone():
    """InceptionV3 at 75 pixels."""
    return build_inception(75, seed=1)


def test_weights_by_their_path_load_and_take_zero_to_one():
    if not START_WEIGHTS.exists():
        pytest.skip("../shared/weights is not there")
    chosen = "../shared/weights/inception_v3_start.weights.h5"
    fresh = build_inception(75, seed=0)
    assert feature_network.load_initial(fresh, chosen) == chosen
    assert choose_input_range(fresh, "auto") == (0.0, 1.0)


def test_a_saved_network_loads_as_weights(backbone, tmp_path):
    backbone.save(tmp_path / "network.h5", include_optimizer=False)
    other = build_inception(75, seed=0)
    feature_network.load_trained(other, tmp_path / "network.h5")
    assert all((a == b).all() for a, b in zip(backbone.get_weights(), other.get_weights(), strict=True))


def test_weights_of_another_network_or_another_shape_are_refused(backbone, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["layers/dense/vars/0"] = np.zeros(3)
    with pytest.raises(UserError, match="does not fit InceptionV3"):
        feature_network.load_trained(build_inception(75, seed=0), tmp_path / "other.h5")
    backbone.save(tmp_path / "network.h5", include_optimizer=False)
    with h5py.File(tmp_path / "network.h5", "r+") as handle:
        kernels: list[str] = []
        handle.visititems(lambda name, item: kernels.append(name) if name.endswith("kernel") else None)
        shape = handle[kernels[0]].shape
        del handle[kernels[0]]
        handle[kernels[0]] = np.zeros((*shape[:3], shape[3] + 1), np.float32)
    with pytest.raises(UserError, match="does not fit InceptionV3"):
        feature_network.load_trained(build_inception(75, seed=0), tmp_path / "network.h5")
