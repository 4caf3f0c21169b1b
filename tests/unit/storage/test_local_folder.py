"""The folder with the runs of this machine: the nearest ``.k8sflow``, by Metaflow's rule."""

from __future__ import annotations

import os
from pathlib import Path

from k8sflow.config import Settings
from k8sflow.storage.local_folder import nearest, root_for_runs, roots_with_runs


def test_the_nearest_folder_counts(tmp_path: Path) -> None:
    """It is in the working folder or one of its parents; without any, a new one is used in the working folder."""
    inner, flows = tmp_path / "a/b", tmp_path / "flows"
    inner.mkdir(parents=True)
    flows.mkdir()
    assert root_for_runs(Settings(), inner, flows) == str(inner / ".k8sflow")
    (tmp_path / ".k8sflow").mkdir()
    assert root_for_runs(Settings(), inner, flows) == str(tmp_path / ".k8sflow")
    (inner / ".k8sflow").mkdir()
    assert root_for_runs(Settings(), inner, flows) == str(inner / ".k8sflow")
    assert root_for_runs(Settings(root=str(flows)), inner, flows) == str(flows)


def test_a_flow_is_looked_for_beside_its_file_too(tmp_path: Path) -> None:
    """Older versions stored runs there."""
    flows, here = tmp_path / "flows", tmp_path / "here"
    for folder in (flows / ".k8sflow", here):
        folder.mkdir(parents=True)
    assert roots_with_runs(Settings(), here, flows) == [str(here / ".k8sflow"), str(flows / ".k8sflow")]
    assert roots_with_runs(Settings(), flows, flows) == [str(flows / ".k8sflow")]
    assert roots_with_runs(Settings(root="/x"), here, flows) == ["/x"]


def test_a_bucket_is_the_only_root(tmp_path: Path) -> None:
    """It is not a path, and the folder beside the flow doesn't count then."""
    (tmp_path / ".k8sflow").mkdir()
    settings = Settings(root="s3://bucket/team")
    assert root_for_runs(settings, tmp_path, tmp_path) == "s3://bucket/team"
    assert roots_with_runs(settings, tmp_path, tmp_path) == ["s3://bucket/team"]


def test_links_are_followed(tmp_path: Path) -> None:
    """A folder with two names is searched once; broken links are ignored."""
    flows, here, shared = tmp_path / "flows", tmp_path / "here", tmp_path / "shared"
    for folder in (flows, here, shared):
        folder.mkdir()
    (flows / ".k8sflow").symlink_to(shared)
    (here / ".k8sflow").symlink_to(shared)
    assert roots_with_runs(Settings(), here, flows) == [str(here / ".k8sflow")]
    (here / ".k8sflow").unlink()
    (here / ".k8sflow").symlink_to(tmp_path / "nowhere")
    assert nearest(here) is None


def test_a_file_of_the_name_is_skipped(tmp_path: Path) -> None:
    """Only a folder can have runs."""
    inner = tmp_path / "a"
    inner.mkdir()
    (inner / ".k8sflow").touch()
    (tmp_path / ".k8sflow").mkdir()
    assert nearest(inner) == tmp_path / ".k8sflow"


def test_a_deleted_working_folder_is_replaced_by_that_of_the_flow(tmp_path: Path) -> None:
    """A run can still be started."""
    assert root_for_runs(Settings(), None, tmp_path) == str(tmp_path / ".k8sflow")
    assert roots_with_runs(Settings(), None, tmp_path) == [str(tmp_path / ".k8sflow")]


def test_an_unreadable_folder_is_skipped(tmp_path: Path) -> None:
    """It may be another user's home, above a folder of this user."""
    inner = tmp_path / "closed/ours"
    inner.mkdir(parents=True)
    (tmp_path / "closed/.k8sflow").mkdir()
    (tmp_path / "closed").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root may look at everything
            os.seteuid(65534)
        assert nearest(inner) is None
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)
