"""Messages of container runtimes about containers that can't start."""

from __future__ import annotations

import pytest

from k8sflow.task.container_ends import has_no_program

RUNC = "OCI runtime create failed: runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    "message",
    [
        f'{RUNC}exec: "python3": executable file not found in $PATH: unknown',
        f'{RUNC}exec: "/opt/python": stat /opt/python: no such file or directory: unknown',
        f'{RUNC}exec: "/opt/python": permission denied: unknown',
        f'{RUNC}exec: "/opt": is a directory: unknown',
        "exec /opt/python: no such file or directory",
        "executable file `python3` not found in $PATH: No such file or directory",
        "CannotStartContainerError: exec: executable file not found",
    ],
)
def test_an_image_without_the_program_is_recognized(message: str) -> None:
    assert has_no_program(message)


@pytest.mark.parametrize(
    "message",
    [
        'error gathering device information while adding custom device "/dev/neuron0": no such file or directory',
        f'{RUNC}error mounting "/data" to rootfs at "/data": stat /data: no such file or directory: unknown',
        f'{RUNC}chdir to cwd ("/work") set in config.json failed: no such file or directory: unknown',
        "failed to write 1000: open /sys/fs/cgroup/memory/limit: permission denied",
    ],
)
def test_a_missing_device_or_folder_is_not_a_missing_program(message: str) -> None:
    """The image isn't to blame."""
    assert not has_no_program(message)
