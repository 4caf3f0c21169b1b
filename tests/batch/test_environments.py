"""Packages of steps in jobs of AWS Batch, which install them from the bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.batch.conftest import Batch
from tests.support import write_flow
from tests.wheels import TWO_VERSIONS, shades, uv_settings


def test_two_steps_have_two_versions_of_a_package_in_their_jobs(
    batch: Batch, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """Also where the branches of a foreach are an array job."""
    shades(tmp_path / "wheels")
    flow = write_flow(tmp_path / "flows", TWO_VERSIONS, head="from k8sflow import FlowSpec, pypi, step\n")
    done = batch.run(flow, "--with", "batch", **uv_settings(tmp_path / "wheels", tmp_path / "cache"))
    assert done.code == 0, done.text
    data = client(done.run)["end"].task.data
    assert [seen[:2] for seen in data.seen] == [("1.0", "2.0")] * 2
    assert all(seen[2].endswith("/environment") for seen in data.seen)
    assert not data.found
