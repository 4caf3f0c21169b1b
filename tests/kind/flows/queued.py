"""A step that ends in the pod that finds the gate open."""

import os
import time

from k8sflow import FlowSpec, kubernetes, step


class Queued(FlowSpec):
    @kubernetes(cpu=0.1, memory=100, queue="team", config_maps="gate")
    @step(start=True, end=True)
    def only(self):
        if os.environ["GATE"] != "open":
            time.sleep(600)
            raise TimeoutError("the queue has not stopped this pod")


if __name__ == "__main__":
    Queued()
