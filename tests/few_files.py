"""A limit of open files, as `ulimit -n` sets it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_files(most: int) -> Iterator[None]:
    """No more than `most` files may be open in this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
