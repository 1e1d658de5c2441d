"""Hand-over to other tools, as content of files: a spreadsheet, folders of photographs, the TensorFlow projector."""

import csv
import io
import json
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipeline.report.found import Found

SPRITE_PIXELS = 4096  # side of the projector's sprite at most; it could do with 8,192, of which weak machines fail


def escape_cell(text: str) -> str:
    """Return `text` in a form that no spreadsheet takes for a formula.

    >>> escape_cell("=1+1.jpg")
    "'=1+1.jpg"
    """
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") else text


def render_spreadsheet(found: Found) -> str:
    """Return clusters.csv for people: by cluster, with the true label, safe to open in a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["cluster", "image", "label", "confidence", "runner_up", "outlier", "medoid"])
    for i in found.order:
        cluster = int(found.cluster[i])
        runner_up = "" if found.runner_up[i] < 0 else int(found.runner_up[i])
        cells = [escape_cell(found.names[i]), escape_cell(found.labels[i]), f"{found.confidence[i]:.4f}"]
        writer.writerow([cluster, *cells, runner_up, int(found.outlier[i]), int(found.medoid[cluster] == i)])
    return text.getvalue()


def render_projector(found: Found, vectors: np.ndarray, tiles: np.ndarray, dataset: str) -> Iterator[tuple[str, bytes]]:
    """Return the files of the folder that the TensorFlow projector loads, one at a time: name and content.

    vectors : float32 (n_images, n_axes), the images on their main axes: a browser can't load 10,000 x 2,048 numbers as
        text, and the projector computes main axes anyway
    tiles : uint8 RGB ndarray of shape (n_images, TILE, TILE, 3), of which a square sprite is made
    """
    tensors = io.BytesIO()
    np.savetxt(tensors, vectors, fmt="%.5g", delimiter="\t")
    yield "tensors.tsv", tensors.getvalue()
    del tensors
    clean = [" ".join(name.split()) for name in found.names]
    rows = [
        f"{name}\t{c}\t{confidence:.4f}\t{' '.join(label.split())}\n"
        for name, c, confidence, label in zip(clean, found.cluster, found.confidence, found.labels, strict=True)
    ]
    yield "metadata.tsv", "".join(["image\tcluster\tconfidence\tlabel\n", *rows]).encode()
    n_side = int(np.ceil(np.sqrt(len(tiles))))
    side = int(min(64, SPRITE_PIXELS // n_side))
    sprite = Image.new("RGB", (n_side * side, n_side * side), "white")
    for i in range(len(tiles)):
        small = Image.fromarray(tiles[i]).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
        sprite.paste(small, (i % n_side * side, i // n_side * side))
    jpeg = io.BytesIO()
    sprite.save(jpeg, "JPEG", quality=80)
    yield "sprite.jpg", jpeg.getvalue()
    about = {"embeddings": [{
        "tensorName": dataset, "tensorShape": list(vectors.shape), "tensorPath": "tensors.tsv",
        "metadataPath": "metadata.tsv", "sprite": {"imagePath": "sprite.jpg", "singleImageDim": [side, side]},
    }]}  # fmt: skip
    yield "projector_config.json", (json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode()
    lines = [
        "embeddings {", f"  tensor_name: {json.dumps(dataset, ensure_ascii=False)}", '  tensor_path: "tensors.tsv"',
        '  metadata_path: "metadata.tsv"', '  sprite { image_path: "sprite.jpg"',
        f"    single_image_dim: {side} single_image_dim: {side} }}", "}",
    ]  # fmt: skip
    yield "projector_config.pbtxt", "".join(line + "\n" for line in lines).encode()


def name_in_folders(found: Found) -> list[tuple[str, str]]:
    """Return for each photograph its name in the folders of clusters, `<id>/<name>`, and its own, by cluster."""
    return [(f"{found.cluster[i]}/{found.names[i].replace('/', '__')}", found.names[i]) for i in found.order]
