"""03.feature_extraction.py: only what is new is computed, and the two files are always in step."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PROJECT, load_stage

import config
from pipeline import feature_files, feature_network, images, tensorflow_runtime
from pipeline.dataset import list_images, read_features, write_image
from pipeline.features.framing import fit_image
from pipeline.features.inception import build_inception
from pipeline.features.whitening import Whitening, normalise_rows
from pipeline.machinery import files, records
from pipeline.machinery.errors import UserError
from pipeline.machinery.parts import Parts
from pipeline.machinery.paths import data_dir, img_dir, model_dir, training_images_dir

stage = load_stage("03.feature_extraction.py")


def draw(name: str, seed: int) -> None:
    """Write img/d/<name>: a coloured disc on white, by `seed`."""
    rng = np.random.default_rng(seed)
    image_bgr = np.full((90, 120, 3), 255, np.uint8)
    cv2.circle(image_bgr, (60, 45), int(rng.integers(10, 40)), rng.integers(0, 230, 3).tolist(), -1)
    write_image(img_dir("d") / name, image_bgr)


@pytest.fixture
def d(root):
    """Twelve images, random initial weights."""
    config.PRETRAINED_WEIGHTS = "random"
    config.DATASET, config.TRAIN_DATASET, config.FEATURE_NETWORK = "d", "t", "pretrained"
    config.IMAGE_SIZE, config.EXTRACTION_BATCH_SIZE, config.COMPUTE_DTYPE = 75, 4, "float32"
    for i in range(12):
        draw(f"{i:02}.png", i)
    return feature_files.paths_of("d")


def run(capsys) -> str:
    """Run the stage; returns what it printed."""
    stage.main()
    return capsys.readouterr().out


def test_features_are_unit_rows_in_order_of_the_names(d, capsys):
    said = run(capsys)
    features, names = read_features("d")
    assert features.shape == (12, 256) and features.dtype == np.float32
    assert names == [f"{i:02}.png" for i in range(12)]
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert "12 images in = 12 out + 0 skipped" in said
    record = files.read_json(d["record"], "03")
    assert record["initial_weights"] == "random" and record["n_features"] == 256
    assert not d["parts"].exists() and not d["skipped"].exists()


def test_row_order_and_batches_do_not_change_a_row(d, capsys):
    run(capsys)
    before = dict(zip(read_features("d")[1], np.array(read_features("d")[0]), strict=True))
    config.REDO, config.EXTRACTION_BATCH_SIZE = True, 5
    draw("00a.png", 99)
    run(capsys)
    after = dict(zip(read_features("d")[1], np.array(read_features("d")[0]), strict=True))
    assert all(np.allclose(before[name], after[name], atol=1e-4) for name in before)


def test_only_new_and_changed_images_are_computed(d, capsys):
    assert "12 images to compute, 0 known" in run(capsys)
    before = np.array(read_features("d")[0])
    draw("00b.png", 50)  # new, and moves all rows behind it
    draw("05.png", 51)  # changed
    (img_dir("d") / "11.png").unlink()
    (img_dir("d") / "copy.png").write_bytes((img_dir("d") / "00.png").read_bytes())
    assert "2 images to compute, 10 known" in run(capsys)
    features, names = read_features("d")
    assert names == list_images(img_dir("d"))
    assert (features[names.index("copy.png")] == before[0]).all()
    assert (features[names.index("10.png")] == before[10]).all()
    assert (features[names.index("05.png")] != before[5]).any()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the maps as Linux lists them")
def test_no_row_of_the_earlier_features_is_mapped_when_they_are_replaced(d, capsys, monkeypatch):
    """Windows replaces no file that is mapped."""
    exchange, mapped = feature_files.exchange, []

    def look(paths: dict[str, Path]) -> None:
        mapped.append(str(paths["features"]) in Path("/proc/self/maps").read_text(encoding="utf-8"))
        exchange(paths)

    run(capsys)
    monkeypatch.setattr(feature_files, "exchange", look)
    draw("00b.png", 50)
    assert "1 images to compute, 12 known" in run(capsys)
    assert mapped == [False]


def test_an_unchanged_data_set_needs_no_tensorflow(d, root, capsys):
    run(capsys)
    code = (
        "import runpy, sys; sys.argv = ['03.feature_extraction.py', *sys.argv[1:]]\n"
        "runpy.run_path('03.feature_extraction.py', run_name='__main__')\n"
        "print('tensorflow' in sys.modules)"
    )
    names = ["DATASET", "FEATURE_NETWORK", "PRETRAINED_WEIGHTS", "IMAGE_SIZE", "COMPUTE_DTYPE"]
    arguments = [f"--{name}={getattr(config, name)}" for name in names]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True)
    assert "unchanged" in done.stdout and done.stdout.endswith("False\n"), done.stderr


def test_a_changed_setting_redoes_all(d, capsys):
    run(capsys)
    config.POOLING = "average"
    assert "12 images to compute" in run(capsys)


def test_other_weights_give_other_features(d, capsys):
    """The fine-tuned network is really used."""
    config.FEATURE_NETWORK = "fine-tuned"
    found = []
    for seed in (1, 2):
        config.RANDOM_SEED = seed
        with files.atomic_write(model_dir("t") / "feature_network.h5") as temporary:
            build_inception(75, config.RANDOM_SEED).save(temporary, include_optimizer=False)
        assert "12 images to compute" in run(capsys)
        found.append(np.array(read_features("d")[0]))
    assert np.abs(found[0] - found[1]).max() > 0.01


def write_network(whitening: Whitening) -> None:
    """A network, its whitening and the record of both, as stage 02 leaves them."""
    paths = feature_network.network_paths(model_dir("t"))
    with files.atomic_write(paths[0]) as temporary:
        build_inception(75, config.RANDOM_SEED).save(temporary, include_optimizer=False)
    write_whitening(whitening)


def write_whitening(whitening: Whitening) -> None:
    """A whitening and the record of it and of the network that is there."""
    paths = feature_network.network_paths(model_dir("t"))
    np.savez(paths[2], **whitening._asdict())
    about = {"initial_weights": "random", "feature_layer": "mixed0", "pooling": "average", "whitened": True}
    records.write_record(paths[1], {}, [paths[0], paths[2]], **about)


@pytest.fixture
def whitening():
    """Any mean and matrix for the 256 features of mixed0."""
    rng = np.random.default_rng(0)
    matrix = np.eye(256, dtype=np.float32) + rng.normal(0, 0.1, (256, 256)).astype(np.float32)
    return Whitening(rng.normal(0, 0.05, 256).astype(np.float32), matrix)


def test_bfloat16_is_taken_only_where_stage_02_found_it_near_float32(d, capsys, whitening, monkeypatch):
    monkeypatch.setattr(tensorflow_runtime, "has_fast_bfloat16", lambda: True)
    config.FEATURE_NETWORK, config.FEATURE_LAYER, config.POOLING = "fine-tuned", "auto", "auto"
    config.COMPUTE_DTYPE = "auto"
    write_network(whitening)
    record_path = feature_network.network_paths(model_dir("t"))[1]
    record = files.read_json(record_path, "02")
    for cosine, expected in ((0.9989, "float32"), (0.9991, "bfloat16")):
        files.write_json(record_path, record | {"bfloat16_cosine": cosine})
        assert "12 images to compute" in run(capsys)
        assert files.read_json(d["record"], "03")["compute_dtype"] == expected
    config.COMPUTE_DTYPE = "bfloat16"
    files.write_json(record_path, record | {"bfloat16_cosine": 0.5})
    run(capsys)
    assert files.read_json(d["record"], "03")["compute_dtype"] == "bfloat16"


def test_features_are_whitened_by_what_stage_02_learned(d, capsys, whitening):
    config.FEATURE_NETWORK, config.FEATURE_LAYER, config.POOLING = "fine-tuned", "auto", "max"
    write_network(whitening)
    assert 'not whitened: that was learned for POOLING "average"' in run(capsys)
    config.POOLING, config.L2_NORMALIZE = "average", False
    paths = feature_network.network_paths(model_dir("t"))
    record = files.read_json(paths[1], "02")
    files.write_json(paths[1], record | {"whitened": False})
    run(capsys)
    raw = np.array(read_features("d")[0])
    assert not files.read_json(d["record"], "03")["whitened"]
    files.write_json(paths[1], record)
    assert "12 images to compute" in run(capsys)
    expected = (raw / np.linalg.norm(raw, axis=1, keepdims=True) - whitening.mean) @ whitening.matrix
    assert np.allclose(read_features("d")[0], expected, atol=1e-4)
    assert files.read_json(d["record"], "03")["whitened"]
    config.L2_NORMALIZE = True
    run(capsys)
    assert np.allclose(read_features("d")[0], normalise_rows(expected), atol=1e-4)
    assert "unchanged" in run(capsys)


def test_a_whitening_that_does_not_fit_is_refused_and_earlier_features_stay(d, capsys, whitening):
    config.FEATURE_NETWORK = "fine-tuned"
    write_network(whitening)
    run(capsys)
    before = d["features"].read_bytes()
    path = feature_network.network_paths(model_dir("t"))[2]
    of_another_network = Whitening(whitening.mean + 1, whitening.matrix)
    damages = {
        "of another network": lambda: np.savez(path, **of_another_network._asdict()),
        "of another layer": lambda: write_whitening(Whitening(whitening.mean[:9], whitening.matrix[:9, :9])),
        "not of numbers": lambda: write_whitening(Whitening(whitening.mean.astype("S4"), whitening.matrix)),
        "not finite": lambda: write_whitening(Whitening(whitening.mean * np.nan, whitening.matrix)),
        "missing": path.unlink,
    }
    for name, damage in damages.items():
        damage()
        with pytest.raises(UserError, match=r"run 02\.feature_network_fine_tuning\.py"):
            stage.main()
        assert d["features"].read_bytes() == before, name


def test_without_stage_02_it_is_named(d):
    config.FEATURE_NETWORK = "fine-tuned"
    with pytest.raises(UserError, match=r"feature_network\.h5 not found: run 02\.feature_network_fine_tuning\.py"):
        stage.main()


def test_an_unreadable_image_is_listed_and_the_others_go_on(d, capsys):
    (img_dir("d") / "03.png").write_bytes(b"no image")
    assert "12 images in = 11 out + 1 skipped" in run(capsys)
    assert "03.png" not in read_features("d")[1]
    rows = files.read_csv(d["skipped"], ["image", "stage", "reason"], "03")
    assert [row["image"] for row in rows] == ["03.png"]
    assert "unchanged" in run(capsys)
    draw("03.png", 3)
    run(capsys)
    assert "03.png" in read_features("d")[1] and not d["skipped"].exists()


def test_when_no_image_is_readable_earlier_features_stay(d, capsys):
    run(capsys)
    before = d["features"].read_bytes()
    for name in list_images(img_dir("d")):
        (img_dir("d") / name).write_bytes(b"no image " + name.encode())
    with pytest.raises(UserError, match="can be read as an image"):
        stage.main()
    assert d["features"].read_bytes() == before


def test_interrupted_work_is_kept(d, capsys, monkeypatch):
    """What a run had computed before it was interrupted is not computed again."""
    config.EXTRACTION_BATCH_SIZE = 1
    add = Parts.add

    def add_and_be_interrupted(parts, rows):
        add(parts, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Parts, "add", add_and_be_interrupted)
        stage.main()
    capsys.readouterr()
    kept = stage.BATCHES_PER_PART
    assert f"{12 - kept} images to compute, {kept} known" in run(capsys)
    assert len(read_features("d")[0]) == 12


@pytest.mark.parametrize("stop", ["before record", "after record", "names away", "features replaced"])
def test_an_exchange_cut_short_is_finished_or_undone(d, capsys, stop):
    """The files as a kill at each step of the exchange leaves them: never out of step, and the next run mends it."""
    run(capsys)
    old = {key: d[key].read_bytes() for key in ("features", "names", "record")}
    (img_dir("d") / "00.png").unlink()
    run(capsys)
    new = {key: d[key].read_bytes() for key in ("features", "names", "record")}
    d["features"].write_bytes(new["features"] if stop == "features replaced" else old["features"])
    if stop != "features replaced":
        d["next"].write_bytes(new["features"])
    d["names_next"].write_bytes(new["names"])
    d["names"].write_bytes(old["names"])
    if stop in ("names away", "features replaced"):
        d["names"].unlink()
    d["record"].write_bytes(old["record"] if stop == "before record" else new["record"])
    feature_files.finish_exchange(d)
    expected = old if stop == "before record" else new
    assert d["features"].read_bytes() == expected["features"] and d["names"].read_bytes() == expected["names"]
    assert not d["next"].exists() and not d["names_next"].exists()
    said = run(capsys)
    assert "unchanged" in said or "0 images to compute" in said
    assert d["features"].read_bytes() == new["features"] and d["names"].read_bytes() == new["names"]


def test_missing_images_name_the_stage_to_run(root):
    config.DATASET = "nothing"
    config.FEATURE_NETWORK = "pretrained"
    with pytest.raises(UserError, match=r"01\.img_preprocess\.py"):
        stage.main()


@pytest.mark.parametrize(
    "wrong",
    ["IMAGE_SIZE=74", "FEATURE_LAYER=mixed11", "POOLING=median", "FEATURE_VIEWS=four", "COMPUTE_DTYPE=float16"],
)
def test_a_setting_out_of_range_is_named(run_stage, wrong):
    done = run_stage("03.feature_extraction.py", f"--{wrong}")
    assert done.returncode == 2 and wrong.partition("=")[0] in done.stderr and "Traceback" not in done.stderr


def test_an_onnx_file_is_a_network_like_any_other(d, root, capsys):
    """Its side, its features, its fingerprint: what is new is computed, another file computes all."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    def write(kind: str) -> None:
        node = helper.make_node(kind, ["pixels"], ["features"], axes=[2, 3], keepdims=0)
        pixels = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 3, 20, 20])
        features = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 3])
        graph = helper.make_graph([node], "encoder", [pixels], [features])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, root / "encoder.onnx")

    write("ReduceMean")
    config.FEATURE_NETWORK, config.FEATURE_VIEWS = str(root / "encoder.onnx"), "mirrored"
    assert "12 images to compute" in run(capsys)
    pictures = [fit_image(images.read_bgr(img_dir("d") / f"{i:02}.png"), 20, config.CROP_TO_PRODUCT) for i in range(12)]
    expected = normalise_rows(np.stack(pictures).mean(axis=(1, 2)) / 255)
    assert np.allclose(read_features("d")[0], expected, atol=1e-4)
    record = files.read_json(d["record"], "03")
    assert (record["initial_weights"], record["n_features"]) == ("onnx", 3)
    assert "unchanged" in run(capsys)
    draw("new.png", 77)
    assert "1 images to compute, 12 known" in run(capsys)
    write("ReduceMax")
    assert "13 images to compute" in run(capsys)
    (root / "encoder.onnx").unlink()
    with pytest.raises(UserError, match="FEATURE_NETWORK: no file"):
        stage.main()


def test_without_fine_tuning_features_of_known_models_are_kept_for_stage_04(d, capsys):
    """Those of training_images/T/, else of img/T/ with labels; computed again only where they would be others."""
    path = data_dir("d") / "known_features.npz"
    run(capsys)
    assert not path.exists()
    for i in range(4):
        image_bgr = images.read_bgr(img_dir("d") / f"{i:02}.png")
        write_image(training_images_dir("t") / f"model{i % 2}" / f"{i}.png", image_bgr)
    said = run(capsys)
    assert "0 images to compute" in said and "4 photographs of known models of t" in said
    known = files.read_npz(path, "03", ("features", "labels", "network"))
    features, _ = read_features("d")
    assert known["labels"].tolist() == ["model0", "model0", "model1", "model1"]
    assert np.allclose(known["features"], features[[0, 2, 1, 3]], atol=1e-4)
    assert str(known["network"]) == files.read_json(d["record"], "03")["made_from"]["network"]
    draw("new.png", 5)
    assert "known models" not in run(capsys)
    assert "unchanged" in run(capsys)

    for image_path in list(training_images_dir("t").rglob("*.png")):
        image_path.unlink()
    for folder in (*training_images_dir("t").iterdir(), training_images_dir("t")):
        folder.rmdir()
    write_image(img_dir("t") / "a.png", images.read_bgr(img_dir("d") / "00.png"))
    files.write_csv(data_dir("t") / "labels_true.csv", ["image", "label"], [["a.png", "7"], ["gone.png", "8"]])
    assert "1 photographs of known models of t" in run(capsys)
    assert files.read_npz(path, "03", ("labels",))["labels"].tolist() == ["7"]
    config.TRAIN_DATASET = "d"
    run(capsys)
    assert not path.exists()
