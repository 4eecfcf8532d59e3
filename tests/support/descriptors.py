"""Room for a test's own ends of thousands of connections."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def as_many_descriptors_as_allowed(at_least: int = 0) -> Iterator[None]:
    """Raises the limit of open files of this process, and of those that it starts, to what is allowed here.

    The test is skipped where that is less than `at_least`.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < at_least:
        pytest.skip(f"only {before[1]} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
