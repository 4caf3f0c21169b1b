"""A foreach whose branches wait for a tenth of a second each, so that only the work around them needs the cores."""

import time

from k8sflow import FlowSpec, Parameter, step


class Tenths(FlowSpec):
    width = Parameter("width", default=1000)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        time.sleep(0.1)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Tenths()
