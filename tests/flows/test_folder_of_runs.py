"""The folder of runs, for commands, the client, Runner and notebooks, in any folder of a project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import environment, flow_command, run_flow, run_in, write_flow

SOURCE = """
    class F(FlowSpec):
        @step
        def start(self):
            from k8sflow import Flow
            self.seen = sorted(run.id for run in Flow("F"))
            self.next(self.end)
        @step
        def end(self):
            if os.environ.get("FAILS"):
                raise ValueError("as asked")
"""
READ = "from k8sflow import Flow; print(sorted(run.id for run in Flow('F')))"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with flows/ and notebooks/."""
    write_flow(tmp_path / "flows", SOURCE, head="import os\nfrom k8sflow import FlowSpec, step\n")
    (tmp_path / "notebooks/deep").mkdir(parents=True)
    return tmp_path


def _python(code: str, folder: Path, **changes: str) -> str:
    done = run_in(folder, sys.executable, "-c", code, **changes)
    return done.stdout + done.stderr


def _stores(project: Path) -> list[str]:
    return sorted(str(path.relative_to(project)) for path in project.rglob(".k8sflow"))


def test_a_project_has_one_folder_of_runs(project: Path) -> None:
    """Once its root has one, everything below uses it: flows, notebooks, their readers, Runner."""
    flow = project / "flows/flow.py"
    assert run_flow(flow, "--run-id", "r1", cwd=project).returncode == 0
    assert run_flow(flow, "--run-id", "r2", cwd=project / "notebooks/deep").returncode == 0
    runner = "from k8sflow import Runner; print(Runner('../flows/flow.py', show_output=False).run(run_id='r3').run)"
    assert "F/r3" in _python(runner, project / "notebooks")
    assert _stores(project) == [".k8sflow"]
    for folder in (project, project / "flows", project / "notebooks", project / "notebooks/deep"):
        assert _python(READ, folder) == "['r1', 'r2', 'r3']\n"
    for command in (["logs", "r1"], ["dump", "r2"], ["tag", "add", "--run-id", "r1", "x"], ["attach", "r1"]):
        done = flow_command(flow, *command, cwd=project / "notebooks")
        assert done.returncode == 0, done.stderr
    assert "r1" in flow_command(flow, "runs", cwd=project / "notebooks").stdout
    shown = _python("from k8sflow.cli.main import main; main(['runs', 'F'])", project / "notebooks/deep")
    assert "F/r3" in shown


def test_without_a_folder_of_runs_the_working_folder_gets_one(project: Path) -> None:
    """The working folder is that of the command, not that of the flow."""
    assert run_flow(project / "flows/flow.py", "--run-id", "r1", cwd=project / "notebooks").returncode == 0
    assert _stores(project) == ["notebooks/.k8sflow"]
    assert "no run of a flow 'F'" in _python(READ, project)


def test_runs_that_older_versions_kept_beside_the_flow_are_found(project: Path) -> None:
    """The flow's own commands find them and say so; a run that resumes one is kept with it."""
    flow = project / "flows/flow.py"
    assert run_flow(flow, "--run-id", "old", FAILS="yes").returncode == 1
    assert run_flow(flow, "--run-id", "new", cwd=project).returncode == 0
    done = flow_command(flow, "runs", cwd=project)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["new", "old"]
    assert str(project / "flows/.k8sflow") in done.stderr
    assert str(project / "flows/.k8sflow") not in flow_command(flow, "runs", "--limit", "1", cwd=project).stderr
    done = flow_command(flow, "resume", "--origin-run-id", "old", "--run-id", "again", cwd=project)
    assert done.returncode == 0, done.stderr
    assert str(project / "flows/.k8sflow") in done.stderr
    assert (project / "flows/.k8sflow/F/runs/again").is_dir()
    assert flow_command(flow, "dump", "again/start", cwd=project).returncode == 0


@pytest.mark.parametrize("changes", [{}, {"K8SFLOW_ROOT": "state"}], ids=["nearest", "K8SFLOW_ROOT"])
def test_a_flow_that_changes_the_working_folder_keeps_its_runs(project: Path, changes: dict[str, str]) -> None:
    """Its tasks read the runs of their own store."""
    (project / "away").mkdir()
    flow = project / "flows/flow.py"
    flow.write_text(flow.read_text().replace("class F", f"os.chdir({str(project / 'away')!r})\nclass F"))
    for run in ("r1", "r2"):
        done = run_flow(flow, "--run-id", run, cwd=project, **changes)
        assert done.returncode == 0, done.stderr
    assert list((project / "away").iterdir()) == []
    assert sorted(
        path.name for path in (project / (changes.get("K8SFLOW_ROOT") or ".k8sflow") / "F/runs").iterdir()
    ) == ["r1", "r2"]
    assert "['r1', 'r2']" in flow_command(flow, "dump", "r2/start", cwd=project, **changes).stdout


def test_runner_keeps_runs_where_it_was_created(project: Path) -> None:
    """The script may change the folder meanwhile, with a relative cwd= and a relative K8SFLOW_ROOT."""
    code = (
        f"project = {str(project)!r}"
        """
import os
from k8sflow import Runner
for options in ({}, {"cwd": "notebooks"}, {"cwd": "notebooks", "env": {"K8SFLOW_ROOT": "state"}}):
    runner = Runner("flows/flow.py", show_output=False, **options)
    os.chdir("/")
    print(runner.run().run.run_store.store.url)
    os.chdir(project)
"""
    )
    (project / "notebooks/.k8sflow").mkdir()
    assert _python(code, project).split() == [
        str(project / ".k8sflow"),
        str(project / "notebooks/.k8sflow"),
        str(project / "notebooks/state"),
    ]


def test_a_deleted_working_folder_is_reported(project: Path) -> None:
    """A reader can't know where to look; a run is kept beside its flow."""
    code = "import os, shutil; os.makedirs('deleted'); os.chdir('deleted'); os.rmdir('../deleted'); "
    shown = _python(code + READ, project)
    assert "ConfigurationError" in shown
    assert "the working folder doesn't exist any more" in shown
    flow = str(project / "flows/flow.py")
    run = f"import subprocess, sys; subprocess.call([sys.executable, {flow!r}, 'run'])"
    _python(code + run, project)
    assert _stores(project) == ["flows/.k8sflow"]
    assert "no run of a flow 'F'" in _python(code + READ, project, K8SFLOW_ROOT=str(project / "other"))
    assert "[" in _python(code + READ, project, K8SFLOW_ROOT=str(project / "flows/.k8sflow"))
    assert "absolute path" in _python(code + READ, project, K8SFLOW_ROOT="state")
    settings = _python(code + "from k8sflow.cli.main import main; main(['config', 'show'])", project)
    assert "K8SFLOW_ROOT" in settings


def test_a_root_that_is_neither_folder_nor_bucket_is_refused(project: Path) -> None:
    """It would be a folder called ``s3:``."""
    flow = project / "flows/flow.py"
    for shown in (
        run_flow(flow, cwd=project, K8SFLOW_ROOT="s3:/b/x").stderr,
        _python(READ, project, K8SFLOW_ROOT="s3:/b/x"),
        run_flow(flow, "--datastore", "s3:/b/x", cwd=project).stderr,
        flow_command(flow, "--datastore", "s3:/b/x", "runs", cwd=project).stderr,
    ):
        assert "'s3:/b/x', which is neither a folder nor a bucket" in shown
    assert sorted(os.listdir(project)) == ["flows", "notebooks"]


def test_the_datastore_of_a_command_can_be_a_folder(project: Path) -> None:
    """A relative one starts in the working folder; a parameter of the flow may have the option's name."""
    flow = project / "flows/flow.py"
    assert run_flow(flow, "--run-id", "r1", "--datastore", "notebooks/state", cwd=project).returncode == 0
    assert "r1" in flow_command(flow, "runs", "--datastore", "state", cwd=project / "notebooks").stdout
    assert _stores(project) == []
    done = run_flow(flow, "--with", "kubernetes", "--datastore", "state", cwd=project, K8SFLOW_BUCKET="b")
    assert done.returncode == 1
    assert "--datastore" in done.stderr
    text = flow.read_text().replace("import FlowSpec,", "import FlowSpec, Parameter,")
    flow.write_text(
        text.replace("class F(FlowSpec):", "class F(FlowSpec):\n    datastore = Parameter('datastore', default='')")
    )
    done = flow_command(flow, "--datastore", "a", "run", "--datastore", "b", "--run-id", "r2", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "'b'" in flow_command(flow, "--datastore", "a", "dump", "r2/start", cwd=project).stdout


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.touch(), "There is a file where a folder is needed"),
        (lambda path: path.symlink_to("nowhere"), "There is a broken link where a folder is needed"),
    ],
    ids=["file", "link"],
)
def test_a_file_instead_of_the_folder_is_reported(project: Path, make: Callable[[Path], None], words: str) -> None:
    """The message has advice."""
    make(project / ".k8sflow")
    done = run_flow(project / "flows/flow.py", cwd=project)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_access_is_reported(project: Path) -> None:
    """It may be that of the runs, or the working folder; the client raises k8sflow's errors too."""
    (project / ".k8sflow").mkdir(mode=0)
    # The folder is closed once the shell is in it; root has to lose its privilege too.
    privileges = "-dac_override,-dac_read_search"
    unprivileged = f"setpriv --bounding-set={privileges} --inh-caps={privileges}" if os.geteuid() == 0 else ""

    def say(folder: str, *command: str) -> str:
        script = f'cd {folder} && chmod 0 "$0" && exec {unprivileged} "$@"'
        moved = ["sh", "-c", script, str(project / "notebooks"), sys.executable, *command]
        done = subprocess.run(moved, cwd=project, env=environment(), capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    try:
        flow = "flows/flow.py"
        for folder, *command in ((".", flow, "run"), (".", flow, "runs"), (".", "-c", READ), ("notebooks", "-c", READ)):
            (project / "notebooks").chmod(0o755)
            shown = say(folder, *command)
            assert "Permission denied" in shown
            assert "K8SFLOW_ROOT" in shown
            assert "PermissionError" not in shown.splitlines()[-1]
    finally:
        (project / "notebooks").chmod(0o755)
