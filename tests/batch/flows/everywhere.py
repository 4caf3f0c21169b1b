"""A flow whose steps run here, on Kubernetes and on AWS Batch, with an artifact of 200 MB."""

import os

import numpy as np

from k8sflow import FlowSpec, batch, kubernetes, resources, step


class Everywhere(FlowSpec):
    """Passes an artifact between the three."""

    @step
    def start(self):
        """Create it here."""
        self.where = ["here"]
        self.large = np.arange(25_000_000)
        self.next(self.on_batch)

    @batch
    @resources(cpu=1, memory=1000)
    @step
    def on_batch(self):
        """Change it on AWS Batch."""
        self.where = [*self.where, "batch" if "AWS_BATCH_JOB_ID" in os.environ else "?"]
        self.large = self.large + 1
        self.next(self.on_kubernetes)

    @kubernetes
    @resources(cpu=0.2, memory=1000)
    @step
    def on_kubernetes(self):
        """Sum it on Kubernetes."""
        self.where = [*self.where, "kubernetes" if "K8SFLOW_NODE" in os.environ else "?"]
        self.total = int(self.large.sum())
        self.large = None
        self.next(self.end)

    @step
    def end(self):
        """Print the sum here."""
        print(self.where, self.total)


if __name__ == "__main__":
    Everywhere()
