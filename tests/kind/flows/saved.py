"""A foreach whose branches can be made to run out of memory while their results are saved."""

import os
import threading
import time

from k8sflow import FlowSpec, Parameter, resources, retry, step

SMALL = {"cpu": 0.05, "memory": 150}


def eat():
    """Take all memory once a file says so."""
    while not os.path.exists("/tmp/eat"):
        time.sleep(0.1)
    eaten = []
    while True:
        eaten.append(b"x" * 1_000_000)


class Saved(FlowSpec):
    width = Parameter("width", default=6)

    @resources(**SMALL)
    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @resources(**SMALL)
    @step
    def work(self):
        threading.Thread(target=eat, daemon=True).start()
        self.squares = [self.input**2] * 50_000
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.total = sum(sum(branch.squares) for branch in inputs) // 50_000
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("total", self.total)


if __name__ == "__main__":
    Saved()
