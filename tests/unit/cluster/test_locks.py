"""The lock on the cluster: one process at a time has it, and its holder's death releases it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.locks import held
from tests.cluster.places import CHECKOUT

HOLD = """
import sys
from pathlib import Path
from tests.cluster.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )


def test_a_second_process_waits_until_the_first_is_done(tmp_path: Path) -> None:
    """Two simultaneous `make cluster` run one after the other, and the second reports which process it waits for."""
    with held(tmp_path / "lock"):
        second = start_holder(tmp_path / "lock")
        assert second.stderr is not None
        assert "waiting for process" in second.stderr.readline()
        assert second.poll() is None
    out, _ = second.communicate()
    assert out == "held\n"


def test_a_lock_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    """A harness killed with -9 blocks nobody."""
    holder = start_holder(tmp_path / "lock")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with held(tmp_path / "lock"):
        pass


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A daemon that was started under the lock, as the engine is, does not hold it."""
    with held(tmp_path / "lock"):
        daemon = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    with held(tmp_path / "lock"):
        pass
    daemon.communicate()
    assert "waiting" not in capfd.readouterr().err
