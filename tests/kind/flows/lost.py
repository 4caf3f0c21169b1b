"""Branches that would rather run on a worker node, where all but the first one would sleep for ever."""

import os
import time

from k8sflow import FlowSpec, kubernetes, resources, step

SMALL = {"cpu": 0.05, "memory": 150}
WORKER = "k8sflow-test/worker"
HAS_LABEL = {"matchExpressions": [{"key": WORKER, "operator": "Exists"}]}
PREFERRED = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": HAS_LABEL}]}


class Lost(FlowSpec):
    @resources(**SMALL)
    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @resources(**SMALL)
    @kubernetes(tolerations=[{"key": WORKER, "operator": "Exists"}], affinity={"nodeAffinity": PREFERRED})
    @step
    def work(self):
        self.node = os.environ["K8SFLOW_NODE"]
        print("on", self.node, flush=True)
        if self.input and self.node.endswith("-worker"):
            time.sleep(3600)
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.nodes = [branch.node for branch in inputs]
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("nodes", self.nodes)


if __name__ == "__main__":
    Lost()
