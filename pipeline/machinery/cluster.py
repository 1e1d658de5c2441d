"""The workers of a Dask cluster as a pool of `executor`, over a folder that all machines see under the same path.

A worker imports this project, whose folder is its working directory or on its PYTHONPATH; see README.md. What a Dask
cluster trusts, and how to close it, is said in SECURITY.md.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import ipaddress
import itertools
import logging
import os
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from threadpoolctl import threadpool_limits

from pipeline.machinery import settings
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import PROJECT, check_within_root, root
from pipeline.machinery.shared_arrays import SharedArrays

if TYPE_CHECKING:
    import distributed

CONNECT_SECONDS = 30  # a scheduler that does not answer for so long is not there
PATIENCE_SECONDS = 60  # without any worker the stage waits so long for one to come
POLL_SECONDS = 0.5  # between two looks at whether there are workers, and whether Ctrl-C was pressed
RESUME = "and run this again: what is done is kept"
ENDING_SECONDS = 30  # for a worker to finish the item that it is at, once the rest is not wanted any more


class UnfitWorkerError(Exception):
    """A worker can't do this run's work; `args` are its address and why."""


class Order(NamedTuple):
    """What a worker is told with every piece of a run's work."""

    root: str
    marker: str  # path of a file below the root, which is there as long as the work is wanted
    code: str  # `code_print`
    settings: dict[str, object]  # every constant of config.py


class Connection:
    """A client of a Dask scheduler; all maps over it share the list of unfit workers and the files of arrays.

    address : of the scheduler, "tcp://host:8786", or "tls://host:8786" with certificates
    tls_dir : folder with ca.pem, cert.pem and key.pem; None for a scheduler without TLS
    """

    def __init__(self, address: str, tls_dir: Path | None):
        self.address = address
        self.unfit: set[str] = set()  # addresses of workers that get no more work
        self.seen_at = time.monotonic()  # when there was a worker last
        self.client = connect(address, tls_dir)
        self.run = name_run()
        self.numbers = itertools.count()
        self.arrays = SharedArrays(self.run.with_name(f"{self.run.name}.arrays"))

    def order(self) -> "Order":
        """Write the marker file of one map; return the order that goes with each piece of its work."""
        marker = self.run.with_name(f"{self.run.name}.{next(self.numbers)}.workers")
        marker.touch()
        values = {name: settings.value(name) for name in settings.names()}
        return Order(str(root()), str(marker), code_print(), values)

    def threads_of_workers(self) -> dict[str, int]:
        """Return the number of threads of each worker that is there and fit, by its address."""
        try:
            threads = self.client.nthreads()
        except OSError:
            raise self.lost() from None
        return {worker: n for worker, n in threads.items() if worker not in self.unfit}

    def fit_workers(self) -> list[str]:
        """Return the addresses of the workers that are there and fit."""
        return list(self.threads_of_workers())

    def exclude(self, worker: str, reason: str) -> None:
        """Give no more work to a worker, and print the reason once."""
        if worker not in self.unfit:
            self.unfit.add(worker)
            print(f"warning: the worker {worker} gets no work: {reason}", file=sys.stderr)

    def wait_for_workers(self) -> list[str]:
        """Return the fit workers; raises UserError where there was none for PATIENCE_SECONDS."""
        fit = self.fit_workers()
        if fit:
            self.seen_at = time.monotonic()
        elif time.monotonic() - self.seen_at > PATIENCE_SECONDS:
            lacking = "no worker that can do this work, see the warnings above" if self.unfit else "no workers"
            raise UserError(f"{self.address} has {lacking}: start some as the README says, {RESUME}")
        return fit

    def lost(self) -> UserError:
        """Return the error that says that the scheduler has gone."""
        return UserError(f"the scheduler {self.address} does not answer any more: start it again, {RESUME}")

    def close(self) -> None:
        self.client.close(timeout=ENDING_SECONDS)
        self.arrays.remove()


class Cluster:
    """The workers of a Dask cluster. An item is a list, whose parts a worker takes one after the other.

    function : called with each part of an item, with the root and the settings as here, whatever those of the worker
    stopped : not empty as soon as no more results are wanted
    """

    def __init__(self, function: Callable, connection: Connection, stopped: list):
        self.connection, self.stopped = connection, stopped
        self.sent: set[distributed.Future] = set()
        self.order = connection.order()
        # as bytes: the scheduler, which unpickles what it is given, need not know what is in it
        self.function = connection.arrays.pickled(function)
        connection.seen_at = time.monotonic()

    @property
    def n_workers(self) -> int:
        """Number of items that are worked on at the same time; 1 where there is no worker yet."""
        return max(1, sum(self.connection.threads_of_workers().values()))

    def submit(self, items: list) -> "Batch":
        if self.connection.client.status == "closed":
            raise self.connection.lost()
        return Batch(self, items)

    def explain(self, error: BaseException, item: list) -> BaseException:
        import distributed

        address = self.connection.address
        if isinstance(error, distributed.KilledWorker):
            return UserError(
                f"several workers of {address} ended at {item[0]} or one of the next, most likely for want of "
                "memory: start fewer on each machine and run this again"
            )
        if isinstance(error, ImportError) or "deserialization" in str(error):
            reason = str(error).splitlines()[0]
            return UserError(
                f"the scheduler or a worker of {address} can't import the pipeline ({reason}): "
                "start both in the project's folder, as the README says"
            )
        lost = (distributed.CancelledError, distributed.comm.CommClosedError, OSError)
        if isinstance(error, lost) or self.connection.client.status != "running":
            return self.connection.lost()
        return error

    def close(self) -> None:
        """Let workers finish the item that they are at; they begin nothing else, since the marker is gone."""
        Path(self.order.marker).unlink(missing_ok=True)
        end = time.monotonic() + ENDING_SECONDS
        for future in self.sent:
            with contextlib.suppress(Exception):  # nobody asks for its result any more
                if self.connection.client.status == "running" and self.connection.fit_workers():
                    future.exception(timeout=max(0, end - time.monotonic()))
        self.connection.arrays.forget()


class Batch:
    """An item that was sent to the cluster."""

    def __init__(self, cluster: Cluster, items: list):
        self.cluster, self.items = cluster, items
        self.send()

    def send(self) -> None:
        """Send the item to any worker that is fit."""
        cluster, connection = self.cluster, self.cluster.connection
        self.workers = connection.fit_workers() if connection.unfit else []
        work = cluster.order, cluster.function, connection.arrays.pickled(self.items)
        self.future = connection.client.submit(run_batch, *work, pure=False, workers=self.workers or None)
        cluster.sent.add(self.future)

    def result(self) -> list[tuple]:
        """Wait for the results; send the item again where its worker was unfit, or all that were asked have gone."""
        import distributed

        while True:
            lost = False
            try:
                return self.future.result(timeout=POLL_SECONDS)
            except distributed.TimeoutError:
                if self.cluster.stopped:
                    raise
            except UnfitWorkerError as error:
                self.cluster.connection.exclude(*error.args)
                lost = True
            finally:
                if self.future.done():
                    self.cluster.sent.discard(self.future)
            fit = self.cluster.connection.wait_for_workers()
            while lost and not fit and not self.cluster.stopped:
                time.sleep(POLL_SECONDS)
                fit = self.cluster.connection.wait_for_workers()
            if lost or (self.workers and not set(self.workers) & set(fit)):
                self.send()


def connect(address: str, tls_dir: Path | None) -> "distributed.Client":
    """Return a client of the scheduler; raises UserError where none answers, or Dask is not installed."""
    try:
        import distributed
    except ImportError:
        raise UserError(
            "SCHEDULER needs Dask: install it by python3 -m pip --python .venv/bin/python install -r "
            "requirements-cluster.txt, or set SCHEDULER to None"
        ) from None
    for name in ["distributed", *logging.root.manager.loggerDict]:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what it logs is said here in one sentence
    if tls_dir is None:
        warn_if_open(address)
    security = None
    if tls_dir is not None:
        paths = {name: str(tls_dir / f"{name}.pem") for name in ("ca", "cert", "key")}
        missing = [path for path in paths.values() if not Path(path).is_file()]
        if missing:
            raise UserError(f"SCHEDULER_TLS: {missing[0]} not found: put ca.pem, cert.pem and key.pem there")
        security = distributed.Security(
            tls_ca_file=paths["ca"], tls_client_cert=paths["cert"], tls_client_key=paths["key"], require_encryption=True
        )
    try:
        return distributed.Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(
            f"SCHEDULER: no scheduler answers at {address} ({str(error).splitlines()[0]}): start one as the README "
            "says, or set SCHEDULER to None"
        ) from None


def warn_if_open(address: str) -> None:
    """Warn of a scheduler without TLS that other machines may reach: whoever reaches it can run any code."""
    host = re.sub(r"^\w+://|:\d+$", "", address).strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        print(
            f"warning: {address} is open: whoever reaches its port can run any code on all machines of the cluster; "
            "SECURITY.md says how to close it (SCHEDULER_TLS)",
            file=sys.stderr,
        )


def name_run() -> Path:
    """Return the path that the names of this run's files among the locks begin with, a new one each time.

    By a marker, a file of each map, a worker knows that it sees this folder and that its work is still wanted.
    Files of a killed run of the same program on the same data sets are removed: what it had begun ends, too.
    """
    run = f"{Path(sys.argv[0]).name}.{settings.value('DATASET')}.{settings.value('TRAIN_DATASET')}"
    folder = root() / "data" / ".locks"
    check_within_root(folder / "a file")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if re.fullmatch(re.escape(run) + r"\.[0-9a-f]{16}\.(\d+\.workers|arrays)", path.name):
            if path.suffix == ".arrays":
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return folder / f"{run}.{secrets.token_hex(8)}"


# ---- on the worker ---------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # root and settings are those of the process


def run_batch(order: Order, pickled_function: bytes, pickled_items: bytes) -> list[tuple]:
    """Call a function for each of a list of items, on the worker; return (result, error) of each.

    Raises UnfitWorkerError where the worker does not see the marker, or would compute with other code.
    """
    import cloudpickle
    import distributed

    address = distributed.get_worker().address
    if code_print() != order.code:
        raise UnfitWorkerError(address, "its pipeline, Python or packages are of another version")
    unseen = UnfitWorkerError(address, f"it does not see {order.root}, or another folder under that path")
    if not Path(order.marker).exists():
        raise unseen
    function, items = cloudpickle.loads(pickled_function), cloudpickle.loads(pickled_items)
    results = []
    with _one_at_a_time, threadpool_limits(1):  # there is a worker for each core
        os.environ["IMAGE_CLUSTER_ROOT"] = order.root
        settings.assign(order.settings)
        for item in items:
            if not Path(order.marker).exists():
                raise unseen
            try:
                results.append((function(item), None))
            except Exception as error:
                results.append((None, ExceptionWithTraceback(error, error.__traceback__)))
    return results


@functools.cache
def code_print() -> str:
    """Fingerprint of the pipeline's code and shipped networks, of Python's and the packages' versions.

    Where it is the same, every worker computes the same bytes, on processors of the same kind.
    """
    digest = hashlib.blake2b(f"{sys.version_info[:2]}".encode(), digest_size=16)
    for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if name := re.match(r"[\w.-]+", line):
            digest.update(f"{name[0]} {importlib.metadata.version(name[0])}".encode())
    for path in sorted((PROJECT / "pipeline").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(PROJECT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
