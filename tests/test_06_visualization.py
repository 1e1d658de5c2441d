"""Stage 06 on drawn photographs: pictures, page, hand-over. Its page in a browser: test_report_browser.py."""

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import report_case
from PIL import Image, ImageDraw
from report_case import found_of

from pipeline import images
from pipeline.dataset import write_image
from pipeline.machinery import files, placing
from pipeline.report import handover, page, plane, text, thumbnails
from pipeline.report.grid import build_grid, find_typical_images
from pipeline.report.pictures import common_prefix


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A root where stages 04 to 06 have run."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGE_CLUSTER_ROOT", str(root))
        report_case.make(root)
        report_case.run_all(root, "--CLUSTER_FOLDERS=hardlink")
    return root


# ---- the map's geometry ----------------------------------------------------------------------------


def test_grid_of_a_rectangular_map():
    weights = np.zeros((2, 3, 1))
    weights[0, 1] = 5
    grid = build_grid(weights, "rectangular")
    assert grid.centre.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert sorted(map(tuple, grid.pair.tolist())) == [(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (4, 5)]
    ridge = {tuple(pair): value for pair, value in zip(grid.pair.tolist(), grid.ridge, strict=True)}
    assert ridge[0, 1] == ridge[1, 2] == ridge[1, 4] == 5
    assert ridge[3, 4] == 0
    edge = grid.edge[grid.pair.tolist().index([0, 1])]
    assert sorted(map(tuple, np.round(edge, 6).tolist())) == [(0.5, -0.5), (0.5, 0.5)]
    assert np.allclose(np.abs(grid.polygon[0]), 0.5)


def test_grid_lies_on_its_longer_side():
    grid = build_grid(np.zeros((3, 2, 1)), "rectangular")
    assert np.ptp(grid.centre, axis=0).tolist() == [2, 1]
    assert grid.centre[2].tolist() == [1, 0]  # row 1, column 0


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (1, 3), (3, 1)])
def test_hexagons_touch_their_neighbours_along_the_edges(shape):
    grid = build_grid(np.zeros((*shape, 1)), "hexagonal")
    gaps = np.hypot(*(grid.centre[grid.pair[:, 0]] - grid.centre[grid.pair[:, 1]]).T)
    assert np.allclose(gaps, 1)
    for (a, b), edge in zip(grid.pair, grid.edge, strict=True):
        for end in edge:  # each end of a shared edge is a corner of both hexagons
            for unit in (a, b):
                assert np.hypot(*(grid.polygon[unit] - end).T).min() < 1e-6
    every = np.hypot(*(grid.centre[:, None] - grid.centre[None]).transpose(2, 0, 1))
    assert len(grid.pair) == ((every > 0) & (every < 1.01)).sum() / 2


def test_grid_of_one_unit_has_no_neighbours():
    grid = build_grid(np.zeros((1, 1, 2)), "rectangular")
    assert grid.pair.shape == (0, 2) and grid.edge.shape == (0, 2, 2)


def test_typical_image_of_a_unit_is_the_nearest_and_empty_units_have_none():
    found = found_of([0, 0, 0, 0], unit=np.array([1, 1, 0, 1]), distance=np.array([0.3, 0.2, 0.9, 0.2]))
    assert find_typical_images(found, 3).tolist() == [2, 1, -1]


# ---- sampling, thumbnails --------------------------------------------------------------------------


def test_stratified_sample_has_every_cluster_and_its_share():
    cluster = np.repeat([0, 1, 2], [800, 190, 10])
    sample = plane.draw_stratified_sample(cluster, 100, seed=0)
    counts = np.bincount(cluster[sample])
    assert 95 <= len(sample) <= 100 and len(set(sample.tolist())) == len(sample)
    assert counts.tolist() == [80, 19, 1]
    assert plane.draw_stratified_sample(cluster, 1000, seed=0).tolist() == list(range(1000))
    assert len(plane.draw_stratified_sample(np.arange(50), 10, seed=0)) == 10


def test_thumbnail_is_upright_whole_and_on_white(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left becomes top
    picture = Image.new("RGB", (1200, 600), "blue")
    picture.paste("red", (0, 0, 600, 600))
    picture.save(path, exif=exif)
    tile = thumbnails.read_thumbnail(path, 64)
    assert tile.shape == (64, 64, 3)
    assert (tile[:, :12] > 240).all() and (tile[:, -12:] > 240).all()  # white at both sides of a tall picture
    assert tile[8, 32, 0] > 200 and tile[8, 32, 2] < 60  # red above
    assert tile[56, 32, 2] > 200 and tile[56, 32, 0] < 60  # blue below


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 not a picture", b"GIF89a"])
def test_thumbnail_of_a_damaged_file_is_none(tmp_path, content):
    path = tmp_path / "damaged.jpg"
    path.write_bytes(content)
    assert thumbnails.read_thumbnail(path, 32) is None


def test_thumbnails_get_smaller_and_then_fewer():
    assert page.plan_sprites(100, 50e6, 0.3, 96) == (96, 100)
    side, count = page.plan_sprites(20_000, 30e6, 0.3, 96)
    assert 40 <= side < 96 and count == 20_000
    assert side * side * 0.3 * 20_000 / 0.75 <= 30e6
    side, count = page.plan_sprites(20_000, 1e6, 0.3, 96)
    assert side == 40 and 1000 < count < 2000
    assert page.plan_sprites(10, 0, 0.3, 96) == (40, 0)


def test_with_few_thumbnails_every_cluster_has_its_first_ones():
    found = found_of([0] * 10 + [1] * 3 + [2])
    order = page.order_thumbnails(found, 5)
    assert sorted(np.unique(found.cluster[order], return_counts=True)[1].tolist()) == [1, 2, 2]
    assert set(found.medoid.values()) <= set(order.tolist())
    assert page.order_thumbnails(found, 99).tolist() == found.order.tolist()


def test_neighbouring_groups_of_points_do_not_share_a_colour():
    rng = np.random.default_rng(0)
    positions = rng.random((150, 2))
    styles = plane.choose_styles(positions)
    assert len(set(styles)) > 60
    gaps = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(gaps, np.inf)
    same = [styles[i][0] == styles[j][0] for i, j in enumerate(gaps.argmin(axis=1))]
    assert np.mean(same) < 0.05


def test_model_names_lose_what_they_all_begin_with():
    assert common_prefix(["6600012", "6600034", "6600077"]) == 4
    assert common_prefix(["a", "b"]) == 0
    assert common_prefix(["6600012"]) == 0


@pytest.mark.parametrize("n_images", [1, 2, 3, 6, 40])
def test_tsne_of_few_images_lies_within_the_square_and_repeats(n_images):
    direction = np.random.default_rng(0).normal(size=(n_images, 8)).astype(np.float32)
    xy = plane.compute_tsne(direction, 30.0, seed=0)
    assert xy.shape == (n_images, 2) and np.isfinite(xy).all() and np.abs(xy).max() <= 1
    assert (xy == plane.compute_tsne(direction, 30.0, seed=0)).all()


def test_tsne_of_identical_images_is_finite():
    assert np.isfinite(plane.compute_tsne(np.ones((20, 4), np.float32), 30.0, seed=0)).all()


# ---- text ------------------------------------------------------------------------------------------


def has_hangul_font() -> bool:
    return not text.find_undrawable(["가방"])


def test_a_character_that_no_font_has_is_said():
    assert text.find_undrawable(["abc\U0010fffd"]) == {"\U0010fffd"}


@pytest.mark.skipif(not has_hangul_font(), reason="no installed font has Hangul (apt install fonts-nanum)")
def test_korean_is_drawn_with_its_own_glyphs():
    drawn = []
    for word in ("가방", "구두", "가방"):
        sheet = Image.new("L", (60, 30), 255)
        text.draw_text(ImageDraw.Draw(sheet), (2, 2), word, 16)
        drawn.append(np.asarray(sheet))
    # boxes for missing glyphs would be the same for both words
    assert (drawn[0] == drawn[2]).all() and (drawn[0] != drawn[1]).any()
    assert (drawn[0] < 128).sum() > 20


def test_a_long_caption_keeps_its_beginning_and_its_end():
    short = text.shorten("6600000012_8000000034_5.jpg", 11, 80)
    assert short.startswith("66") and short.endswith(".jpg") and "…" in short
    assert text.shorten("a.jpg", 11, 80) == "a.jpg"


# ---- the stage as a program ------------------------------------------------------------------------


def test_all_pictures_are_there_as_png_and_svg(finished):
    folder = finished / "result" / "d"
    names = ["tsne", "u_matrix", "hit_map", "photo_map", "sizes", "before_after", "contact_sheets/0"]
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 100, name
        ElementTree.parse(folder / f"{name}.svg")  # well-formed, whatever the file names are
    assert len(list((folder / "contact_sheets").glob("*.png"))) == 3  # CONTACT_SHEETS_MAX


def test_a_second_run_changes_nothing_and_a_forced_one_gives_the_same_bytes(finished):
    folder = finished / "result" / "d"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "report.json"}
    done = report_case.run(finished, "06.visualization.py", "--CLUSTER_FOLDERS=hardlink")
    assert "unchanged: result/d/report.html" in done.stdout
    done = report_case.run(finished, "06.visualization.py", "--CLUSTER_FOLDERS=hardlink", "--REDO=True")
    assert done.returncode == 0, done.stderr
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "report.json"}
    assert [p.name for p in before if before[p] != after.get(p)] == []
    assert before.keys() == after.keys()


def number_at(value, key: str):
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_every_number_on_the_page_is_the_one_in_its_file(finished):
    html = (finished / "result/d/report.html").read_text(encoding="utf-8")
    values = {
        "evaluation.json": json.loads((finished / "result/d/evaluation.json").read_text(encoding="utf-8")),
        "clustering.json": json.loads((finished / "data/d/clustering.json").read_text(encoding="utf-8")),
    }
    shown = re.findall(
        r'<data value="[^"]*" data-file="([^"]*)" data-key="([^"]*)" data-format="([^"]*)">([^<]*)<', html
    )
    for file, key, form, printed in shown:
        assert form % number_at(values[file], key) == printed, key
    keys = {key for _, key, _, _ in shown}
    for score in values["evaluation.json"]["scores"]:
        assert {f"scores.{score}.{part}" for part in ("value", "low", "high")} <= keys
    assert {"n_clusters", "n_models", "n_images", "clusters_error_percent", "silhouette", "map_rows"} <= keys


def page_data(root: Path) -> dict:
    html = (root / "result/d/report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html).group(1))


def test_the_page_has_the_clusters_of_clusters_csv(finished):
    data = page_data(finished)
    rows = files.read_csv(finished / "data/d/clusters.csv", ["image"], "04")
    assert data["names"] == [row["image"] for row in rows]
    assert data["cluster"] == [int(row["cluster"]) for row in rows]
    assert data["confidence"] == [float(row["confidence"]) for row in rows]
    for cluster in data["clusters"]:
        confidence = [float(row["confidence"]) for row in rows if int(row["cluster"]) == cluster["id"]]
        assert cluster["size"] == len(confidence)
        assert cluster["confidence"] == pytest.approx(np.mean(confidence))
        assert data["cluster"][cluster["medoid"]] == cluster["id"]
    assert sorted(data["order"]) == list(range(len(rows)))
    assert data["cuts"][data["current"]]["clusters"] == data["cluster"]
    counts = [cut["n_clusters"] for cut in data["cuts"]]
    assert counts == sorted(counts)


def test_the_page_is_one_file_that_may_load_nothing(finished):
    html = (finished / "result/d/report.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", html, flags=re.S)
    assert not re.search(r"""\b(?:src|href)\s*=\s*["'](?!#|data:)""", markup)
    assert re.findall(r"https?://", html) == []


def test_no_file_name_becomes_markup(finished):
    html = (finished / "result/d/report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in html and "<b>" not in html
    assert html.count("<script>") == 1 and html.count("</script>") == html.count("<script")
    assert "broken &lt;b&gt;.jpg" in html  # the skipped image
    assert set(report_case.HOSTILE + report_case.KOREAN) <= set(page_data(finished)["names"])


def test_the_page_names_the_run(finished):
    html = (finished / "result/d/report.html").read_text(encoding="utf-8")
    assert "BOOTSTRAP_RESAMPLES" in html and "the file is empty" in html
    assert "04.clustering_som.py" in html and "numpy" in html


def test_spreadsheet_opens_in_excel_and_holds_no_formula(finished):
    content = (finished / "result/d/clusters_spreadsheet.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert len(rows) == 60 and sum(row["medoid"] == "1" for row in rows) == len({row["cluster"] for row in rows})
    assert "'=1+1.jpg" in [row["image"] for row in rows]
    assert not any(cell[:1] in "=+-@" for row in rows for cell in row.values() if cell)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1"])
def test_no_cell_begins_a_formula(cell):
    assert handover.escape_cell(cell) == "'" + cell
    assert handover.escape_cell("가방=1.jpg") == "가방=1.jpg"


def test_projector_folder_is_complete_and_in_step(finished):
    folder = finished / "result/d/projector"
    about = json.loads((folder / "projector_config.json").read_text(encoding="utf-8"))["embeddings"][0]
    vectors = np.loadtxt(folder / about["tensorPath"], delimiter="\t")
    assert list(vectors.shape) == about["tensorShape"] and len(vectors) == 60
    metadata = (folder / about["metadataPath"]).read_text(encoding="utf-8").splitlines()
    assert metadata[0].split("\t")[:2] == ["image", "cluster"] and len(metadata) == 61
    assert {line.count("\t") for line in metadata} == {3}
    width, height = about["sprite"]["singleImageDim"]
    with Image.open(folder / about["sprite"]["imagePath"]) as sprite:
        # the projector takes a square of ceil(sqrt(n)) pictures a side
        assert sprite.size == (8 * width, 8 * height)
        names = (finished / "data/d/img_paths.txt").read_text(encoding="utf-8").splitlines()
        first = images.read_bgr(finished / "raw_img/d" / names[9])
        tile = np.asarray(sprite)[height : 2 * height, width : 2 * width].reshape(-1, 3)
        darkest = tile[tile.sum(axis=1).argmin()][::-1].astype(int)
        assert np.abs(darkest - first.reshape(-1, 3)[first.reshape(-1, 3).sum(axis=1).argmin()]).max() < 60


# ---- folders of photographs ------------------------------------------------------------------------

NAMES = [
    ("0/a.jpg", "a.jpg"),
    ("0/b.jpg", "b.jpg"),
    ("1/가__c.jpg", "가/c.jpg"),
]  # in the clusters' folders, and in raw_img/


@pytest.fixture
def folder(root) -> Path:
    """The folder of the clusters' folders; raw_img/d/ holds three drawn photographs, one of them in a folder."""
    for number, (_, name) in enumerate(NAMES):
        (root / "raw_img/d" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / "raw_img/d" / name, report_case.draw(0, number))
    return root / "result/d/clusters"


def place_again(folder: Path, names: list[tuple[str, str]], how: str) -> tuple[int, int]:
    """Remove what was placed, place `names`; returns how many were placed and how many files of others were left."""
    source = folder.parent.parent.parent / "raw_img/d"
    n_left = placing.remove_placed(folder, [source], "06.visualization.py")
    return placing.place_files(names, source, folder, how) if names else 0, n_left


def test_a_photograph_is_named_after_its_cluster_and_its_folder():
    found = found_of([0, 0, 1], names=["a.jpg", "b.jpg", "가/c.jpg"])
    assert sorted(handover.name_in_folders(found)) == NAMES


@pytest.mark.parametrize("how", ["hardlink", "symlink", "copy"])
def test_photographs_lie_in_the_folder_of_their_cluster(folder, root, how):
    assert place_again(folder, NAMES, how) == (3, 0)
    there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))
    assert there == ["0/a.jpg", "0/b.jpg", "1/가__c.jpg"]
    source = root / "raw_img/d/a.jpg"
    assert (folder / "0/a.jpg").read_bytes() == source.read_bytes()
    assert (folder / "0/a.jpg").samefile(source) == (how != "copy")
    assert (folder / "0/a.jpg").is_symlink() == (how == "symlink")

    # other clusters: what was placed moves, nothing is left behind
    assert place_again(folder, [(f"1/{target[2:]}", name) for target, name in NAMES], how) == (3, 0)
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["1"]
    assert place_again(folder, [], how) == (0, 0)
    assert list(folder.iterdir()) == []
    assert source.exists()


@pytest.mark.parametrize("how", ["hardlink", "symlink", "copy"])
def test_files_of_the_user_are_never_overwritten_or_removed(folder, how):
    (folder / "0").mkdir(parents=True)
    (folder / "0/a.jpg").write_text("mine")
    (folder / "0/notes.txt").write_text("mine too")
    assert place_again(folder, NAMES, how) == (3, 2)
    assert (folder / "0/a.jpg").read_text() == "mine"
    assert (folder / "0/a (2).jpg").exists()
    # a placed photograph that the user replaced is the user's from then on
    (folder / "0/b.jpg").unlink()
    (folder / "0/b.jpg").write_text("cropped by hand")
    assert place_again(folder, [], how) == (0, 3)
    assert sorted(p.name for p in (folder / "0").iterdir()) == ["a.jpg", "b.jpg", "notes.txt"]
    assert (folder / "0/b.jpg").read_text() == "cropped by hand"


def test_a_run_killed_between_manifest_and_photographs_leaves_no_doubles(folder):
    place_again(folder, NAMES, "copy")
    (folder / "0/b.jpg").unlink()
    assert place_again(folder, NAMES, "copy") == (3, 0)
    assert sorted(p.name for p in (folder / "0").iterdir()) == ["a.jpg", "b.jpg"]


def test_a_photograph_that_is_gone_is_not_placed(folder, root):
    (root / "raw_img/d/b.jpg").unlink()
    assert place_again(folder, NAMES, "copy") == (2, 0)


def test_place_does_not_overwrite(tmp_path):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    for how in ("hardlink", "symlink", "copy"):
        with pytest.raises(FileExistsError):
            placing.place(tmp_path / "a", tmp_path / "b", how)
    assert (tmp_path / "b").read_text() == "old"


def test_the_stage_placed_hard_links(finished):
    folder = finished / "result/d/clusters"
    rows = files.read_csv(finished / "data/d/clusters.csv", ["image", "cluster"], "04")
    for row in rows:
        assert (folder / row["cluster"] / row["image"].replace("/", "__")).samefile(
            finished / "raw_img/d" / row["image"]
        )


# ---- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_images", [1, 3])
def test_few_images_are_enough(root, n_images):
    names = report_case.make(root, labelled=False)[:n_images]
    data_dir = root / "data/d"
    files.write_npy(data_dir / "features.npy", np.load(data_dir / "features.npy")[:n_images])
    files.write_lines(data_dir / "img_paths.txt", names)
    report_case.run_all(root)
    assert page_data(root)["names"] == names


def test_photographs_that_are_gone_leave_a_page_with_a_warning(root):
    names = report_case.make(root, labelled=False)
    (root / "raw_img/d" / names[0]).unlink()
    (root / "img/d" / names[0]).unlink(missing_ok=True)
    (root / "raw_img/d" / names[1]).write_bytes(b"damaged")
    report_case.run_all(root)
    html = (root / "result/d/report.html").read_text(encoding="utf-8")
    assert "2 photographs could not be read" in html
    assert "no true labels are known" in html


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("evaluation", "result/d/evaluation.json not found: run 05.evaluation.py first"),
        ("clusters", "result/d/evaluation.json was made from another data/d/clusters.csv"),
        ("som", "data/d/som.npz is damaged or lacks"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_keeps_the_earlier_report(finished, tmp_path, damage, sentence):
    root = tmp_path / "root"
    shutil.copytree(finished, root, symlinks=True)
    before = (root / "result/d/report.html").read_bytes()
    if damage == "evaluation":
        (root / "result/d/evaluation.json").unlink()
    elif damage == "clusters":
        path = root / "data/d/clusters.csv"
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    else:
        (root / "data/d/som.npz").write_bytes(b"PK\x03\x04 damaged")
    done = report_case.run(root, "06.visualization.py")
    assert done.returncode == 1
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert (root / "result/d/report.html").read_bytes() == before
