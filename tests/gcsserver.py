"""An emulator of Google Cloud Storage on this machine: fake-gcs-server, which keeps objects in memory."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import programs
from tests.cluster.places import Places
from tests.support import wait_for

BUCKET = "tests"


@contextmanager
def gcs_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Start it on a free port, with an empty bucket; its address, as for STORAGE_EMULATOR_HOST.

    Args:
        host: The address of this machine at which it is reached.
    """
    binary = programs.ensure(programs.FAKE_GCS_SERVER, Places.of_user()) / "fake-gcs-server"
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://{host}:{port}"
    process = subprocess.Popen(
        [binary, "-backend=memory", "-scheme=http", f"-host={host}", f"-port={port}", "-log-level=error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _makes_bucket(address))
        yield address
    finally:
        process.kill()
        process.wait()


def _makes_bucket(address: str) -> bool:
    """Report if the server answers and has the bucket."""
    body = json.dumps({"name": BUCKET}).encode()
    request = urllib.request.Request(
        f"{address}/storage/v1/b?project=tests", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request):
            return True
    except OSError:
        return False
