"""The former names of what stands in `pipeline.machinery` and `pipeline.dataset`; goes when nothing uses them."""

# ruff: noqa: F401
import config
from pipeline.dataset import images_of, list_images, name_problem, read_features
from pipeline.machinery import paths
from pipeline.machinery.errors import UserError, remedy_of
from pipeline.machinery.files import (
    atomic_write as whole,
)
from pipeline.machinery.files import (
    plain as _plain,
)
from pipeline.machinery.files import (
    read_csv,
    read_json,
    read_lines,
    read_npy,
    read_npz,
    remove_temporaries,
    require,
    write_csv,
    write_json,
    write_lines,
    write_npy,
)
from pipeline.machinery.paths import (
    check_within_root as inside,
)
from pipeline.machinery.paths import (
    data_dir,
    img_dir,
    mask_dir,
    mask_true_dir,
    model_dir,
    raw_img_dir,
    result_dir,
    root,
    training_images_dir,
)
from pipeline.machinery.paths import (
    display_path as shown,
)
from pipeline.machinery.records import (
    as_written,
    check_in_step,
    fingerprint,
    fingerprint_file,
    fingerprint_folder,
    made_from,
    read_record,
    recorded,
    up_to_date,
    write_record,
)
from pipeline.machinery.run import summary, unchanged
