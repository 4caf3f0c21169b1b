"""Processes that add up numbers over the network; in their first attempt one of them fails."""

import os
import socket
import time

from k8sflow import FlowSpec, current, parallel, resources, retry, step


def connected(address):
    """A connection to the main process, which may not listen yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(address, timeout=30)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def all_reduce(number):
    """The sum of the numbers of all processes, by the variables that torch.distributed reads too."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    port = int(os.environ["MASTER_PORT"])
    if rank:
        with connected((os.environ["MASTER_ADDR"], port)) as main:
            main.sendall(f"{number}\n".encode())
            return int(main.makefile().readline())
    with socket.create_server(("", port)) as server:
        others = [server.accept()[0] for _ in range(size - 1)]
    total = number + sum(int(other.makefile().readline()) for other in others)
    for other in others:
        other.sendall(f"{total}\n".encode())
        other.close()
    return total


class Gang(FlowSpec):
    @resources(cpu=0.1, memory=150)
    @step
    def start(self):
        self.next(self.train, num_parallel=3)

    @retry(times=1, minutes_between_retries=0)
    @resources(cpu=0.1, memory=150)
    @parallel
    @step
    def train(self):
        node = current.parallel
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == (str(node.node_index), str(node.num_nodes))
        assert (os.environ["LOCAL_RANK"], os.environ["PET_NNODES"]) == ("0", "3")
        if not current.retry_count:
            all_reduce(0)  # all of them are there
            if node.node_index == 1:
                raise ConnectionError("the network is away")
            time.sleep(300)
        self.total = all_reduce(10**node.node_index)
        self.main = node.main_ip
        self.next(self.join)

    @resources(cpu=0.1, memory=150)
    @step
    def join(self, inputs):
        self.totals = [node.total for node in inputs]
        self.mains = len({node.main for node in inputs})
        self.next(self.end)

    @resources(cpu=0.1, memory=150)
    @step
    def end(self):
        print(self.totals, self.mains)


if __name__ == "__main__":
    Gang()
