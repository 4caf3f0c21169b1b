"""Whole runs on Kubernetes: k8sflow, Metaflow from PyPI, and as many bare Jobs, with the same image, in one run.

    make bench-kubernetes

From the shell to the prompt, on the test cluster. A bare Job starts Python and does nothing; it counts as done when the
Job is Complete. Metaflow keeps its artifacts in the same S3 server and takes boto3 from the image, so that its pods
install nothing.

The branches that share pods are compared with the same run on this machine, which starts its tasks on as many cores.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cluster
from side_by_side import Comparison, Contender, command, options, run_all

FLOWS = Path(__file__).resolve().parents[1] / "flows"
WIDTHS = (20, 50)
BRANCHES, PER_POD = 1000, 50
# The k8sflow image has what a pod of Metaflow needs in this folder.
METAFLOW_PODS = {"PATH": "/opt/venv/bin:/usr/bin:/bin", "HOME": "/tmp", "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1"}


def main() -> None:
    """Run the comparisons."""
    parser = options("Whole runs on Kubernetes, beside Metaflow and bare Jobs.", times=3)
    parser.add_argument("--metaflow-times", type=int, default=1, help="turns of Metaflow [%(default)s]")
    chosen = parser.parse_args()
    cluster.require()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("three_steps", "noops"):
            source = (FLOWS / f"{name}.py").read_text()
            Path(folder, f"{name}_k8sflow.py").write_text(source)
            Path(folder, f"{name}_metaflow.py").write_text(
                source.replace("from k8sflow import", "from metaflow import")
            )
        try:
            run_all(Comparisons(folder, chosen.times, chosen.metaflow_times).all(), chosen)
        finally:
            cluster.remove_bare_jobs()


class Comparisons:
    """The comparisons of this benchmark.

    Args:
        folder: The folder of the flows.
        times: Turns of k8sflow and the bare Jobs.
        metaflow_times: Turns of Metaflow.
    """

    def __init__(self, folder: str, times: int, metaflow_times: int) -> None:
        self._folder = folder
        self._times = times
        self._metaflow_times = metaflow_times

    def all(self) -> list[Comparison]:
        """From the shortest to the longest."""
        in_a_row = functools.partial(cluster.bare_jobs_in_a_row, 3)
        description = "three Jobs, each when the one before it is Complete"
        found = [self._comparison("three steps on Kubernetes", description, in_a_row, "three_steps")]
        for width in WIDTHS:
            at_once = functools.partial(cluster.bare_jobs, width)
            name, arguments = f"foreach of {width} on Kubernetes", ("--width", str(width), "--max-workers", str(width))
            found.append(self._comparison(name, f"{width} Jobs at once", at_once, "noops", *arguments))
        return [*found, self._shared_pods()]

    def _shared_pods(self) -> Comparison:
        """Short branches that share pods, beside the same run on this machine."""
        run = (sys.executable, "noops_k8sflow.py", "run", "--width", str(BRANCHES), "--seconds", "0.1")
        shared = (*run, "--with", f"kubernetes:cpu=1,memory=500,branches_per_pod={PER_POD}")
        return Comparison(
            f"{BRANCHES} branches of 0.1 s, {PER_POD} per pod",
            "the same run on this machine",
            (
                Contender("k8sflow", command(*shared, cwd=self._folder), 1),
                Contender("bare", command(*run, cwd=self._folder), 1),
            ),
        )

    def _comparison(
        self, name: str, description: str, bare: Callable[[], None], flow: str, *arguments: str
    ) -> Comparison:
        ours = (f"{flow}_k8sflow.py", "run", "--with", cluster.WITH, *arguments)
        contenders = [
            Contender("k8sflow", command(sys.executable, *ours, cwd=self._folder), self._times),
            Contender("Metaflow", self._metaflow(f"{flow}_metaflow.py", arguments), self._metaflow_times),
            Contender("bare", bare, self._times),
        ]
        return Comparison(name, description, tuple(contenders))

    def _metaflow(self, file: str, arguments: Sequence[str]) -> Callable[[], None]:
        steps = (cluster.WITH.replace("memory=200", "memory=500"), f"environment:vars={json.dumps(METAFLOW_PODS)}")
        given = [word for step in steps for word in ("--with", step)]
        variables = {
            "METAFLOW_HOME": self._folder,
            "METAFLOW_USER": "bench",
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{cluster.BUCKET}/metaflow",
            "METAFLOW_S3_ENDPOINT_URL": cluster.s3_from_everywhere(),
            "METAFLOW_KUBERNETES_NAMESPACE": cluster.NAMESPACE,
            "METAFLOW_KUBERNETES_SECRETS": cluster.SECRET,
            "METAFLOW_KUBERNETES_CONTAINER_IMAGE": cluster.IMAGE,
            "METAFLOW_KUBERNETES_DISK": "100",
        }
        return command(sys.executable, file, "run", *given, *arguments, cwd=self._folder, variables=variables)


if __name__ == "__main__":
    main()
