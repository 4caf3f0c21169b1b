"""An emulator of Azure's Blob Storage on this machine: Azurite, which keeps objects in memory."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from k8sflow.azure_account import CONNECTION_STRING, account_of
from k8sflow.errors import StorageError
from k8sflow.storage.azure import AzureClient
from k8sflow.storage.s3_client import NoAnswerError, RefusedError
from tests.cluster import node_programs
from tests.cluster.places import Places
from tests.support import wait_for

CONTAINER = "tests"
_OPTIONS = ("--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck")


@contextmanager
def azure_server(host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Start it on a free port, with an empty container; the variables by which it is found, with its account's key.

    Args:
        host: The address of this machine at which it is reached.
    """
    folder = node_programs.ensure(node_programs.AZURITE, Places.of_user())
    script = folder / "node_modules/azurite/dist/src/blob/main.js"
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [node_programs.node(), script, f"--blobHost={host}", f"--blobPort={port}", *_OPTIONS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    known = account_of({CONNECTION_STRING: "UseDevelopmentStorage=true"})
    text = f"AccountName={known.name};AccountKey={known.key};BlobEndpoint=http://{host}:{port}/{known.name};"
    variables = {CONNECTION_STRING: text}
    try:
        wait_for(lambda: _makes_container(variables))
        yield variables
    finally:
        process.kill()
        process.wait()


def _makes_container(variables: dict[str, str]) -> bool:
    """Report if the server answers and has the container."""
    client = AzureClient(CONTAINER, account_of(variables), 1, {})
    try:
        client._call("PUT", "", {"restype": "container"})
    except RefusedError as error:
        return error.code == "ContainerAlreadyExists"
    except (NoAnswerError, StorageError):
        return False
    else:
        return True
    finally:
        client.close()
