"""Steps whose pods are taken away, and one that needs more memory than it asks for."""

import time
from pathlib import Path

from k8sflow import FlowSpec, current, kubernetes, resources, step


def wait_for_the_end():
    """Returns when the pod is on its way out."""
    print("ready", flush=True)
    deadline = time.monotonic() + 60
    while not current.preempted:
        if time.monotonic() > deadline:
            raise TimeoutError("the pod was not taken away")
        time.sleep(0.02)


class Taken(FlowSpec):
    @resources(cpu=0.1, memory=150)
    @step
    def start(self):
        self.next(self.hungry, self.finishes, self.saves)

    @resources(cpu=0.1, memory=100, on_oom="double", max_memory=300)
    @step
    def hungry(self):
        bytearray(180_000_000)
        self.attempt = current.retry_count
        self.next(self.join)

    @kubernetes(grace_seconds=600)
    @resources(cpu=0.1, memory=150)
    @step
    def finishes(self):
        wait_for_the_end()
        self.attempt = current.retry_count
        self.next(self.join)

    @kubernetes(grace_seconds=600)
    @resources(cpu=0.1, memory=150)
    @step
    def saves(self):
        file = Path(current.checkpoint.directory, "counter")
        if not current.checkpoint.is_loaded:
            wait_for_the_end()
            file.write_text("41")
            current.checkpoint.save()
            raise RuntimeError("to be continued")
        self.number = int(file.read_text()) + 1
        self.next(self.join)

    @resources(cpu=0.1, memory=150)
    @step
    def join(self, inputs):
        self.attempts = inputs.hungry.attempt, inputs.finishes.attempt
        self.number = inputs.saves.number
        self.next(self.end)

    @resources(cpu=0.1, memory=150)
    @step
    def end(self):
        pass


if __name__ == "__main__":
    Taken()
