"""Wide runs on simulated nodes: k8sflow's driver beside a bare Indexed Job with as many pods.

    make bench-wide

Only the nodes are simulated (simulated_nodes.py). This measures what a run adds to the work of the cluster: time, API
requests, and the driver's memory and CPU time. With ``--one-job-per-branch``, both sides have a Job for each pod.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cluster
from side_by_side import write_json
from simulated_nodes import LABEL, TOLERATION, simulated_nodes

from k8sflow.kubernetes.labels import STEP

FLOW = Path(__file__).resolve().parents[1] / "flows" / "noops.py"
LIVE_PODS = 500  # at a time, on both sides
_WRITES = {"POST", "PUT", "PATCH", "DELETE", "APPLY"}
_READS = {"GET", "LIST"}
# Of these, a run's driver and the Job controller may make, change and read some.
_RESOURCES = {"jobs", "pods", "configmaps", "services"}
_METRIC = re.compile(r"apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)")


def main() -> None:
    """Run both for each width, and print the figures."""
    parser = argparse.ArgumentParser(description="Wide runs on simulated nodes, beside a bare Indexed Job.")
    parser.add_argument("--width", type=int, action="append", help="branches (repeatable) [5000 and 20000]")
    parser.add_argument("--one-job-per-branch", action="store_true", help="a Job for each pod, on both sides")
    parser.add_argument(
        "--contender", choices=("bare", "same pods", "k8sflow"), action="append", help="run only this one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    chosen = parser.parse_args()
    cluster.require()
    results: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {LIVE_PODS} pods at a time")
    with tempfile.TemporaryDirectory() as folder:
        for width in chosen.width or (5_000, 20_000):
            wide = Wide(Path(folder), width, one_job_each=chosen.one_job_per_branch)
            with simulated_nodes(Path(folder), width):
                works = {"bare": wide.run_bare, "same pods": wide.run_same_pods, "k8sflow": wide.run_flow}
                names = chosen.contender or list(works)
                found = {name: wide.measured(work) for name, work in works.items() if name in names}
            results[f"{width} branches on simulated nodes"] = found
            print(wide.report(found), flush=True)
    if chosen.json:
        write_json(chosen.json, results)


class Wide:
    """A foreach and a bare Job of one width.

    Args:
        folder: The folder of the flow.
        width: The number of branches, and of bare pods.
        one_job_each: Whether each pod has a Job.
    """

    def __init__(self, folder: Path, width: int, *, one_job_each: bool) -> None:
        self._folder = folder
        self._width = width
        self._one_job_each = one_job_each

    def measured(self, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Time of the work, and requests that the API server had meanwhile, from anyone."""
        before, started = _requests(), time.perf_counter()
        found = work()
        seconds, made = time.perf_counter() - started, _requests() - before
        writes, reads = (sum(made[verb] for verb in verbs) for verbs in (_WRITES, _READS))
        return {"seconds": seconds, "pods_per_second": self._width / seconds, "writes": writes, "reads": reads, **found}

    def run_bare(self) -> dict[str, float]:
        """Runs pods that start Python and do nothing to their end."""
        job = cluster.bare_job("bare", {})
        pod = job["spec"]["template"]["spec"]
        pod |= {"nodeSelector": LABEL, "tolerations": [TOLERATION]}
        pod["containers"][0]["resources"] = {"requests": {"cpu": "1m", "memory": "100M"}}
        return self._run_jobs(job)

    def run_same_pods(self) -> dict[str, float]:
        """Runs pods like those of the run to their end: the API server's work grows with their size."""
        shown = subprocess.run(
            [*self._flow(), "--dry-run"], cwd=self._folder, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        found = [each for each in yaml.safe_load_all(shown) if each["metadata"].get("labels", {}).get(STEP) == "work"]
        return self._run_jobs(found[0])

    def _run_jobs(self, job: dict[str, Any]) -> dict[str, float]:
        """Runs one Job with as many pods as the foreach has branches, or a Job for each of them."""
        batch = uuid.uuid4().hex[:8]
        job["metadata"] |= {"name": f"bare-{batch}", "labels": {cluster.LABEL: batch}}
        jobs = [job]
        if self._one_job_each:
            jobs = [{**job, "metadata": {**job["metadata"], "name": f"bare-{batch}-{n}"}} for n in range(self._width)]
        else:
            job["spec"] |= {"completionMode": "Indexed", "completions": self._width, "parallelism": LIVE_PODS}
        cluster.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": jobs}))
        cluster.kubectl("wait", "--for=condition=complete", "job", "-l", f"{cluster.LABEL}={batch}", "--timeout=3600s")
        return {}

    def run_flow(self) -> dict[str, float]:
        """Runs a foreach of no-ops; the memory and the CPU time of its driver."""
        switches = {"K8SFLOW_KUBERNETES_FOLLOWED_TASKS": "0"}
        if self._one_job_each:
            switches["K8SFLOW_KUBERNETES_INDEXED_FROM"] = str(self._width + 1)
        log = self._folder / "run.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._flow(), cwd=self._folder, env={**os.environ, **switches}, stdout=file, stderr=file
            )
            _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit("The run failed:\n" + log.read_text()[-3000:])
        cpu = used.ru_utime + used.ru_stime
        return {"driver_megabytes": used.ru_maxrss / 1024, "driver_cpu_ms_per_task": 1000 * cpu / self._width}

    def _flow(self) -> list[str]:
        """The command of the run."""
        file = self._folder / "noops_k8sflow.py"
        file.write_text(FLOW.read_text())
        wanted = f"cpu=0.001,memory=100,node_selector={json.dumps(LABEL)},tolerations={json.dumps([TOLERATION])}"
        width = ["--width", str(self._width), "--max-num-splits", str(self._width)]
        return [
            sys.executable,
            str(file),
            "run",
            "--with",
            f"kubernetes:{wanted}",
            *width,
            "--max-workers",
            str(LIVE_PODS),
        ]

    def report(self, found: dict[str, dict[str, float]]) -> str:
        """The figures of both as text."""
        lines = [f"{self._width} branches"]
        for name, values in found.items():
            lines.append(f"  {name:10}" + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
        for name in set(found) - {"k8sflow"} if "k8sflow" in found else ():
            ours, bare = found["k8sflow"], found[name]
            lines.append(
                f"  beside {name}: pods/s {ours['pods_per_second'] / bare['pods_per_second']:.2f} x, "
                f"writes per task {(ours['writes'] - bare['writes']) / self._width:.3f} more, "
                f"reads {ours['reads'] - bare['reads']:.0f} more"
            )
        return "\n".join(lines)


def _requests() -> Counter[str]:
    """The requests that the API server has had since its start for what runs consist of, by verb."""
    found: Counter[str] = Counter()
    for line in cluster.kubectl("get", "--raw", "/metrics").splitlines():
        if (match := _METRIC.fullmatch(line)) is None:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
        if labels["resource"] in _RESOURCES:
            found[labels["verb"]] += int(float(match["count"]))
    return found


if __name__ == "__main__":
    main()
