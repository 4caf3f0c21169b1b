"""Steps with options of their own for the pod; the end runs where the driver runs."""

import os
import sys

from k8sflow import FlowSpec, kubernetes, resources, step


class Pods(FlowSpec):
    @kubernetes(cpu=0.1, memory="200Mi", labels={"team": "test"}, env={"COLOUR": "blue"})
    @step
    def start(self):
        self.pod = os.environ.get("K8SFLOW_POD")
        self.colour = os.environ.get("COLOUR")
        self.python = sys.version_info[:2]
        self.next(self.end)

    @resources(cpu=64, memory=100)
    @step
    def end(self):
        self.here = os.environ.get("K8SFLOW_POD")
        print(f"start ran in {self.pod}, end in {self.here}")


if __name__ == "__main__":
    Pods()
