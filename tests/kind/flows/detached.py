"""Three branches that take their time, and a step that may fail."""

import os
import time

from k8sflow import FlowSpec, Parameter, resources, step

SMALL = {"cpu": 0.05, "memory": 150}


class Detached(FlowSpec):
    seconds = Parameter("seconds", default=0.0, help="How long each branch takes.")
    broken = Parameter("broken", default=False)

    @resources(**SMALL)
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")

    @resources(**SMALL)
    @step
    def work(self):
        time.sleep(self.seconds)
        self.square = self.input**2
        self.pod = os.environ["K8SFLOW_POD"]
        if self.broken:
            raise ValueError("this flow was asked to fail")
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.total = sum(branch.square for branch in inputs)
        self.pods = sorted(branch.pod for branch in inputs)
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("total", self.total)


if __name__ == "__main__":
    Detached()
