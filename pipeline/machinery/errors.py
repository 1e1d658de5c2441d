"""Errors that a user can mend: each is one sentence, with the exit code that a stage then ends with."""

import errno
import sys


class UserError(Exception):
    """A mistake of the user: one sentence says the fault, the place and the remedy. A stage ends with `exit_code`."""

    exit_code = 1


class SettingError(UserError):
    """A setting that does not exist, or has a value of the wrong kind or out of its range."""

    exit_code = 2


def remedy_of(error: OSError) -> str | None:
    """Return the advice for a file that can't be written; None for an error of another kind."""
    # NumPy's tofile() reports a full disk without a number
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)) or "requested and" in str(error):
        return "make room on the disk and run this again"
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of files (ulimit -f) and run this again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        # on Windows a file that another program has open can't be replaced either
        return (
            "close the file where a program has it open, make the folder writable, or set IMAGE_CLUSTER_ROOT to "
            "another one, and run this again"
        )
    return None


def show_any_text() -> None:
    r"""Show a character that the encoding of the standard output lacks as \uXXXX, rather than end in an error."""
    if hasattr(sys.stdout, "reconfigure"):  # not where a test or a notebook has put another object there
        sys.stdout.reconfigure(errors="backslashreplace")
