"""The sum of a matrix in eight blocks; 16,384 rows are 2 GiB."""

import numpy as np

from k8sflow import FlowSpec, Parameter, parallel_map, step


class BigSum(FlowSpec):
    n = Parameter("n", default=16_384)

    @step
    def start(self):
        matrix = np.random.ranf((self.n, self.n))
        block = self.n // 8
        self.total = sum(parallel_map(lambda i: matrix[i : i + block].sum(), range(0, self.n, block)))
        self.next(self.end)

    @step
    def end(self):
        print(self.total)


if __name__ == "__main__":
    BigSum()
