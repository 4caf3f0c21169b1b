"""A run that lost its driver is resumed by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from k8sflow.cli.terminal import Terminal
from k8sflow.config import Settings
from k8sflow.errors import RunError
from k8sflow.flow.compile import compile_flow, declared
from k8sflow.runtime.commands import resume
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import Session
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.lease import lease_of
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from tests.support import load_flow, write_flow

FLOW = """
class F(FlowSpec):
    @step
    def start(self): self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.fixture
def origin(folder_store: FolderStore, tmp_path: Path) -> RunStore:
    """A run whose driver was killed at once, and its lock file, which names that."""
    run_store = RunStore(folder_store, "F", "r0")
    run_store.create(RunRecord("F", "r0", "flow.py", {}, compile_flow(load_flow(write_flow(tmp_path, FLOW))).graph))
    lease = lease_of(run_store)
    assert lease.acquire()
    lease.release()
    return run_store


def test_only_one_of_two_processes_resumes_a_run(
    origin: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other says so, until the first one has made its new run."""
    request = RunRequest(declared(load_flow(tmp_path / "flow.py")), Settings(root=str(tmp_path / "store")))
    create, errors = resume.create, []

    def create_late(*given: Any, **more: Any) -> Session:
        with pytest.raises(RunError) as error:
            resume.resume(request, "r0", None, Terminal(), dry_run=False)
        errors.append(str(error.value))
        return create(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "create", create_late)
        patch.setattr(resume, "begin", lambda _request, _session, _console: RunEnd.SUCCEEDED)
        assert resume.resume(request, "r0", None, Terminal(), dry_run=False)
    (refused,) = errors
    assert f"F/r0 is just being resumed by process {os.getpid()} on" in refused
    assert len(list(origin.store.list_folders("F/runs/"))) == 2
    assert resume.resume(request, "r0", None, Terminal(), dry_run=True)
