"""A flow with every shape that a run on AWS Batch has: a foreach of twenty, a join, and its cores."""

import os

from k8sflow import FlowSpec, batch, current, parallel_map, resources, step


class BatchShapes(FlowSpec):
    """Squares the numbers below twenty."""

    @batch(tmpfs_size=64, shared_memory=128)
    @resources(cpu=2, memory=300)
    @step
    def start(self):
        """Say where it runs."""
        self.numbers = list(range(20))
        self.cores = os.environ["K8SFLOW_CPUS"]
        self.processes = len(set(parallel_map(lambda _: os.getpid(), range(8))))
        self.tempdir = current.tempdir
        print("hello from", os.environ["AWS_BATCH_JOB_ID"])
        self.next(self.square, foreach="numbers")

    @resources(cpu=1, memory=200)
    @step
    def square(self):
        """Square one number."""
        self.result = self.input**2
        self.index_in_array = os.environ["AWS_BATCH_JOB_ARRAY_INDEX"]
        self.next(self.join)

    @resources(cpu=1, memory=200)
    @step
    def join(self, inputs):
        """Collect the squares."""
        self.squares = [each.result for each in inputs]
        self.indices = [each.index_in_array for each in inputs]
        self.next(self.end)

    @resources(cpu=1, memory=200)
    @step
    def end(self):
        """Print their sum."""
        print("sum of squares", sum(self.squares))


if __name__ == "__main__":
    BatchShapes()
