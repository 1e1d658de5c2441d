"""The former names of what stands in `pipeline.machinery`; goes when nothing uses them."""

# ruff: noqa: F401
from pipeline.machinery.errors import SettingError, UserError, remedy_of
from pipeline.machinery.kinds import split_names as listed
from pipeline.machinery.run import alone, run
from pipeline.machinery.run import report_error as report
from pipeline.machinery.settings import (
    apply_overrides,
    check,
    comment_of,
    contract,
    n_jobs,
    names,
)
