"""Messages of container runtimes about containers that can't start."""

from __future__ import annotations

import pytest

from k8sflow.task.container_ends import PullProblem, has_no_program

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


@pytest.mark.parametrize(
    ("image", "detail", "problem"),
    [
        ("ghcr.io/access-denied/forbidden:1", "ghcr.io/access-denied/forbidden:1: not found", PullProblem.MISSING),
        (
            "ghcr.io/access-denied/x:1",
            "unexpected status from HEAD request to https://ghcr.io/v2/access-denied/x/manifests/1: 401 Unauthorized",
            PullProblem.REFUSED,
        ),
        ("denied@sha256:00", "docker.io/library/denied@sha256:00: not found", PullProblem.MISSING),
        ("x:1", "pull access denied, repository does not exist or may require authorization", PullProblem.REFUSED),
    ],
)
def test_the_words_of_an_images_name_are_ignored(image: str, detail: str, problem: PullProblem) -> None:
    """A registry's answer has the name, and the name may have any words."""
    assert PullProblem.of(detail, image) is problem
