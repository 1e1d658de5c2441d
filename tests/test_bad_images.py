"""Strangers' files through stage 01: each ends as a good image or as one row of skipped.csv, and the run goes on."""

import csv
import os
import re

import corpus
import numpy as np
import pytest
from PIL import Image, ImageOps
from stages import SETTINGS, STAGES

from pipeline.dataset import list_images
from pipeline.images import read_bgr

STAGE = "01.img_preprocess.py"


def skipped_in(root) -> dict[str, str]:
    with (root / "data" / "x" / "skipped.csv").open(encoding="utf-8", newline="") as handle:
        return {row["image"]: row["reason"] for row in csv.DictReader(handle)}


@pytest.mark.skipif(os.name == "nt", reason="Windows allows neither these names nor named pipes")
def test_each_file_comes_out_or_is_listed_with_a_reason(root, run_stage):
    raw = root / "raw_img" / "x"
    corpus.lay_out(raw, {**corpus.good(), **corpus.bad(), **corpus.either()})
    dead_links = corpus.links(raw)
    done = run_stage(STAGE, "--DATASET=x", "--SAVE_MASKS=True")
    assert done.returncode == 0, done.stderr
    out, skipped = list_images(root / "img" / "x"), skipped_in(root)
    assert sorted([*out, *skipped]) == list_images(raw)
    assert set(corpus.good()) <= set(out)
    assert {*corpus.bad(), *dead_links} == set(skipped) - set(corpus.either())
    assert all(len(reason) > 3 for reason in skipped.values())
    assert f"= {len(out)} out + {len(skipped)} skipped" in done.stdout.splitlines()[-1]
    for name in out:
        image_bgr = read_bgr(root / "img" / "x" / name)
        mask = np.asarray(Image.open(root / "mask" / "x" / (name + ".png")))
        assert mask.shape == image_bgr.shape[:2] and set(np.unique(mask)) <= {0, 255}


def test_exif_turned_copies_come_out_upright(root, run_stage):
    raw = root / "raw_img" / "x"
    turns = {name: data for name, data in corpus.good().items() if "exif" in name and "broken" not in name}
    corpus.lay_out(raw, turns)
    assert run_stage(STAGE, "--DATASET=x", "--BACKGROUND_METHOD=none").returncode == 0
    for i in range(1, 9):
        expected = np.asarray(ImageOps.exif_transpose(Image.open(raw / f"1_1_exif{i}.jpg")).convert("RGB"))[
            ..., ::-1
        ].astype(int)
        written = read_bgr(root / "img" / "x" / f"1_1_exif{i}.jpg").astype(int)
        assert written.shape == expected.shape and np.abs(written - expected).mean() < 3


def test_all_unreadable_ends_with_a_sentence_and_leaves_earlier_results(root, run_stage):
    raw = root / "raw_img" / "x"
    corpus.lay_out(raw, {"1_1_a.jpg": corpus.encoded(corpus.product())})
    assert run_stage(STAGE, "--DATASET=x").returncode == 0
    before = (root / "img" / "x" / "1_1_a.jpg").read_bytes()
    (raw / "1_1_a.jpg").write_bytes(b"")
    done = run_stage(STAGE, "--DATASET=x")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert (root / "img" / "x" / "1_1_a.jpg").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_unreadable_permissions(root, run_stage):
    raw = root / "raw_img" / "x"
    corpus.lay_out(raw, {"1_1_a.jpg": corpus.encoded(corpus.product()), "1_1_b.jpg": b"x"})
    (raw / "1_1_b.jpg").chmod(0)
    assert run_stage(STAGE, "--DATASET=x").returncode == 0
    assert "ermission" in skipped_in(root)["1_1_b.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows allows neither these names nor named pipes")
def test_no_stage_loses_any_of_them(root, run_stage):
    raw = root / "raw_img" / "x"
    corpus.lay_out(raw, {**corpus.good(), **corpus.bad(), **corpus.either()})
    corpus.links(raw)
    n_raw, n_cleaned = len(list_images(raw)), 0
    for stage in STAGES:
        done = run_stage(stage, *SETTINGS)
        assert done.returncode == 0, (stage, done.stderr)
        counts = re.search(r"(\d+) images in = (\d+) out \+ (\d+) skipped", done.stdout).groups()
        n_in, n_out, n_skipped = map(int, counts)
        assert n_in == n_out + n_skipped, stage
        # 00 counts the photographs, and so does 01; what comes behind begins with what 01 let through
        assert n_in == (n_raw if stage[:2] in ("00", "01") else n_cleaned), stage
        n_cleaned = n_out if stage == STAGE else n_cleaned
    with (root / "result" / "x" / "clusters_spreadsheet.csv").open(encoding="utf-8-sig", newline="") as handle:
        named = {row["image"] for row in csv.DictReader(handle)}
    assert {"'=1_1_cmd|calc.jpg", "'-1_1_dash.jpg", "1_1_plain.jpg"} <= named
    assert not [name for name in named if name[0] in "=+-@"]
