"""Options before the command, as Metaflow's users write them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import flow_command, run_in, write_flow

SOURCE = """
    class F(FlowSpec):
        @step
        def start(self):
            print("attempt", current.retry_count)
            if not current.retry_count:
                raise ValueError("the first attempt fails")
            self.next(self.end)
        @step
        def end(self):
            pass
"""
RETRY = "retry:minutes_between_retries=0"


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    return write_flow(tmp_path, SOURCE, head="from k8sflow import FlowSpec, current, step\n")


def test_decorators_before_the_command_are_put_on_every_step(flow: Path) -> None:
    assert flow_command(flow, "run").returncode == 1
    done = flow_command(flow, "--with", RETRY, "run", "--run-id", "r1")
    assert done.returncode == 0, done.stderr
    assert "attempt 1" in done.stdout
    done = flow_command(flow, "--with=catch", "run", "--with", RETRY)
    assert done.returncode == 0, done.stderr
    assert "attempt 1" in done.stdout


def test_resume_knows_its_options_before_the_command(flow: Path) -> None:
    assert flow_command(flow, "run", "--run-id", "r1").returncode == 1
    done = flow_command(flow, "--datastore", ".k8sflow", "--no-pylint", "--with", RETRY, "resume")
    assert done.returncode == 0, done.stderr


def test_what_holds_anyway_is_accepted(flow: Path) -> None:
    words = "--no-pylint --environment=local --metadata local --datastore=local --package-suffixes .csv,.txt"
    words += f" --event-logger=nullSidecarLogger --monitor=nullSidecarMonitor --with {RETRY} run"
    assert flow_command(flow, *words.split()).returncode == 0


def test_a_kind_of_store_is_accepted_with_its_location(flow: Path) -> None:
    words = ("--datastore=local", "--datastore-root", "state", "--with", RETRY, "run", "--run-id", "r1")
    assert flow_command(flow, *words).returncode == 0
    assert "r1" in flow_command(flow, "runs", "--datastore", "state").stdout


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("--environment mamba run", "'mamba': k8sflow has pypi"),
        ("--environment local show", "show starts no run"),
        ("--metadata=service run", "--datastore s3://bucket/prefix"),
        ("--metadata=other run", "--datastore"),
        ("--event-logger=debugLogger run", "K8SFLOW_LOG=debug"),
        ("--monitor=debugMonitor run", "--trace"),
        ("--pylint run", "yourself"),
        ("--datastore=s3 run", "--datastore s3://bucket/prefix"),
        ("--datastore=s3 --datastore-root=state run", "another kind"),
        ("--datastore=state --datastore-root=other run", "more than once"),
        ("--with retry show", "run and resume"),
        ("--namespace user:me logs", "run and resume"),
    ],
)
def test_other_values_are_refused_with_advice(flow: Path, words: str, advice: str) -> None:
    done = flow_command(flow, *words.split())
    assert done.returncode == 2
    assert advice in " ".join(done.stderr.split())
    assert not (flow.parent / ".k8sflow").exists()


def test_quiet_shows_the_output_and_the_end(flow: Path) -> None:
    done = flow_command(flow, "--quiet", "--with", RETRY, "run", "--run-id", "r1")
    shown = [line.partition(" in ")[0] for line in done.stdout.splitlines()]
    assert shown[0] == "[start/0] attempt 0"
    assert "[start/0] attempt 1" in shown
    assert "F/r1 succeeded" in shown
    assert not [line for line in shown if "started" in line or line.endswith("done")]
    done = flow_command(flow, "--quiet", "run")
    assert done.returncode == 1
    assert "the first attempt fails" in done.stdout + done.stderr


def test_a_namespace_before_the_command_is_that_of_the_run(flow: Path) -> None:
    assert flow_command(flow, "--namespace", "user:other", "--with", RETRY, "run", "--run-id", "r1").returncode == 0


def test_without_a_command_the_flow_is_checked(flow: Path) -> None:
    done = flow_command(flow)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "F: 2 steps, no mistakes.")
    flow.write_text(flow.read_text().replace("self.next(self.end)", "self.next(self.ende)"))
    done = flow_command(flow)
    assert done.returncode == 1
    assert "ende" in done.stderr


def test_a_runner_takes_the_same_options(flow: Path) -> None:
    code = (
        "from k8sflow import Runner\n"
        f"runner = Runner({str(flow)!r}, False, environment='local', pylint=False, decospecs=[{RETRY!r}])\n"
        "print(runner.run().status)\n"
    )
    assert "successful" in run_in(flow.parent, sys.executable, "-c", code).stdout


def test_default_decorators_of_the_settings_are_put_on_every_step(flow: Path) -> None:
    """Unless --with names the same decorator."""
    (flow.parent / "k8sflow.toml").write_text(f'default_decospecs = "{RETRY} catch"')
    done = flow_command(flow, "run")
    assert done.returncode == 0, done.stderr
    assert "attempt 1" in done.stdout
    done = flow_command(flow, "run", "--with", "retry:times=0")
    assert "attempt 1" not in done.stdout


def test_a_default_environment_of_the_settings_holds_unless_the_command_names_one(flow: Path) -> None:
    """Without environments, a package that no index has is not looked for."""
    text = flow.read_text().replace(
        "    @step\n", "    @pypi(packages={'no-such-package-k8sflow': '1'})\n    @step\n", 1
    )
    flow.write_text(f"from k8sflow import pypi\n{text}")
    (flow.parent / "k8sflow.toml").write_text('default_environment = "local"')
    done = flow_command(flow, "run", "--with", RETRY)
    assert done.returncode == 0, done.stderr
    refused = flow_command(flow, "--environment=pypi", "run", UV_OFFLINE="1", UV_NO_CACHE="1")
    assert refused.returncode == 1
    assert "no-such-package-k8sflow" in refused.stderr
    (flow.parent / "k8sflow.toml").write_text('default_environment = "uv"')
    wrong = flow_command(flow, "run")
    assert "the setting default_environment (K8SFLOW_DEFAULT_ENVIRONMENT) is 'uv'" in wrong.stderr
