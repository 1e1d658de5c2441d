"""The order of the stages, the choice of a part of them, and what run_all.py prints."""

import pytest
from conftest import load_stage

run_all = load_stage("run_all.py")


def shown(steps):
    return [(step.key, step.dataset) for step in steps]


def test_plan_trains_first_and_then_clusters():
    assert shown(run_all.plan("bags", "shoes", fine_tuned=True, sample=False)) == [
        ("00", "shoes"),
        ("01", "shoes"),
        ("make_training_image_folders", "shoes"),
        ("02", "shoes"),
        ("00", "bags"),
        ("01", "bags"),
        ("03", "bags"),
        ("04", "bags"),
        ("05", "bags"),
        ("06", "bags"),
    ]


def test_plan_of_one_data_set_does_nothing_twice():
    keys = [step.key for step in run_all.plan("bags", "bags", fine_tuned=True, sample=False)]
    assert keys == ["00", "01", "make_training_image_folders", "02", "03", "04", "05", "06"]


def test_plan_without_training_and_with_the_sample():
    steps = run_all.plan("sample", "sample_train", fine_tuned=False, sample=True)
    assert [step.key for step in steps] == ["make_sample_images", "00", "01", "03", "04", "05", "06"]


def test_chosen_parts():
    steps = run_all.plan("bags", "shoes", fine_tuned=True, sample=False)
    assert run_all.chosen(steps, None, None) == steps
    assert [step.key for step in run_all.chosen(steps, "04", None)] == ["04", "05", "06"]
    assert shown(run_all.chosen(steps, None, "01")) == [("01", "shoes"), ("01", "bags")]
    assert [step.key for step in run_all.chosen(steps, "04.clustering_som.py", None)] == ["04", "05", "06"]
    with pytest.raises(ValueError, match="no stage 09"):
        run_all.chosen(steps, "09", None)


def test_table_reads_images_and_files_from_the_last_line():
    step = run_all.Step("01.img_preprocess.py", "bags", 2.04, 0)
    step.last_line = "5 images in = 4 out + 1 skipped; wrote img/bags/, mask/bags/ in 1.9 s"
    assert run_all.table([step]).splitlines()[1].split() == [
        "01.img_preprocess.py", "bags", "5", "2.0", "img/bags/,", "mask/bags/",
    ]  # fmt: skip


def test_unknown_setting_ends_with_exit_code_2(run_stage):
    done = run_stage("run_all.py", "--DATASETT=x", "--dry-run")
    assert done.returncode == 2 and "nearest is DATASET" in done.stderr


def test_dry_run_lists_and_writes_nothing(run_stage, root):
    done = run_stage("run_all.py", "--dry-run", "--from", "04", "--DATASET=bags")
    assert done.returncode == 0
    assert done.stdout.split() == [
        "04.clustering_som.py", "bags", "05.evaluation.py", "bags", "06.visualization.py", "bags",
    ]  # fmt: skip
    assert list(root.iterdir()) == []


def test_stops_at_the_stage_that_fails_and_says_how_to_go_on(run_stage, root):
    done = run_stage("run_all.py", "--only", "03", "--DATASET=nothing_here")
    assert done.returncode == 1
    assert "img/nothing_here" in done.stderr and "--from 03" in done.stderr
    assert "Traceback" not in done.stderr
