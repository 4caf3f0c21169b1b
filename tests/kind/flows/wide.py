"""A foreach whose branches sleep, one of which fails the first time."""

import os
import time

from k8sflow import FlowSpec, Parameter, current, resources, retry, step

SMALL = {"cpu": 0.05, "memory": 150}


class Wide(FlowSpec):
    width = Parameter("width", default=12)
    seconds = Parameter("seconds", default=1.0, help="How long each branch takes.")
    later = Parameter("later", default=-1.0, help="How long it takes when it runs again, if not as long.")
    slow = Parameter("slow", default=-1, help="The branch that takes three times as long.")

    @resources(**SMALL)
    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @resources(**SMALL)
    @step
    def work(self):
        seconds = self.later if current.retry_count and self.later >= 0 else self.seconds
        time.sleep(seconds * (3 if self.input == self.slow else 1))
        if self.input == 1 and current.retry_count == 0:
            raise ValueError("the first time")
        self.square = self.input**2
        self.pod = os.environ["K8SFLOW_POD"]
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.squares = [branch.square for branch in inputs]
        self.pods = [branch.pod for branch in inputs]
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("squares", self.squares)


if __name__ == "__main__":
    Wide()
