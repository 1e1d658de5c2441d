"""Photographs placed into folders for people, as links or copies; only files placed here are ever removed.

The manifest `.placed.json` of a folder lists the files that a run of the program placed; a file that someone else put
there or changed stays as it is.
"""

import errno
import filecmp
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pipeline.machinery import files
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import check_within_root, display_path, fit_name

MANIFEST = ".placed.json"


def place_files(names: Sequence[tuple[str, str]], source: Path, folder: Path, how: str) -> int:
    """Place files of `source` into `folder`; returns how many.

    names : for each file its name in `folder`, `<inner folder>/<name>`, and its name in `source`; files that are gone
        are left out, and one whose name is taken gets a number behind its name
    how : "hardlink", "symlink" or "copy"
    """
    plan: dict[str, str] = {}
    for target, name in names:
        if (source / name).is_file():
            plan[find_free_name(folder, fit_name(target), plan)] = name
    # written before the first file: a run that is killed leaves nothing that the next one does not know as its own
    files.write_json(folder / MANIFEST, {"from": display_path(source), "placed": plan})
    for target, name in tqdm(plan.items(), desc="folders", unit="image", disable=None):
        check_within_root(folder / target).parent.mkdir(parents=True, exist_ok=True)
        place(source / name, folder / target, how)
    return len(plan)


def remove_placed(folder: Path, sources: Sequence[Path], stage: str) -> int:
    """Remove the files that the manifest lists and that are still as they were placed, and folders left empty.

    sources : the folders that files may have been placed from; stage : the script to run again, for error sentences
    Returns the number of other files in the inner folders. Raises UserError where the manifest is damaged.
    """
    for target, origin in read_manifest(folder, sources, stage).items():
        if is_placed(check_within_root(target), origin):
            target.unlink()
    check_within_root(folder / MANIFEST).unlink(missing_ok=True)
    n_left = 0
    for inner in sorted(folder.glob("*")) if folder.is_dir() else ():
        if inner.is_dir() and not inner.is_symlink():
            files.remove_temporaries(inner)
            n_left += sum(1 for _ in inner.iterdir())
            if not any(inner.iterdir()):
                inner.rmdir()
    return n_left


def read_manifest(folder: Path, sources: Sequence[Path], stage: str) -> dict[Path, Path]:
    """Return the files that the manifest lists: path of the placed file -> its origin's, below one of `sources`."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        return {}
    source_of = {display_path(source): source for source in sources}
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        source = source_of[record["from"]]
        found = {folder / target: source / name for target, name in record["placed"].items()}
        # a manifest from elsewhere must not make a stage remove files in other folders
        good = all(".." not in [*t.parts, *o.parts] and t.parent.parent == folder for t, o in found.items())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        good = False
    if not good:
        raise UserError(
            f"{display_path(manifest)} is damaged, so it is not known which photographs in {display_path(folder)}/ are "
            f"copies: remove that folder and run {stage} again"
        )
    return found


def find_free_name(folder: Path, name: str, taken: dict[str, str]) -> str:
    """Return `name`, or " (2)", " (3)", ... behind its stem where a file of that name is there or planned."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (a name with "/", not a path of this system)
    number, candidate = 1, name
    while candidate in taken or os.path.lexists(folder / candidate):
        number += 1
        candidate = fit_name(f"{stem} ({number}){suffix}")
    return candidate


def place(origin: Path, target: Path, how: str) -> None:
    """Make `target` a hard link ("hardlink"), symbolic link ("symlink") or copy ("copy") of `origin`.

    Where the file system has no such links, a copy. Raises FileExistsError rather than overwriting `target`.
    """
    try:
        if how == "hardlink":
            os.link(origin.resolve(), target)
            return
        if how == "symlink":
            target.symlink_to(os.path.relpath(origin, target.parent))
            return
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        pass
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists already", str(target))
    with files.atomic_write(target) as temporary:
        shutil.copyfile(origin, temporary)


def is_placed(target: Path, origin: Path) -> bool:
    """Return whether `target` is a link to `origin` or a copy of it, as `place` makes them."""
    if target.is_symlink():
        return os.readlink(target) == os.path.relpath(origin, target.parent)  # noqa: PTH115 (as it was written)
    if not target.is_file() or not origin.is_file():
        return False
    return target.samefile(origin) or filecmp.cmp(target, origin, shallow=False)
