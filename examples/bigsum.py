"""The sum of a big random matrix, block by block over the cores of one task.

python examples/bigsum.py run --n 8000
python examples/bigsum.py run --n 8000 --with kubernetes
"""

import time

import numpy as np

from k8sflow import FlowSpec, Parameter, parallel_map, resources, step


class BigSum(FlowSpec):
    """Sums a random n × n matrix: eight blocks of rows, as many at a time as the task has cores."""

    n = Parameter("n", default=8_000, help="Rows and columns of the matrix; it takes 8·n² bytes.")
    blocks = 8

    @resources(cpu=2, memory=4_000)
    @step
    def start(self):
        """Create the matrix and sum it."""
        matrix = np.random.default_rng().random((self.n, self.n))
        bounds = [self.n * block // self.blocks for block in range(self.blocks + 1)]
        started = time.perf_counter()
        sums = parallel_map(lambda b: float(matrix[bounds[b] : bounds[b + 1]].sum()), range(self.blocks))
        print(f"{matrix.nbytes / 1e9:.2f} GB in {self.blocks} blocks: {time.perf_counter() - started:.2f} s")
        self.total = sum(sums)
        self.next(self.end)

    @resources(cpu=1, memory=500)
    @step
    def end(self):
        """Print the sum, an artifact of the step before."""
        print(f"The sum is {self.total:,.1f}; n²/2 is {self.n**2 / 2:,.1f}.")


if __name__ == "__main__":
    BigSum()
