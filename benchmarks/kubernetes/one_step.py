"""A step that does nothing on Kubernetes: what its pod costs beyond a bare Job's, and how soon the next one follows.

    python benchmarks/kubernetes/one_step.py

A flow of steps in a row, and as many bare Jobs, each after the one before it. A watch of pods and Jobs measures both
alike, from the outside.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cluster
from side_by_side import options, write_json

from k8sflow import Flow
from k8sflow.kubernetes import labels

HEAD = "from k8sflow import FlowSpec, step\nimport os, time\n\nclass Chain(FlowSpec):"
STEP = """
    @step
    def {name}(self):
        ticks = os.sysconf("SC_CLK_TCK")
        fields = open("/proc/1/stat").read().rpartition(")")[2].split()
        self.age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks
        {transition}
"""


def main() -> None:
    """Measure both in turns."""
    parser = options("A step that does nothing on Kubernetes, beside a bare Job.", times=2)
    parser.add_argument("--steps", type=int, default=12, help="steps of the flow, and bare Jobs in a row [%(default)s]")
    chosen = parser.parse_args()
    cluster.require()
    ours, bare = Measured(), Measured()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "chain.py").write_text(source(chosen.steps))
        for _ in range(chosen.times):
            ours.add(chosen, folder)
            bare.add(chosen, None)
    figures = {"k8sflow": ours.figures(), "bare": bare.figures()}
    cluster.remove_bare_jobs()
    print(report(ours, bare))
    if chosen.json:
        write_json(chosen.json, {"no-op step": figures})


def source(steps: int) -> str:
    """A flow of this many steps in a row, each of which keeps how long its agent had been running."""
    names = ["start", *(f"step{number}" for number in range(1, steps - 1)), "end"]
    transitions = [f"self.next(self.{name})" for name in names[1:]]
    text = HEAD + "".join(
        STEP.format(name=name, transition=transition)
        for name, transition in zip(names, [*transitions, ""], strict=True)
    )
    return f"{text}\nif __name__ == '__main__':\n    Chain()\n"


class Measured:
    """The figures of one of the two."""

    def __init__(self) -> None:
        self.to_success: list[float] = []
        self.to_next: list[float] = []
        self.ages: list[float] = []
        self.cpu: list[float] = []

    def add(self, chosen: argparse.Namespace, folder: str | None) -> None:
        """Run the flow in this folder, or bare Jobs, and add what was seen."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        selector = f"{cluster.LABEL}={name}" if folder is None else labels.run_selector("Chain", name)
        with (
            cluster.pod_cpu_seconds() as cpu,
            cluster.watching(cluster.pods(), selector) as pods,
            cluster.watching(cluster.jobs(), selector) as jobs,
        ):
            if folder is None:
                cluster.bare_jobs_in_a_row(chosen.steps, name)
            else:
                self._run(folder, name)
        self.to_success += [pods.succeeded[pod] - pods.created[pod] for pod in pods.succeeded]
        self.cpu += [cpu[pods.uids[pod]] for pod in pods.succeeded]
        created = sorted(jobs.created.values())
        for exit_ in sorted(pods.exited.values()):
            following = [at for at in created if at > exit_]
            self.to_next += [following[0] - exit_] if following else []

    def _run(self, folder: str, run: str) -> None:
        command = [sys.executable, "chain.py", "run", "--with", cluster.WITH, "--run-id", run]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The flow failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        self.ages += [step.task["age"].data for step in Flow("Chain")[run]]

    def figures(self) -> dict[str, float]:
        """For JSON."""
        return {
            "seconds": statistics.median(self.to_success),
            "cpu_seconds": statistics.median(self.cpu),
            "times": len(self.to_success),
        }


def report(ours: Measured, bare: Measured) -> str:
    """A table of medians."""
    lines = ["\n| median | k8sflow | bare | beyond | of n |", "|---|---|---|---|---|"]

    def line(name: str, a: Sequence[float], b: Sequence[float]) -> None:
        x, y = statistics.median(a), statistics.median(b)
        lines.append(f"| {name} | {x:.2f} s | {y:.2f} s | {x - y:.2f} s | {len(a)} |")

    line("pod created to Succeeded", ours.to_success, bare.to_success)
    line("CPU time of the pod", ours.cpu, bare.cpu)
    gaps = sorted(ours.to_next)
    p99 = gaps[min(len(gaps) - 1, round(len(gaps) * 0.99))]
    lines.append(f"| agent's start to the step | {statistics.median(ours.ages):.2f} s | | | {len(ours.ages)} |")
    lines.append(
        f"| container's exit to the next Job | {statistics.median(gaps):.3f} s | | p99 {p99:.3f} s | {len(gaps)} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
