"""A flow whose first execution waits to be killed."""

import time

from k8sflow import FlowSpec, current, resources, step


class BatchKilled(FlowSpec):
    """Waits once."""

    @resources(cpu=1, memory=150)
    @step
    def start(self):
        """Wait in the first execution."""
        if current.retry_count == 0:
            print("waits", flush=True)
            time.sleep(600)
        self.next(self.end)

    @step
    def end(self):
        """End."""


if __name__ == "__main__":
    BatchKilled()
