"""A real S3 server on this machine for the time of a test session: versitygw over a folder."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster import programs
from tests.cluster.places import Places
from tests.cluster.s3 import S3Server
from tests.support import wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
# Hides the developer's own AWS profile from the tests.
NO_FILES = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
BUCKET = "tests"


def profile(folder: Path) -> dict[str, str]:
    """Write a profile of the AWS command line with the keys; return the environment, with which boto3 is used."""
    file = folder / "aws-config"
    key, secret = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
    file.write_text(f"[profile p]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
    return {"AWS_PROFILE": "p", "AWS_CONFIG_FILE": str(file), "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}


@contextmanager
def s3_server(folder: Path, port: int = 0) -> Iterator[S3Server]:
    """Start a server on this machine, by default on a free port, with a bucket, which is empty in a new folder."""
    binary = programs.ensure(programs.VERSITYGW, Places.of_user()) / "versitygw"
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    server = S3Server(f"http://127.0.0.1:{port}", KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    process = subprocess.Popen(
        [binary, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(folder)],
        env={**os.environ, "ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _makes_bucket(server))
        yield server
    finally:
        process.kill()
        process.wait()


def _makes_bucket(server: S3Server) -> bool:
    """Report if the server answers and has the bucket."""
    try:
        server.create_bucket(BUCKET)
    except OSError:
        return False
    return True


class Server:
    """An S3 server that can be stopped, and started again on its port with its data."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self._running = ExitStack()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self._running.enter_context(s3_server(self._folder, self._port))

    def stop(self) -> None:
        self._running.close()
