"""Every snippet in README and docs runs: Python blocks as files, command lines as they are written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import s3server
from tests.wheels import shades, uv_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Snippets that need a cluster are in tests/kind/test_docs.py, those that need PyTorch in tests/kind/test_training.py.
_WITH_BUCKET = "s3.md"
_WITH_WHEELS = "environments.md"
_CLUSTER = ("kubernetes", "kubectl", "helm", "make")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of a page's blocks."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(page.read_text())]


def environment_of(page: Path, folder: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the environment of a page's commands, with the servers that they need."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("K8SFLOW_", "AWS_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    if page.name == _WITH_BUCKET:
        server = request.getfixturevalue("s3_server")
        environment |= {**s3server.KEYS, **s3server.NO_FILES}
        environment |= {"K8SFLOW_ENDPOINT": server.endpoint, "K8SFLOW_BUCKET": f"{s3server.BUCKET}/docs"}
    if page.name == _WITH_WHEELS:
        shades(folder / "wheels")
        environment |= uv_settings(folder / "wheels", folder / "cache")
    return environment


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.s3] if page.name == _WITH_BUCKET else []) for page in PAGES],
    ids=lambda page: page.name,
)
def test_snippets_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A block that begins with ``# name.py`` is that file; the others are run, in the order of the page."""
    environment = environment_of(page, tmp_path, request)

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name}: {command}\n{done.stdout}{done.stderr}"

    pending: dict[str, str] = {}
    for language, text in blocks(page):
        if language == "bash":
            for line in text.splitlines():
                if line.strip() and not any(word in line for word in _CLUSTER):
                    run(*shlex.split(line, comments=True))
            continue
        name = re.match(r"# (\w+\.py)\n", text)
        after = re.match(r"# after (\w+\.py)\n", text)
        if name:
            (tmp_path / name[1]).write_text(text)
            if "import torch" not in text:
                hook = ["-m", "k8sflow.as_metaflow"] if "from metaflow import" in text else []
                run(sys.executable, *hook, name[1], *(["check"] if "FlowSpec" in text else []))
        else:
            if after and after[1] not in pending:
                run(sys.executable, after[1], "run")
                pending[after[1]] = "run"
            run(sys.executable, "-c", text)
