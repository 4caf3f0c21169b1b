"""Run a step or a flow inside a test: in the test's own process, with plain values in and out, and no files written."""

from k8sflow.testing.flows import run_flow
from k8sflow.testing.steps import StepResult, run_step

__all__ = ["StepResult", "run_flow", "run_step"]
