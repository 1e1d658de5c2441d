"""The former names of `pipeline.machinery.executor.ordered_map`; goes when nothing uses them."""

import functools

from pipeline.machinery.executor import ordered_map as in_processes

in_threads = functools.partial(in_processes, threads=True)
