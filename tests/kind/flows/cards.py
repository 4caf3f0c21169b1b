"""A foreach whose branches have a card that moves."""

import time

from k8sflow import FlowSpec, Parameter, card, current, resources, step
from k8sflow.cards import Markdown, ProgressBar

SMALL = {"cpu": 0.05, "memory": 150}


class Cards(FlowSpec):
    ticks = Parameter("ticks", default=25)

    @resources(**SMALL)
    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work, foreach="items")

    @card(id="default")
    @card(type="blank", id="moving")
    @resources(**SMALL)
    @step
    def work(self):
        bar = ProgressBar(max=self.ticks, label="ticks")
        current.card["moving"].append(Markdown(f"# Item {self.input}"))
        current.card["moving"].append(bar)
        for tick in range(self.ticks):
            bar.update(tick + 1)
            current.card["moving"].refresh()
            print(f"tick {tick}", flush=True)
            time.sleep(1)
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
    Cards()
