"""``K8SFLOW_LOG``: nothing is logged, or imported, until it is turned on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from k8sflow import config, debug_log
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.kubernetes.flowrun import environment
from tests.support import in_python, run_flow, write_flow

USE = """
    import sys
    from k8sflow import debug_log
    from k8sflow.config import Settings

    log = debug_log.DebugLog("k8sflow.here")
    log.debug("before")
"""
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ DEBUG k8sflow\.here: retry 2 of 3")


def logged(code: str) -> subprocess.CompletedProcess[str]:
    """Run code that logs in a fresh interpreter."""
    return in_python(USE + code)


def test_a_log_costs_nothing_until_it_is_turned_on() -> None:
    done = logged("""
    assert "logging" not in sys.modules
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_k8sflow_imports_no_logging() -> None:
    done = in_python("import sys, k8sflow; from k8sflow import step, FlowSpec; sys.exit('logging' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_records_go_to_stderr_with_their_time_process_and_module() -> None:
    done = logged("""
    debug_log.configure(Settings(log="debug"))
    debug_log.configure(Settings(log="debug"))
    log.debug("retry %d of %d", 2, 3)
    """)
    assert LINE.fullmatch(done.stderr.strip()), done.stderr
    assert debug_log.is_record(done.stderr)
    assert not debug_log.is_record("Error: no such bucket")


def test_a_higher_level_leaves_debug_records_out() -> None:
    done = logged("""
    debug_log.configure(Settings(log="info"))
    log.debug("hidden")
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_handlers_of_the_application_get_the_records_instead() -> None:
    done = logged("""
    import logging
    logging.basicConfig(stream=sys.stdout, format="%(name)s %(filename)s %(message)s")
    debug_log.configure(Settings(log="debug"))
    log.debug("here")
    """)
    assert (done.stdout, done.stderr) == ("k8sflow.here <string> here\n", "")


def test_an_application_can_listen_without_the_setting() -> None:
    done = logged("""
    import logging
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.DEBUG)
    log.debug("here")
    """)
    assert done.stdout == "here\n"


def test_an_unknown_level_is_refused() -> None:
    assert config.variable("log") == debug_log.VARIABLE
    with pytest.raises(
        ConfigurationError, match=r"log \(K8SFLOW_LOG\) is 'verbose', which is not a log level"
    ) as caught:
        Settings(log="verbose")
    assert "debug, info, warning, error" in caught.value.advice


def test_the_level_reaches_the_tasks_of_a_local_run(tmp_path: Path) -> None:
    """From the environment, and from the settings' file."""
    file = write_flow(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                from k8sflow.debug_log import DebugLog
                DebugLog("k8sflow.mine").debug("from the task")
                self.next(self.end)

            @step
            def end(self):
                pass
        """,
    )
    assert "k8sflow.mine" not in _output(run_flow(file))
    assert "DEBUG k8sflow.mine: from the task" in _output(run_flow(file, K8SFLOW_LOG="debug"))
    (tmp_path / "k8sflow.toml").write_text('log = "debug"\n')
    assert "DEBUG k8sflow.mine: from the task" in _output(run_flow(file))
    assert "K8SFLOW_LOG" in _output(run_flow(file, K8SFLOW_LOG="loud"), code=1)


def test_a_flowrun_carries_the_level_to_its_driver() -> None:
    spec = {"code": {"store": "s3://bucket"}, "settings": {"log": "debug"}}
    assert environment(spec, "lab")["K8SFLOW_LOG"] == "debug"


def test_the_controller_logs_json() -> None:
    done = in_python("""
    from k8sflow.config import Settings
    from k8sflow.controller.operator import configure_logging
    from k8sflow.debug_log import DebugLog

    configure_logging(Settings(log="info"))
    DebugLog("k8sflow.kubernetes.api").debug("hidden")
    configure_logging(Settings(log="debug"))
    DebugLog("k8sflow.kubernetes.api").debug("Retrying in %.1f s.", 0.5)
    """)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stderr)
    assert record["message"] == "Retrying in 0.5 s."
    assert (record["logger"], record["severity"]) == ("k8sflow.kubernetes.api", "debug")
    assert "timestamp" in record


def _output(done: subprocess.CompletedProcess[str], *, code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
