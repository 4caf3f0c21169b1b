"""Branches, a foreach of twenty, and what a task sees of its pod."""

import os
import time
from pathlib import Path

from k8sflow import FlowSpec, Parameter, parallel_map, resources, step

SMALL = {"cpu": 0.05, "memory": 150}


class Shapes(FlowSpec):
    width = Parameter("width", default=20)

    @resources(cpu=0.3, memory=200)
    @step
    def start(self):
        self.memory_limit = _first("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        self.cpu_weight = _first("/sys/fs/cgroup/cpu.weight", "/sys/fs/cgroup/cpu/cpu.shares")
        self.secrets = Path("/var/run/secrets/kubernetes.io").exists()
        self.user = os.getuid()
        self.next(self.left, self.right)

    @resources(cpu=2, memory=200)
    @step
    def left(self):
        self._occupy()
        self.cores = os.environ["K8SFLOW_CPUS"]
        self.threads = os.environ["OMP_NUM_THREADS"]
        self.workers = len(set(parallel_map(lambda _: (time.sleep(0.3), os.getpid())[1], range(12))))
        self.next(self.meet)

    @resources(cpu=3, memory=200)
    @step
    def right(self):
        self._occupy()
        self.cores = os.environ["K8SFLOW_CPUS"]
        self.threads = os.environ["OMP_NUM_THREADS"]
        self.workers = len(set(parallel_map(lambda _: (time.sleep(0.3), os.getpid())[1], range(12))))
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.sized = {b.cores: (b.threads, b.workers) for b in inputs}
        self.numbers = list(range(self.width))
        self.next(self.square, foreach="numbers")

    @resources(**SMALL)
    @step
    def square(self):
        self.squared = self.input**2
        self.pod = os.environ["K8SFLOW_POD"]
        self.next(self.add)

    @resources(**SMALL)
    @step
    def add(self, inputs):
        self.squares = [b.squared for b in inputs]
        self.pods = len({b.pod for b in inputs})
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("sum of squares", sum(self.squares))

    def _occupy(self):
        time.sleep(2.0)


def _first(*paths):
    return next(Path(path).read_text().strip() for path in paths if Path(path).exists())


if __name__ == "__main__":
    Shapes()
