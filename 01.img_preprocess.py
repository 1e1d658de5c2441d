"""Stage 01: remove the background of the photographs.

    python 01.img_preprocess.py
    python 01.img_preprocess.py --DATASET=bags --SAVE_MASKS=True
    python 01.img_preprocess.py --BACKGROUND_METHOD=sobel

The product keeps its pixels, everything else becomes white. With BACKGROUND_METHOD = "auto" each image is looked at:
a ground that a smooth surface of colour explains (white, gradient, studio) is removed by the distance to that surface,
any other by GrabCut at a small size, started from the distance to the colours of the border. An alpha channel
is taken as the mask. Where the mask can't be trusted the image keeps all its pixels: a product is never lost.
Only new and changed images are done again; a changed setting redoes all.

Reads: raw_img/<DATASET>/
Writes: img/<DATASET>/ (same names), mask/<DATASET>/ (where SAVE_MASKS: name + ".png", 0 and 255),
    data/<DATASET>/preprocess.csv (image,method,foreground_fraction,trust),
    data/<DATASET>/skipped.csv (image,stage,reason), data/<DATASET>/preprocess.json
Config: DATASET, BACKGROUND_METHOD, BACKGROUND_MIN_TRUST, SAVE_MASKS, N_JOBS, REDO
"""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import joblib
import numpy as np
from tqdm import tqdm

import config
from pipeline import files, images, settings

STAGE = "01.img_preprocess.py"
WORK_SIZE = 320  # longest side at which masks are found, pixels
GRABCUT_SIZE = 128  # longest side at which GrabCut works, pixels
MIN_FOREGROUND = 0.004  # share of the image; a smaller product is taken for a failure
MAX_FOREGROUND = 0.97  # share of the image; a larger product leaves no ground to remove


# ---- masks ---------------------------------------------------------------------------------------


def to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a uint8 BGR image (H, W, 3) as float32: L 0..100, a and b about -127..127."""
    return cv2.cvtColor(image_bgr.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)


def disc(radius: int) -> np.ndarray:
    """Structuring element of that radius in pixels."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def quadratic(height: int, width: int) -> np.ndarray:
    """The terms 1, x, y, xx, xy, yy with x and y from -1 to 1: float32 (height, width, 6)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def ring_of(height: int, width: int, share: float) -> np.ndarray:
    """The pixels nearer to the border than `share` of the longest side: bool (height, width)."""
    ring = np.ones((height, width), bool)
    b = max(2, round(share * max(height, width)))
    ring[b:-b, b:-b] = False
    return ring


def fit_surface(terms: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares: terms (n, 6), values (n, 3), weights (n,) -> coefficients (6, 3)."""
    weighted = terms * weights[:, None]  # (n, 6)
    normal = weighted.T @ terms + 1e-5 * len(terms) * np.eye(terms.shape[1], dtype=np.float32)
    return np.linalg.solve(normal, weighted.T @ values)


def ground_distance(lab: np.ndarray) -> tuple[np.ndarray, float, float]:
    """How far each pixel is from a smooth ground: a quadratic surface in L*a*b*, fitted robustly to the border.

    Iteratively reweighted least squares with Tukey's biweight, on a small copy; then once more on all pixels that
    the surface explains.

    Parameters
    ----------
    lab : float32 ndarray of shape (H, W, 3)

    Returns
    -------
    distance : float32 ndarray of shape (H, W), CIE76 colour difference to the surface
    explained : share of the border's pixels nearer than 6 to the surface, 0..1; plain grounds have over 0.9
    noise : median distance on the border
    """
    height, width = lab.shape[:2]
    shrink = max(1.0, max(height, width) / 75)
    small_width, small_height = max(8, round(width / shrink)), max(8, round(height / shrink))
    small = cv2.resize(lab, (small_width, small_height), interpolation=cv2.INTER_AREA)
    terms = quadratic(small_height, small_width)
    ring = ring_of(small_height, small_width, 0.04)
    ring_terms, ring_values = terms[ring], small[ring]

    coefficients = np.zeros((6, 3), np.float32)
    coefficients[0] = np.median(ring_values, axis=0)
    scale = 20.0
    for _ in range(6):
        rest = np.linalg.norm(ring_values - ring_terms @ coefficients, axis=1)
        weights = np.clip(1 - (rest / (3 * scale)) ** 2, 0, 1) ** 2
        coefficients = fit_surface(ring_terms, ring_values, weights + 1e-6)
        rest = np.linalg.norm(ring_values - ring_terms @ coefficients, axis=1)
        scale = np.clip(3.7 * np.median(rest), 1.5, scale)
    for _ in range(2):
        rest = np.linalg.norm(small - terms @ coefficients, axis=-1)
        near = rest < 5
        if near.sum() > 50:
            weights = (1 - (rest[near] / 8) ** 2) ** 2
            coefficients = fit_surface(terms[near], small[near], weights)
    rest = np.linalg.norm(ring_values - ring_terms @ coefficients, axis=1)
    surface = quadratic(height, width) @ coefficients.astype(np.float32)  # (H, W, 3)
    distance = np.linalg.norm(lab - surface, axis=-1)
    return distance, float((rest < 6).mean()), float(np.median(rest))


def plain_mask(distance: np.ndarray, noise: float) -> np.ndarray:
    """The product on a smooth ground from `ground_distance`: bool (H, W).

    A pixel belongs to it where it is further from the ground than the noise and than 45 % of its neighbourhood's
    greatest distance (so that the edge lies in the middle of the blend of product and ground), and hangs together with
    a pixel far from the ground. Shop text goes, holes that show no ground are filled.
    """
    local = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    weak = ((distance > max(5.0, 4 * noise)) & (distance > 0.45 * local)).astype(np.uint8)
    _, parts = cv2.connectedComponents(weak, connectivity=8)
    strong = np.zeros(parts.max() + 1, bool)
    strong[parts[distance > 12]] = True
    strong[0] = False
    return fill_holes(without_text(strong[parts]), distance)


def without_text(mask: np.ndarray) -> np.ndarray:
    """Keep the largest part of a mask (H, W) and those of an eighth of its area that do not look like a line of text.

    Parts nearer to each other than 2 % of the longest side count as one, so the letters of a word do.
    """
    side = max(mask.shape)
    joined = cv2.dilate(mask.astype(np.uint8), disc(max(1, round(0.02 * side))))
    n, parts, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    if n <= 2:
        return mask
    area = np.bincount(parts[mask], minlength=n)
    largest = area.argmax()
    keep = area >= 0.12 * area[largest]
    for i in np.flatnonzero(keep):
        x, y, w, h, _ = boxes[i]
        if i != largest:
            rows, columns = np.nonzero((parts[y : y + h, x : x + w] == i) & mask[y : y + h, x : x + w])
            tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
            keep[i] = tall > 0.13 * side or wide < 1.8 * tall
    keep[0] = False
    return keep[parts] & mask


def fill_holes(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Close gaps narrower than 1 % of the longest side and fill holes, but for those that show the ground.

    A hole shows the ground where its mean `distance` is below 4. A product of the ground's own colour has such holes
    too: where they would take more than half of the filled product they are filled.
    """
    radius = max(1, round(0.006 * max(mask.shape)))
    pad = radius + 2
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    far = cv2.copyMakeBorder(distance, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, disc(radius))
    n, parts, boxes, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    outside = (parts == parts[0, 0]) & (closed == 0)
    holes = (closed == 0) & ~outside
    size = boxes[:, cv2.CC_STAT_AREA]
    shows_ground = np.bincount(parts.ravel(), far.ravel(), n) < 4 * size
    shows_ground &= size > 0.0004 * mask.size
    shows_ground[parts[0, 0]] = False
    ground = shows_ground[parts] & holes
    if ground.sum() > 0.5 * (closed.sum() + holes.sum()):
        ground[:] = False
    # what closing added next to the ground was a fine detail's outline, elsewhere a gap in the product
    reached = cv2.dilate((outside | ground).astype(np.uint8), disc(radius + 1)) > 0
    filled = (framed > 0) | (holes & ~ground) | ((closed > 0) & ~reached)
    _, parts = cv2.connectedComponents((~filled).astype(np.uint8), connectivity=4)
    free = np.zeros(parts.max() + 1, bool)
    free[parts[outside | ground]] = True
    return (filled | ~free[parts])[pad:-pad, pad:-pad]


def grabcut_mask(image_bgr: np.ndarray) -> np.ndarray:
    """The product on a cluttered ground: GrabCut at GRABCUT_SIZE, started from the distance to the border's colours.

    uint8 BGR (H, W, 3) -> bool (H, W). The border's colours are five clusters in L*a*b*;
    what is far from all of them and near the centre starts as product. Rother, Kolmogorov, Blake: "GrabCut" (2004), doi:10.1145/1015706.1015720.
    """
    height, width = image_bgr.shape[:2]
    scale = min(1.0, GRABCUT_SIZE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    lab = to_lab(small)
    h, w = lab.shape[:2]
    ring = lab[ring_of(h, w, 0.06)]  # (n, 3)
    cv2.setRNGSeed(config.RANDOM_SEED)
    _, nearest, centres = cv2.kmeans(ring, 5, None, (3, 8, 1.0), 1, cv2.KMEANS_PP_CENTERS)
    nearest = nearest.ravel()
    count = np.bincount(nearest, minlength=5)
    spread = np.bincount(nearest, ((ring - centres[nearest]) ** 2).sum(axis=1), 5) / np.maximum(1, 3 * count)
    far = ((lab[:, :, None] - centres) ** 2).sum(axis=-1) / np.maximum(9, spread) + np.where(
        count > 0.03 * len(ring), 0, 50
    )
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    score = np.minimum(np.sqrt(far.min(axis=-1)), 8) * np.exp(-2 * (x * x + y * y))
    state = np.where(score > np.quantile(score, 0.75), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[ring_of(h, w, 0.015)] = cv2.GC_BGD
    cv2.grabCut(small, state, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    found = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def sobel_mask(image_bgr: np.ndarray) -> np.ndarray:
    """The way of 2019: Sobel edges over their mean, outer contours over 5 % of the image's area, filled.

    uint8 BGR (H, W, 3) -> bool (H, W). Kept to compare with.
    """
    smooth = cv2.GaussianBlur(image_bgr, (5, 5), 0)
    edges = np.zeros(image_bgr.shape[:2], np.float32)
    for channel in cv2.split(smooth):
        x, y = cv2.Sobel(channel, cv2.CV_32F, 1, 0), cv2.Sobel(channel, cv2.CV_32F, 0, 1)
        edges = np.maximum(edges, cv2.magnitude(x, y))
    edges = np.minimum(edges, 255)
    strong = (edges > edges.mean()).astype(np.uint8)
    contours, _ = cv2.findContours(strong, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    large = [contour for contour in contours if cv2.contourArea(contour) > 0.05 * strong.size]
    mask = np.zeros(strong.shape, np.uint8)
    cv2.drawContours(mask, large, -1, 1, cv2.FILLED)
    return mask > 0


# ---- one image -----------------------------------------------------------------------------------


def find_mask(image_bgr: np.ndarray, method: str) -> tuple[np.ndarray, str, float]:
    """Find the product at the image's own size, by `method` or by the one that "auto" chooses.

    Returns the mask, bool (H, W), the name of the method that made it, and the trust in it, 0..1.
    """
    if method == "sobel":
        mask = sobel_mask(image_bgr)
        return mask, method, plausible(mask)
    distance, explained, noise = ground_distance(to_lab(image_bgr))
    if method == "auto":
        method = "plain" if explained >= 0.9 else "grabcut"
    mask = plain_mask(distance, noise) if method == "plain" else grabcut_mask(image_bgr)
    return mask, method, plausible(mask) * (explained if method == "plain" else 0.5)


def plausible(mask: np.ndarray) -> float:
    """1 where the share of the image that is product is one that a photograph of a product can have, else 0."""
    return float(MIN_FOREGROUND <= mask.mean() <= MAX_FOREGROUND)


def remove_background(image_bgr: np.ndarray, alpha: np.ndarray | None, method: str) -> tuple[np.ndarray, str, float]:
    """Find the product in an image of any size.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    alpha : uint8 ndarray of shape (H, W) or None; taken as the mask where it hides a part of the image
    method : one of the values of config.BACKGROUND_METHOD

    Returns
    -------
    mask : bool ndarray of shape (H, W); all True where the product could not be found
    method : what made the mask: "alpha", "plain", "grabcut", "sobel" or "none"
    trust : 0..1; a mask below config.BACKGROUND_MIN_TRUST is not used
    """
    whole_image = np.ones(image_bgr.shape[:2], bool)
    if method == "none":
        return whole_image, "none", 1.0
    if alpha is not None and plausible(alpha > 127):
        return alpha > 127, "alpha", 1.0
    height, width = image_bgr.shape[:2]
    scale = min(1.0, WORK_SIZE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if min(size) < 8:
        return whole_image, "none", 0.0
    small = image_bgr if scale == 1 else cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    mask, method, trust = find_mask(small, method)
    if trust < config.BACKGROUND_MIN_TRUST or not plausible(mask):
        return whole_image, "none", trust
    if scale < 1:
        mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return mask, method, trust


def on_white_ground(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The product on white, its edge blended and free of the old ground's colour: uint8 BGR (H, W, 3).

    The outermost pixels, where the camera blended product and ground, take the colour of the product further in.
    """
    if mask.all():
        return image_bgr
    inside = cv2.erode(mask.astype(np.uint8), disc(1)).astype(np.float32)
    weight = cv2.blur(inside, (5, 5))[..., None]
    near = cv2.blur(image_bgr * inside[..., None], (5, 5)) / np.maximum(weight, 1e-3)
    edge = (mask & (inside == 0))[..., None] & (weight > 0.02)  # not where the product is too thin to have an inside
    product = np.where(edge, near, image_bgr)
    opacity = np.where(mask, 0.5 + 0.5 * cv2.blur(mask.astype(np.float32), (3, 3)), 0)[..., None]
    return np.rint(product * opacity + 255 * (1 - opacity)).astype(np.uint8)


def preprocess_image(dataset: str, name: str, overrides: dict[str, object]) -> dict[str, object]:
    """Read one image, remove its background and write it: what one worker does.

    Returns its row of preprocess.csv, or {"image", "reason"} where it can't be read.
    """
    cv2.setNumThreads(1)  # the workers share the cores among them
    vars(config).update(overrides)
    try:
        image_bgr, alpha = images.read_image(files.raw_img_dir(dataset) / name)
        mask, method, trust = remove_background(image_bgr, alpha, config.BACKGROUND_METHOD)
        if alpha is not None:
            image_bgr = images.on_white(image_bgr, alpha)
        clean_bgr = image_bgr if method == "alpha" else on_white_ground(image_bgr, mask)
        images.write_image(files.img_dir(dataset) / name, clean_bgr)
    except images.ImageError as error:
        return {"image": name, "reason": str(error)}
    if config.SAVE_MASKS:
        images.write_image(mask_path(dataset, name), mask.astype(np.uint8) * 255)
    return {
        "image": name,
        "method": method,
        "foreground_fraction": round(float(mask.mean()), 4),
        "trust": round(trust, 3),
    }


# ---- the data set --------------------------------------------------------------------------------


def mask_path(dataset: str, name: str) -> Path:
    """Where the mask of an image lies."""
    return files.mask_dir(dataset) / (name + ".png")


def remove_outputs(dataset: str, name: str) -> None:
    """Remove the cleaned image and the mask of an image that is no longer there, and the folders this leaves empty."""
    for path, top in (
        (files.img_dir(dataset) / name, files.img_dir(dataset)),
        (mask_path(dataset, name), files.mask_dir(dataset)),
    ):
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == top or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def is_done(dataset: str, name: str, row: dict[str, object]) -> bool:
    """Whether the files that `row` of the record speaks of are there as they were written."""
    if "reason" in row:
        return True
    written = row.get("written") == files.fingerprint_file(files.img_dir(dataset) / name)
    return written and (not config.SAVE_MASKS or mask_path(dataset, name).exists())


def in_parallel(dataset: str, names: list[str]) -> Iterator[dict[str, object]]:
    """`preprocess_image` of each name on all cores, in the names' order, without holding more than a few images."""
    current = {name: getattr(config, name) for name in settings.names()}
    workers = joblib.Parallel(settings.n_jobs(), return_as="generator", batch_size="auto", prefer="threads")
    rows = workers(joblib.delayed(preprocess_image)(dataset, name, current) for name in names)
    return iter(tqdm(rows, total=len(names), unit="image", disable=None))


def main() -> None:
    begin = time.perf_counter()
    dataset = config.DATASET
    raw_dir, record_path = files.raw_img_dir(dataset), files.data_dir(dataset) / "preprocess.json"
    table_path, skipped_path = files.data_dir(dataset) / "preprocess.csv", files.data_dir(dataset) / "skipped.csv"
    names = files.images_of(
        raw_dir, f"put the photographs there, or set DATASET to another folder of {files.shown(raw_dir.parent)}/"
    )
    prints = {name: files.fingerprint_file(raw_dir / name) for name in names}
    origin = files.made_from(
        __file__,
        {files.shown(raw_dir): files.fingerprint(prints)},
        ["BACKGROUND_METHOD", "BACKGROUND_MIN_TRUST", "SAVE_MASKS"],
    )

    record = files.read_record(record_path) or {}
    before = record.get("images", {})
    same_way = not config.REDO and all(
        record.get("made_from", {}).get(key) == origin[key] for key in ("code", "settings")
    )
    rows = {
        name: before[name]
        for name in names
        if same_way and name in before and before[name]["raw"] == prints[name] and is_done(dataset, name, before[name])
    }
    to_do = [name for name in names if name not in rows]
    made = {name for name, row in before.items() if "written" in row}
    gone = made - set(names)
    if not to_do and not gone and files.up_to_date(record_path, origin):
        files.unchanged([files.img_dir(dataset), table_path, skipped_path])
        return
    try:
        for row in in_parallel(dataset, to_do):
            name = row["image"]
            written = {} if "reason" in row else {"written": files.fingerprint_file(files.img_dir(dataset) / name)}
            rows[name] = {**row, **written, "raw": prints[name]}
    except KeyboardInterrupt:
        files.write_record(record_path, {**origin, "inputs": {}}, [], images={**before, **rows})
        raise
    if all("reason" in row for row in rows.values()):
        first = rows[names[0]]["reason"]
        raise settings.UserError(
            f"none of the {len(names)} files of {files.shown(raw_dir)}/ can be read as an image, {names[0]} for instance: {first}"
        )
    skipped = [(name, STAGE, rows[name]["reason"]) for name in names if "reason" in rows[name]]
    for name in [*gone, *(name for name, _, _ in skipped if name in made)]:
        remove_outputs(dataset, name)
    columns = ["image", "method", "foreground_fraction", "trust"]
    files.write_csv(
        table_path, columns, [[rows[name][key] for key in columns] for name in names if "reason" not in rows[name]]
    )
    files.write_csv(skipped_path, ["image", "stage", "reason"], skipped)
    files.write_record(record_path, origin, [table_path, skipped_path], images={name: rows[name] for name in names})
    wrote = [files.img_dir(dataset), table_path, skipped_path]
    files.summary(len(names), len(names) - len(skipped), len(skipped), wrote, time.perf_counter() - begin)


if __name__ == "__main__":
    settings.run(main, __doc__)
