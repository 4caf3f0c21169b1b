"""Commands that Metaflow's users type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k8sflow import __version__
from k8sflow.cli.flow import _group
from k8sflow.flow.compile import declared
from k8sflow.flow.decorators.mutators import mutated
from tests.support import flow_command, load_flow, write_flow

SOURCE = """
    class F(FlowSpec):
        @step
        def start(self):
            print("x" * 3_000_000)
            self.next(self.end)
        @step
        def end(self): pass
"""


def call(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(_group(mutated(declared(load_flow(write_flow(folder, SOURCE))))), arguments)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["output-dot"], ["graph", "--format", "dot"]),
        (["output-raw"], ["show"]),
        (["output-raw", "--json"], ["show", "--json"]),
        (["help"], ["--help"]),
        (["help", "run"], ["run", "--help"]),
    ],
)
def test_a_command_has_two_names(tmp_path: Path, theirs: list[str], ours: list[str]) -> None:
    found = call(tmp_path, *theirs)
    assert found.exit_code == 0, found.output
    assert found.stdout == call(tmp_path, *ours).stdout


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert call(tmp_path, "version").stdout == f"k8sflow {__version__}\n"
    assert "there is no command 'nothing'" in call(tmp_path, "help", "nothing").stderr


@pytest.mark.parametrize("system", ["argo-workflows", "step-functions", "airflow"])
def test_other_schedulers_are_refused_with_what_there_is(tmp_path: Path, system: str) -> None:
    done = call(tmp_path, system, "create", "--max-workers", "3", "dag.py", "--help")
    assert done.exit_code == 1
    assert f"{system} create --max-workers 3 dag.py --help" in done.stderr
    assert "run --with kubernetes --detach" in done.stderr


def test_the_package_of_a_new_run_is_described(tmp_path: Path) -> None:
    facts = json.loads(call(tmp_path, "package", "info", "--json").stdout)
    assert facts["files"] == 1
    assert len(facts["sha256"]) == 64
    assert facts["sha256"] in call(tmp_path, "package", "info").stdout


def test_a_run_writes_its_attributes_and_limits_its_logs(tmp_path: Path) -> None:
    file = write_flow(tmp_path, SOURCE)
    done = flow_command(file, "run", "--runner-attribute-file", "facts.json", "--max-log-size", "1")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["flow_name"] == "F"
    assert facts["metadata"] == str(tmp_path / ".k8sflow")
    log = tmp_path / ".k8sflow/F/runs" / facts["run_id"]
    assert log.is_dir()
    assert 0 < sum(path.stat().st_size for path in log.rglob("*stdout*") if path.is_file()) < 2_000_000
    missing = flow_command(file, "run", "--runner-attribute-file", "nowhere/facts.json")
    assert "can't be written to nowhere/facts.json" in missing.stderr
    tags = flow_command(file, "tag", "list", "--flat")
    assert "runtime:dev" in tags.stdout.splitlines()


def test_the_code_of_a_run_on_this_machine_is_on_this_machine(tmp_path: Path) -> None:
    file = write_flow(tmp_path, SOURCE)
    assert flow_command(file, "run", "--run-id", "r1").returncode == 0
    assert "has no code package" in flow_command(file, "code", "diff", "r1").stderr


def test_large_files_are_left_out_of_the_package_unless_their_suffix_is_named(tmp_path: Path) -> None:
    file = write_flow(tmp_path, SOURCE)
    with (tmp_path / "big.rds").open("wb") as big:
        big.truncate(12_000_000)
    done = flow_command(file, "package", "list")
    assert "big.rds" not in done.stdout
    assert "Warning: the code package leaves out large files: big.rds (12.0 MB)." in done.stderr
    done = flow_command(file, "--package-suffixes", ".csv,.rds", "package", "list")
    assert "big.rds" in done.stdout
    done = flow_command(file, "package", "list", K8SFLOW_PACKAGE_FILE_LIMIT_MB="20")
    assert "big.rds" in done.stdout
