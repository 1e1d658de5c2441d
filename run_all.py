"""Run the whole pipeline, each stage as its own process; on the drawn sample unless config.py says otherwise.

    python3 run_all.py                     everything; stages whose inputs have not changed are skipped and say so
    python3 run_all.py --from 04           from 04.clustering_som.py on
    python3 run_all.py --only 04           that stage alone
    python3 run_all.py --dry-run           only show which stages would run
    python3 run_all.py --DATASET=bags      with another value of a setting of config.py, for every stage

Needs Python 3.10 to 3.13 and pip, nothing else: makes .venv and installs requirements.txt there. Draws the sample
where DATASET or TRAIN_DATASET is part of it. TRAIN_DATASET goes through 00, 01, make_training_image_folders and 02
(not with FEATURE_NETWORK = "pretrained"), then DATASET through 00, 01 and 03 to 06.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.machinery import environment

PROJECT = Path(__file__).resolve().parent
DRAWING = "make_sample_images.py"
TRAINING = (
    "00.make_labels_true.py",
    "01.img_preprocess.py",
    "make_training_image_folders.py",
    "02.feature_network_fine_tuning.py",
)
CLUSTERING = (
    "00.make_labels_true.py",
    "01.img_preprocess.py",
    "03.feature_extraction.py",
    "04.clustering_som.py",
    "05.evaluation.py",
    "06.visualization.py",
)
NO_LABELS = 3  # exit code of 00.make_labels_true.py


@dataclass
class Step:
    """One stage on one data set, and its results."""

    stage: str
    dataset: str
    seconds: float = 0.0
    exit_code: int = 0
    last_line: str = ""

    @property
    def key(self) -> str:
        """How --from and --only name the stage: its number, or its name without .py."""
        return self.stage[:2] if self.stage[:2].isdigit() else self.stage.removesuffix(".py")


def plan(dataset: str, train_dataset: str, fine_tuned: bool, sample: bool) -> list[Step]:
    """Return the stages in order. `sample`: one of the data sets is drawn."""
    steps = [Step(DRAWING, "")] if sample else []
    if fine_tuned:
        steps += [Step(stage, train_dataset) for stage in TRAINING]
    done = {(step.stage, step.dataset) for step in steps}
    return steps + [Step(stage, dataset) for stage in CLUSTERING if (stage, dataset) not in done]


def chosen(steps: list[Step], first: str | None, only: str | None) -> list[Step]:
    """Return the steps from `first` on, or those of `only`; both are a stage's number, name or beginning of the name.

    With neither, all steps. Raises ValueError naming the valid ones where no stage matches.
    """
    wanted = only or first
    if wanted is None:
        return steps
    matching = [step for step in steps if step.key == wanted or step.stage.startswith(wanted)]
    if not matching:
        raise ValueError(f"no stage {wanted}; there are {', '.join(dict.fromkeys(step.key for step in steps))}")
    return matching if only else steps[steps.index(matching[0]) :]


def arguments_of(step: Step, overrides: list[str]) -> list[str]:
    """Return the arguments of a stage: the overrides, and the data set it works on.

    That is DATASET for all but the two stages that only train, for which it is TRAIN_DATASET.
    """
    if step.stage == DRAWING:
        return overrides
    name = "TRAIN_DATASET" if step.stage in TRAINING[2:] else "DATASET"
    others = [argument for argument in overrides if not argument.startswith(f"--{name}=")]
    return [f"--{name}={step.dataset}", *others]


def run_step(step: Step, overrides: list[str]) -> None:
    """Run a stage as its own process and show what it prints; fills in the step's results."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / step.stage), *arguments_of(step, overrides)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        errors="replace",
    )
    interrupted = False
    with process:
        while process.returncode is None:
            try:
                for line in process.stdout or ():
                    print("  " + line.rstrip(), flush=True)
                    step.last_line = line.strip() or step.last_line
                process.wait()
            except KeyboardInterrupt:  # the stage gets it too, and ends in its own time
                interrupted = True
    step.exit_code = 130 if interrupted else process.returncode
    step.seconds = time.perf_counter() - begin


def table(steps: list[Step]) -> str:
    """Return the stages with their data set, images, seconds and what they wrote."""
    rows = [("stage", "data set", "images", "seconds", "wrote")]
    for step in steps:
        images = re.match(r"(\d+) \w+ in = ", step.last_line)
        wrote = re.search(r"wrote (.*) in [\d.]+ s$", step.last_line)
        result = wrote.group(1) if wrote else step.last_line
        rows.append((step.stage, step.dataset, images.group(1) if images else "", f"{step.seconds:.1f}", result))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
        for row in rows
    )


def scores(dataset: str) -> str:
    """Return the scores and the path of the report of `dataset`, in a few lines; empty where they are missing."""
    from pipeline.machinery import files, paths

    evaluation_path, report_path = (paths.result_dir(dataset) / name for name in ("evaluation.json", "report.html"))
    lines = []
    if evaluation_path.exists():
        evaluation = files.read_json(evaluation_path, "05.evaluation.py")
        n_models, ari = evaluation.get("n_models"), (evaluation.get("scores") or {}).get("ari")
        true = f" (true: {n_models})" if n_models else ""
        lines.append(f"clusters predicted: {evaluation.get('n_clusters')}{true}")
        if ari:
            # no interval with a single model, nor with BOOTSTRAP_RESAMPLES = 0
            interval = "" if ari["low"] is None else f" (95 % interval {ari['low']:.3f} to {ari['high']:.3f})"
            lines.append(f"Adjusted Rand Index: {ari['value']:.3f}{interval}")
        lines += [f"warning: {warning}" for warning in evaluation.get("warnings") or []]
    if report_path.exists():
        lines.append(f"report: {report_path}")
    return "\n".join(lines)


def parsed_arguments() -> tuple[argparse.Namespace, list[str]]:
    """Return the options of this program, and the other arguments: overrides of settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--from", dest="first", metavar="STAGE", help="begin with this stage, such as 04")
    parser.add_argument("--only", metavar="STAGE", help="this stage alone")
    parser.add_argument("--dry-run", action="store_true", help="only show which stages would run")
    return parser.parse_known_args()


def steps_of(options: argparse.Namespace, overrides: list[str]) -> list[Step]:
    """Return the steps to run, by config.py with the overrides; raises SettingError for a wrong override."""
    import config
    from pipeline.machinery import settings
    from pipeline.machinery.errors import SettingError

    settings.apply_overrides(overrides)
    settings.check()
    fine_tuned = config.FEATURE_NETWORK == "fine-tuned"
    needed = {config.DATASET, config.TRAIN_DATASET} if fine_tuned else {config.DATASET}
    drawn = {config.SAMPLE_NAME, f"{config.SAMPLE_NAME}_train"}
    steps = plan(config.DATASET, config.TRAIN_DATASET, fine_tuned, sample=bool(needed & drawn))
    try:
        return chosen(steps, options.first, options.only)
    except ValueError as error:
        raise SettingError(str(error)) from None


def may_lack_labels(step: Step) -> bool:
    """Whether `step` reads labels that the later stages can do without: not those of the images to train on."""
    import config

    return step.stage == CLUSTERING[0] and step.dataset == config.DATASET != config.TRAIN_DATASET


def main() -> int:
    options, overrides = parsed_arguments()
    environment.enter("requirements.txt")

    import config
    from pipeline.machinery import run
    from pipeline.machinery.errors import SettingError

    try:
        steps = steps_of(options, overrides)
    except SettingError as error:
        return run.report_error(str(error), error.exit_code)
    if options.dry_run:
        print("\n".join(f"{step.stage}  {step.dataset}" for step in steps))
        return 0
    for i, step in enumerate(steps):
        print(f"[{i + 1}/{len(steps)}] {step.stage}  {step.dataset}", flush=True)
        run_step(step, overrides)
        if step.exit_code == NO_LABELS and may_lack_labels(step):
            print(f"  {step.dataset} has no labels: the stages go on without the scores that need them")
            step.last_line = "no labels"
        elif step.exit_code:
            print(f"\nstopped at {step.stage}; go on with: python3 run_all.py --from {step.key}", file=sys.stderr)
            return step.exit_code
    print("\n" + table(steps) + "\n\n" + scores(config.DATASET))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("error: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)
