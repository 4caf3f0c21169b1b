"""A foreach whose branches do nothing, or wait, so that its whole duration is overhead of the framework."""

import time

from k8sflow import FlowSpec, Parameter, step


class Noops(FlowSpec):
    width = Parameter("width", default=100)
    seconds = Parameter("seconds", default=0.0)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.seconds:
            time.sleep(self.seconds)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Noops()
