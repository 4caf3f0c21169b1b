"""``run --ui``: the page of the run that it starts, from a server that ends after the run."""

from __future__ import annotations

import http.client
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from k8sflow.errors import ConfigurationError
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.commands import show
from k8sflow.storage.folder import FolderStore
from k8sflow.ui.library import Library
from tests.pages import Made
from tests.sources import foreach
from tests.support import flow_command, wait_for_death, write_flow
from tests.waiting import wait_for


@contextmanager
def browser(folder: Path) -> Iterator[tuple[Path, str]]:
    """A program that notes the address which it is to open, and its caller, which is killed at the end."""
    opened, program = folder / "opened", folder / "browser"
    program.write_text(f'#!/bin/sh\necho "$PPID $1" > {opened}.new && /bin/mv {opened}.new {opened}\n')
    program.chmod(0o755)
    try:
        yield opened, str(program)
    finally:
        if opened.exists():
            with_server = int(opened.read_text().split()[0])
            os.kill(with_server, signal.SIGTERM)
            assert wait_for_death(with_server)


def test_the_page_of_the_run_is_opened(tmp_path: Path):
    """It outlives the command, so that the end can be seen; the server doesn't import the flow's files."""
    file = write_flow(tmp_path, foreach())
    (tmp_path / "jinja2.py").write_text("raise SystemExit('a file of the flow')")
    with browser(tmp_path) as (opened, program):
        found = flow_command(file, "run", "--ui", BROWSER=program, PATH=str(tmp_path), DISPLAY="")
        assert found.returncode == 0, found.stderr
        wait_for(opened.exists)
        url = opened.read_text().split()[1]
        assert f"The run in the browser: {url}" in found.stdout + found.stderr
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        assert answer.status == 200
        cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        target = re.search(r'href="([^"]+)"', answer.read().decode())
        assert target is not None
        connection.request("GET", target[1], headers={"Cookie": cookie})
        assert 'data-status="succeeded"' in connection.getresponse().read().decode()
        connection.close()


def test_a_dry_run_has_no_page(tmp_path: Path):
    file = write_flow(tmp_path, foreach())
    for command in ("run", "resume"):
        found = flow_command(file, command, "--ui", "--dry-run")
        assert found.returncode == 2
        assert "--dry-run starts no run" in found.stderr


def test_missing_packages_are_named_before_the_run(monkeypatch: pytest.MonkeyPatch):
    class Request:
        has_page = True

    monkeypatch.setattr(show, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="starlette"):
        show.check_packages(Request())  # type: ignore[arg-type]


def test_the_end_of_a_run_is_known(store: FolderStore, graph: Graph):
    """A run that can't be read may go on."""
    library = Library([store])
    assert library.has_ended("F", "r1")
    made = Made(store, graph)
    made.task("start")
    made.ends(Outcome.USER_ERROR)
    wait_for(lambda: library.has_ended("F", "r1"))
    (store.root / "F/runs/r1/outcome.json").write_bytes(b"{")
    wait_for(lambda: not library.has_ended("F", "r1"))
