"""Import TensorFlow quietly, and say what this machine computes fast.

TensorFlow is imported by the functions that need it, since a stage with nothing to do must not wait for it.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hide what native code writes to the standard error output; Python's exceptions are raised as ever."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without a standard error output
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def tensorflow() -> ModuleType:
    """Import TensorFlow without its greetings, with as many threads as the machine has cores.

    The number of threads is not N_JOBS: each number of threads adds up gradients in another order, and trains other
    weights. On how many cores these threads run changes nothing.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    # without an NVIDIA driver TensorFlow logs an error about it at each start; what fails is raised in any case
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if shutil.which("nvidia-smi") else "3")
    with silent_stderr():  # some lines are written before the log level is looked at
        import absl.logging
        import tensorflow as tf

    absl.logging.set_verbosity(absl.logging.ERROR)  # keras calls .h5 a legacy format at each save
    tf.get_logger().setLevel("ERROR")  # it warns that several networks are read, one after the other
    tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count() or 1)
    return tf


def disable_amx() -> None:
    """Have oneDNN, which TensorFlow computes with, leave AMX alone; to be called before the first computation.

    In training in bfloat16 its kernels for AMX let foreign values into their results (uxlfoundation/oneDNN issue 5717):
    other weights each time, or NaN. Those for AVX512-BF16 do not.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the processor (AVX512-BF16 or AMX, as Linux lists it) or a GPU multiplies in bfloat16 natively."""
    try:
        flags = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return True
    tf = tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    return any(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))[0] >= 8 for gpu in gpus)


def choose_dtype(asked: str) -> str:
    """Return `asked`, with "auto" decided: "bfloat16" where the processor is fast at it, else "float32"."""
    if asked != "auto":
        return asked
    return "bfloat16" if has_fast_bfloat16() else "float32"
