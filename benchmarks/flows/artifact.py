"""An artifact of 300 MB, created in one step and read in the next; with --size 0, the same steps with an empty one."""

import numpy as np

from k8sflow import FlowSpec, Parameter, step


class Artifact(FlowSpec):
    size = Parameter("size", default=300_000_000)

    @step
    def start(self):
        self.data = np.arange(self.size // 8, dtype=np.float64)
        self.next(self.end)

    @step
    def end(self):
        assert len(self.data) == self.size // 8


if __name__ == "__main__":
    Artifact()
