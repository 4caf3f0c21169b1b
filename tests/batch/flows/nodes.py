"""A flow whose tasks run together, on nodes of a multi-node job."""

import socket
import time

from k8sflow import FlowSpec, current, parallel, resources, step


class BatchNodes(FlowSpec):
    """Two processes that find each other."""

    @resources(cpu=1, memory=150)
    @step
    def start(self):
        """Start two."""
        self.next(self.work, num_parallel=2)

    @parallel
    @resources(cpu=1, memory=150)
    @step
    def work(self):
        """Send the main node a word, or receive it."""
        self.node = current.parallel.node_index
        self.nodes = current.parallel.num_nodes
        main = current.parallel.main_ip
        if self.node == 0:
            with socket.create_server(("", 7000)) as server:
                server.settimeout(60)
                connection, _ = server.accept()
                with connection:
                    self.word = connection.recv(100).decode()
        else:
            self.word = "sent"
            deadline = time.monotonic() + 60
            while True:
                try:
                    with socket.create_connection((main, 7000), 5) as connection:
                        connection.sendall(b"hello from node 1")
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        self.next(self.join)

    @resources(cpu=1, memory=150)
    @step
    def join(self, inputs):
        """Collect their words."""
        self.words = [each.word for each in inputs]
        self.next(self.end)

    @resources(cpu=1, memory=150)
    @step
    def end(self):
        """Print them."""
        print(self.words)


if __name__ == "__main__":
    BatchNodes()
