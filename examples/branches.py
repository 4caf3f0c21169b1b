"""Two parallel branches, and the join that compares their results."""

import statistics
import time

from k8sflow import FlowSpec, Parameter, resources, step


class Branches(FlowSpec):
    """Estimates the centre of some numbers in two ways at the same time."""

    size = Parameter("size", default=1001, help="How many numbers.")

    @resources(cpu=0.2, memory=300)
    @step
    def start(self):
        """Create the numbers, with one outlier."""
        self.numbers = [*range(self.size - 1), 10**9]
        self.next(self.mean, self.median)

    @resources(cpu=0.2, memory=300)
    @step
    def mean(self):
        """Compute the mean, which an outlier distorts."""
        self.began = time.time()
        self.centre = statistics.fmean(self.numbers)
        self.next(self.compare)

    @resources(cpu=0.2, memory=300)
    @step
    def median(self):
        """Compute the median, which an outlier hardly changes."""
        self.began = time.time()
        self.centre = statistics.median(self.numbers)
        self.next(self.compare)

    @resources(cpu=0.2, memory=300)
    @step
    def compare(self, inputs):
        """Read both branches by their names."""
        self.mean_centre = inputs.mean.centre
        self.median_centre = inputs.median.centre
        self.merge_artifacts(inputs, include=["numbers"])
        self.next(self.end)

    @resources(cpu=0.2, memory=300)
    @step
    def end(self):
        """Print both."""
        print(f"mean {self.mean_centre:,.1f}, median {self.median_centre:,.1f} of {len(self.numbers)} numbers")


if __name__ == "__main__":
    Branches()
