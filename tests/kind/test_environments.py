"""Packages of steps in pods, which have no index to ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kind.conftest import Namespace
from tests.support import write_flow
from tests.wheels import TWO_VERSIONS, shades, uv_settings

HEAD = "from k8sflow import FlowSpec, kubernetes, pypi, step\n"
SMALL = "kubernetes:cpu=0.1,memory=200"
SHARED = "    @kubernetes(branches_per_pod=2)\n    @step\n    def work"


def test_two_steps_have_two_versions_of_a_package_in_their_pods(
    namespace: Namespace, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """The wheels come from the bucket; also where the branches of a foreach share a pod."""
    shades(tmp_path / "wheels")
    flow = write_flow(tmp_path / "flows", TWO_VERSIONS, head=HEAD)
    settings = uv_settings(tmp_path / "wheels", tmp_path / "cache")
    done = namespace.run(flow, "--with", SMALL, **settings)
    assert done.code == 0, done.text
    data = client(done.run)["end"].task.data
    assert [seen[:2] for seen in data.seen] == [("1.0", "2.0")] * 2
    assert all(seen[2].endswith("/environment") for seen in data.seen)
    assert not data.found
    shared = flow.with_name("shared.py")
    shared.write_text(flow.read_text().replace("    @step\n    def work", SHARED))
    done = namespace.run(shared, "--with", SMALL, **settings)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.seen == data.seen


def test_an_image_with_another_python_says_so(namespace: Namespace, tmp_path: Path) -> None:
    shades(tmp_path / "wheels")
    source = TWO_VERSIONS.replace('packages={"shade": "1.0"}', 'python="3.9", packages={"shade": "1.0"}')
    flow = write_flow(tmp_path / "flows", source, head=HEAD)
    done = namespace.run(flow, "--with", SMALL, **uv_settings(tmp_path / "wheels", tmp_path / "cache"))
    assert done.code == 1
    assert "are locked for Python 3.9, and the image has Python 3" in done.text
