"""Steps and flows inside of a test: in the test's own process, with values in and out, and nothing left behind."""

from k8sflow.testing.flows import run_flow
from k8sflow.testing.steps import StepResult, run_step

__all__ = ["StepResult", "run_flow", "run_step"]
