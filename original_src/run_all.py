"""Run the baseline: MobileNetV2 without fine-tuning, K-means with K = number of images / NUM_IMGS_PER_MODEL.

    python original_src/run_all.py
    python original_src/run_all.py --DATASET=bags       with another value of a setting of config.py

Each step is its own process. Data sets without labels are clustered, not scored.
"""

import subprocess
import sys
import time
from pathlib import Path

STEPS = ("make_labels_true.py", "extract_features.py", "make_labels_pred.py", "evaluation.py", "visualize.py")
NO_LABELS = 3  # exit code of make_labels_true.py


def main() -> int:
    """Run the steps in order; returns the exit code of the first that fails, or 0."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(__doc__.strip())
        return 0
    has_labels, seconds = True, {}
    for step in STEPS:
        if step == "evaluation.py" and not has_labels:
            continue
        begin = time.perf_counter()
        print(f"--- {step}", flush=True)
        code = subprocess.run(
            [sys.executable, Path(__file__).resolve().parent / step, *arguments], check=False
        ).returncode
        seconds[step] = time.perf_counter() - begin
        has_labels = has_labels and code != NO_LABELS
        if code not in (0, NO_LABELS):
            return code
    print("--- " + ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
