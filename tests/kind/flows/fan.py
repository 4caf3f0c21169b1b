"""A foreach whose branches print a tick each half second for the requested time."""

import time

from k8sflow import FlowSpec, Parameter, resources, step

SMALL = {"cpu": 0.05, "memory": 150}


class Fan(FlowSpec):
    seconds = Parameter("seconds", default=10.0, help="How long each branch takes.")
    last = Parameter("last", default=0.0, help="How long the last branch takes, if not as long as the others.")
    width = Parameter("width", default=3)

    @resources(**SMALL)
    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @resources(**SMALL)
    @step
    def work(self):
        is_last = self.index == self.width - 1
        for tick in range(int((self.last if is_last and self.last else self.seconds) * 2)):
            print(f"tick {tick}", flush=True)
            time.sleep(0.5)
        self.square = self.input**2
        self.next(self.meet)

    @resources(**SMALL)
    @step
    def meet(self, inputs):
        self.total = sum(branch.square for branch in inputs)
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        print("total", self.total)


if __name__ == "__main__":
    Fan()
