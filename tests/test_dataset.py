"""The files below a data set's folder: which are images, which are left out, which links are followed."""

import os

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import describe_left_out, images_of, list_images, scan_folder
from pipeline.machinery import files, paths, placing
from pipeline.machinery.errors import UserError

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_every_file_is_an_image_or_said_to_be_left_out(tmp_path):
    put(
        tmp_path,
        "b.JPG",
        "a/c.heic",
        "a/d.PSD",
        "e.cr2",
        "notes.txt",
        "LICENSE",
        "clip.mov",
        ".hidden.jpg",
        ".git/f.jpg",
    )
    found = scan_folder(tmp_path)
    assert found.names == ["a/c.heic", "b.JPG"]
    assert [name for name, _ in found.unread] == ["a/d.PSD", "e.cr2"]
    assert "a Photoshop file, which is not read" in found.unread[0][1]
    assert describe_left_out(found, ["a/d.PSD", "e.cr2", "a/c.heic"]) == [
        "left out: 1 .cr2, 1 .heic, 1 .psd; no photographs: 1 .mov, 1 .txt, 1 without a suffix"
    ]


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    put(tmp_path, "a.psd", "b.cr2", "c.cr2")
    with pytest.raises(UserError, match=r"holds no image .*left out: 2 \.cr2, 1 \.psd.*: put some there"):
        images_of(tmp_path, "put some there")


@needs_links
def test_linked_folders_are_followed_once(tmp_path):
    disk, folder = tmp_path / "disk", tmp_path / "raw_img"
    put(disk, "shop/1.jpg", "shop/deep/2.jpg")
    put(folder, "own/3.jpg")
    for link, target in (("b", disk), ("c", disk / "shop"), ("a", folder / "own"), ("d", disk)):
        (folder / link).symlink_to(target)
    found = scan_folder(folder)
    assert found.names == ["b/shop/1.jpg", "b/shop/deep/2.jpg", "own/3.jpg"]
    assert found.not_followed == ["a", "c", "d"]


@needs_links
@pytest.mark.parametrize("target", [".", "..", "../..", "own"])
def test_a_loop_of_links_ends(tmp_path, target):
    folder = tmp_path / "raw_img" / "x"
    put(folder, "own/1.jpg")
    put(tmp_path / "raw_img" / "other", "2.jpg")
    (folder / "own" / "loop").symlink_to(folder / target)
    (tmp_path / "raw_img" / "other" / "back").symlink_to(folder)
    (folder / "to_other").symlink_to(tmp_path / "raw_img" / "other")
    assert list_images(folder) == ["own/1.jpg", "to_other/2.jpg"]
    assert scan_folder(folder).not_followed == ["own/loop", "to_other/back"]


@needs_links
def test_stage_01_reads_linked_folders_and_writes_below_the_root_alone(root, run_stage):
    disk = root.parent / f"{root.name}_disk"
    for i in range(3):
        (disk / "shop").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (200, 20 * i, 0)).save(disk / "shop" / f"{i}.png")
    before = sorted(disk.rglob("*"))
    (root / "raw_img" / "x").mkdir(parents=True)
    (root / "raw_img" / "x" / "linked").symlink_to(disk)
    put(root / "raw_img" / "x", "a.psd", "notes.txt")
    done = run_stage("01.img_preprocess.py", "--DATASET=x", "--BACKGROUND_METHOD=none")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 .psd; no photographs: 1 .txt" in done.stdout
    assert "4 images in = 3 out + 1 skipped" in done.stdout
    assert list_images(root / "img" / "x") == [f"linked/shop/{i}.png" for i in range(3)]
    assert not (root / "img" / "x" / "linked").is_symlink() and sorted(disk.rglob("*")) == before
    skipped = files.read_csv(root / "data/x/skipped.csv", ["image", "stage", "reason"], "01")
    assert [(row["image"], row["stage"]) for row in skipped] == [("a.psd", "01.img_preprocess.py")]
    assert np.asarray(Image.open(root / "img" / "x" / "linked/shop/2.png"))[0, 0].tolist() == [200, 40, 0]


# ---- names as long as the file system allows -------------------------------------------------------


@pytest.mark.parametrize("stem", ["a" * 251, "가" * 83 + "ab"])
def test_a_name_that_is_too_long_with_its_suffix_is_shortened_and_stays_its_own(stem):
    name = f"folder/{stem}.jpg"
    assert paths.fit_name(name) == name
    fitted = {paths.fit_name(f"folder/{other}.jpg.png") for other in (stem, "b" + stem[1:], stem[:-1] + "c")}
    assert len(fitted) == 3
    for one in fitted:
        assert one.startswith("folder/") and one.endswith(".png") and len(one.encode()) <= 7 + 255


@needs_links
def test_masks_and_folders_of_a_photograph_with_a_long_name_are_made_and_removed(root, run_stage):
    names = [f"{'가' * 83}_{i}.jpg" for i in range(2)]
    (root / "raw_img" / "x").mkdir(parents=True)
    for i, name in enumerate([*names, "short.jpg"]):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste((200, 40 * i, 0), (16, 16, 48, 48))
        picture.save(root / "raw_img" / "x" / name)
    for save_masks, n_masks in (("True", 3), ("False", 0)):
        done = run_stage(
            "01.img_preprocess.py", "--DATASET=x", "--BACKGROUND_METHOD=plain", f"--SAVE_MASKS={save_masks}"
        )
        assert done.returncode == 0, done.stderr
        assert len(list_images(root / "mask" / "x")) == n_masks
    assert list_images(root / "img" / "x") == sorted([*names, "short.jpg"])
    placed = [(f"0/folder__{name}", name) for name in names]
    assert placing.place_files(placed, root / "raw_img" / "x", root / "result" / "x" / "clusters", "copy") == 2
    assert placing.remove_placed(root / "result" / "x" / "clusters", [root / "raw_img" / "x"], "06") == 0
