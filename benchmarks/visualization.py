"""How long stage 06 takes, how large its report is, and how smoothly the report scrolls.

    python benchmarks/visualization.py                     10,000 photographs of 150 models
    python benchmarks/visualization.py --images 20000 --browser

Photographs (300 x 300) are drawn and features are random around one centre for each model, so that nothing but this
project is needed; stages 04 and 05 run first. With --browser, Chromium opens the report and scrolls through all of
it: the times between two frames are what a person feels (16.7 ms is smooth, above 100 ms it stutters).
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import joblib
import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pipeline.machinery import files  # noqa: E402


def draw(path: Path, model: int, number: int) -> None:
    """Draw a photograph of a model: its own polygon and colour, at the image's own place and turn, on noisy ground."""
    shape, place = np.random.default_rng(model), np.random.default_rng(number)
    angle = np.sort(shape.uniform(0, 2 * np.pi, 9)) + place.uniform(0, 2 * np.pi)
    radius = shape.uniform(40, 110, 9) * place.uniform(0.8, 1.1)
    corner = 150 + place.uniform(-20, 20, 2) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    image_bgr = np.full((300, 300, 3), 245, np.uint8) - place.integers(0, 20, (300, 300, 3), dtype=np.uint8)
    cv2.fillPoly(image_bgr, [corner.astype(np.int32)], shape.integers(0, 230, 3).tolist())
    cv2.imwrite(str(path), image_bgr)


def make(root: Path, n_images: int, n_models: int) -> None:
    """Photographs, features (n_images, 2048) and labels in `root`, data set "d"."""
    rng = np.random.default_rng(0)
    model = np.sort(rng.integers(0, n_models, n_images))
    names = [f"{m:04}_{i:06}_0.jpg" for i, m in enumerate(model)]
    for folder in ("raw_img", "img"):
        (root / folder / "d").mkdir(parents=True)
    jobs = (joblib.delayed(draw)(root / "img/d" / name, model[i], i) for i, name in enumerate(names))
    joblib.Parallel(-1, backend="threading")(jobs)
    for name in names:
        os.link(root / "img/d" / name, root / "raw_img/d" / name)
    centre = rng.normal(size=(n_models, 2048)).astype(np.float32)
    noise = rng.normal(size=(n_images, 2048)).astype(np.float32)
    files.write_npy(root / "data/d/features.npy", np.maximum(centre[model] + 1.6 * noise, 0))
    files.write_lines(root / "data/d/img_paths.txt", names)
    labels = ((name, f"model {m}") for name, m in zip(names, model, strict=True))
    files.write_csv(root / "data/d/labels_true.csv", ["image", "label"], labels)


def run(root: Path, stage: str) -> float:
    """Run a stage; returns its seconds."""
    begin = time.perf_counter()
    environment = {**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}
    subprocess.run([sys.executable, str(PROJECT / stage), "--DATASET=d"], check=True, env=environment)
    return time.perf_counter() - begin


def scroll(report: Path) -> dict[str, float]:
    """Open the report and scroll through it at 3,000 pixels a second, at most 60 s; milliseconds between frames."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as profile:
        for switch in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1300,900", f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        driver.set_script_timeout(120)
        begin = time.perf_counter()
        driver.get(report.as_uri())
        driver.execute_script("return document.querySelectorAll('.card').length")
        seconds = time.perf_counter() - begin
        frames = driver.execute_async_script(
            """const done = arguments[0], frames = []; let last = null, y = 0, start = null;
            document.documentElement.style.scrollBehavior = 'auto';
            requestAnimationFrame(function step(now) {
              if (last === null) start = now;
              else { frames.push(now - last); y += 3 * (now - last); scrollTo(0, y); }
              last = now;
              const end = document.documentElement.scrollHeight - innerHeight;
              if (now - start < 60000 && y < end) requestAnimationFrame(step); else done(frames);
            });"""
        )
        heap = driver.execute_script("return performance.memory.usedJSHeapSize") / 1e6
        driver.quit()
    return {"open_s": seconds, "median_ms": float(np.median(frames)), "p95_ms": float(np.quantile(frames, 0.95)),
            "worst_ms": max(frames), "frames": len(frames), "heap_mb": heap}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=150)
    parser.add_argument("--browser", action="store_true", help="also open the report and scroll through it")
    parser.add_argument("--keep", type=Path, help="use this folder and keep it; drawn only where it is empty")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        os.environ["IMAGE_CLUSTER_ROOT"] = str(root)
        if not (root / "data").exists():
            make(root, options.images, options.models)
        for stage in ("04.clustering_som.py", "05.evaluation.py"):
            print(f"{stage}: {run(root, stage):.1f} s")
        (root / "result/d/report.json").unlink(missing_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = run(root, "06.visualization.py")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # on a machine that does other work as well, the time of its cores says more than the clock
        cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        peak = after.ru_maxrss / 1e6
        report = root / "result/d/report.html"
        print(f"stage 06: {options.images} photographs in {seconds:.1f} s (limit 180 s), {cores:.1f} core seconds; "
              f"report {report.stat().st_size / 1e6:.1f} MB, peak memory of a stage {peak:.2f} GB")  # fmt: skip
        if options.browser:
            print("scrolling: " + ", ".join(f"{name} {value:.1f}" for name, value in scroll(report).items()))


if __name__ == "__main__":
    main()
