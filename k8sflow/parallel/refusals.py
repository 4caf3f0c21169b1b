"""What the system refuses, told from what a signal's handler raises."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def refusals_ignored() -> Generator[None, None, None]:
    """Goes on where the system refuses something that can be done without.

    A TimeoutError that a handler of SIGALRM raises in the middle is an OSError too, but with no errno; it is for the
    caller.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
