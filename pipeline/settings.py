"""The former names of what stands in `pipeline.machinery`; goes when nothing uses them."""

# ruff: noqa: F401
from pipeline.machinery.errors import SettingError, UserError, remedy_of
from pipeline.machinery.run import alone, run
from pipeline.machinery.run import report_error as report
from pipeline.machinery.settings import (
    VALID,
    any_of,
    apply_overrides,
    check,
    comment_of,
    contract,
    is_text,
    listed,
    n_jobs,
    names,
    number,
    one_of,
    whole_number,
)
