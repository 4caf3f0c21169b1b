"""A driver on a machine whose clock is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kind.conftest import Namespace
from tests.kind.test_faults import KUBERNETES, attempts

# The driver's interpreter imports it before anything else; pods don't have it.
SITECUSTOMIZE = """
import datetime, time

now = time.time
time.time = lambda: now() + {seconds}

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Shifted
"""


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_run_succeeds_whose_drivers_clock_is_an_hour_off(
    namespace: Namespace, client: Callable[[str], Any], tmp_path: Path, seconds: int
) -> None:
    """Its requests to the bucket are signed with the bucket's time; what it prints has no hour too many."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(seconds=seconds))
    done = namespace.run("fan.py", "--seconds", "2", "--width", "2", *KUBERNETES, PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.total == 1
    assert set(attempts(namespace, done.run).values()) == {1}
    assert re.search(r"succeeded in [\d.]+ s\b", done.text), done.text
    assert not re.search(r"\d (h|min)\b|-\d+(\.\d+)? s\b", done.text), done.text
