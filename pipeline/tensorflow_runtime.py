"""Import TensorFlow quietly, and choose the number type that this machine computes fast.

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
    """Hide the messages of native code on the standard error output; Python's exceptions are raised as usual."""
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
    """Keep oneDNN, TensorFlow's library of kernels, from using AMX; call this before the first computation.

    Its AMX kernels read values outside their inputs while training in bfloat16 (uxlfoundation/oneDNN issue 5717), so
    that the weights differ each time or become NaN. Its AVX512-BF16 kernels do not.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor (AVX512-BF16 or AMX, as Linux lists them) or a GPU multiplies bfloat16 natively."""
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
