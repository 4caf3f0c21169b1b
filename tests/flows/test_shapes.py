"""Flows of every shape, as a person runs them: each task is a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.sources import foreach
from tests.support import flow_command, run_flow, write_flow

GANG = """
    import socket
    from contextlib import suppress
    from k8sflow import current, parallel
    from tests.waiting import wait_for

    class F(FlowSpec):
        nodes = Parameter("nodes", default=4)

        @step
        def start(self):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            self.next(self.train, num_parallel=self.nodes)

        @parallel
        @step
        def train(self):
            me = current.parallel
            self.met = []
            if me.node_index == 0:
                with socket.create_server((me.main_ip, self.port)) as server:
                    server.settimeout(30)
                    while len(self.met) < me.num_nodes - 1:
                        connection, _ = server.accept()
                        with connection:
                            self.met.append(int(connection.recv(100)))
            else:
                def connected():
                    with suppress(ConnectionRefusedError):
                        return socket.create_connection((me.main_ip, self.port))
                with wait_for(connected) as connection:
                    connection.sendall(str(me.node_index).encode())
                self.met = [0]
            self.next(self.join)

        @step
        def join(self, inputs):
            self.met = [sorted(i.met) for i in inputs]
            self.next(self.end)

        @step
        def end(self):
            print("met", self.met)
"""

WAYS = """
    import time

    class F(FlowSpec):
        @step(start=True)
        def load(self):
            self.sizes = {"tiny": 0, "small": 1, "large": 2, "huge": 3}
            self.next(self.work, foreach="sizes", max_parallel=2)

        @step
        def work(self):
            self.began = getattr(self, "began", time.monotonic())
            self.turns = getattr(self, "turns", -1) + 1
            self.state = "again" if self.turns < self.sizes[self.input] else ("long" if self.turns > 1 else "short")
            self.ended = time.monotonic()
            self.next({"again": self.work, "long": self.tidy, "short": self.join}, condition="state")

        @step
        def tidy(self):
            self.turns = -self.turns
            self.ended = time.monotonic()
            self.next(self.join)

        @step
        def join(self, inputs):
            moments = sorted([(i.began, 1) for i in inputs] + [(i.ended, -1) for i in inputs])
            self.most = max(sum(change for _, change in moments[: n + 1]) for n in range(len(moments)))
            self.turns = {i.input: i.turns for i in inputs}
            self.next(self.save)

        @step(end=True)
        def save(self):
            print("turns", self.turns)
            assert self.most <= 2, self.most
"""


def _record(folder: Path) -> tuple[RunStore, dict[str, Any]]:
    (file,) = (folder / ".k8sflow").rglob("run.json")
    return RunStore(FolderStore(str(folder / ".k8sflow")), "F", file.parent.name), json.loads(file.read_text())


def test_processes_of_num_parallel_run_at_the_same_time(tmp_path: Path) -> None:
    """All of them run, though there are workers for only two: otherwise they could not meet."""
    done = run_flow(write_flow(tmp_path, GANG), "--max-workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "met [[1, 2, 3], [0], [0], [0]]" in done.stdout
    assert "4 processes run at the same time, which is more than --max-workers 2" in done.stdout


def test_the_variables_of_training_libraries_are_set(tmp_path: Path) -> None:
    """As in pods; a value of the user's own stays."""
    source = """
        import os
        from k8sflow import current, environment, parallel
        class F(FlowSpec):
            @step
            def start(self):
                self.next(self.train, num_parallel=2)
            @environment(vars={"PET_NNODES": "1"})
            @parallel
            @step
            def train(self):
                names = ["MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK", "PET_NODE_RANK", "PET_NNODES"]
                self.seen = [os.environ[name] for name in names]
                self.port = int(os.environ["MASTER_PORT"])
                self.next(self.join)
            @step
            def join(self, inputs):
                self.seen = [i.seen for i in inputs]
                self.ports = [i.port for i in inputs]
                self.next(self.end)
            @step
            def end(self):
                print(self.seen, len(set(self.ports)), 20_000 <= self.ports[0] < 32_000)
    """
    done = run_flow(write_flow(tmp_path, source))
    assert done.returncode == 0, done.stdout + done.stderr
    expected = [["127.0.0.1", rank, "2", rank, rank, "1"] for rank in "01"]
    assert f"{expected} 1 True" in done.stdout


def test_switches_loops_and_limits(tmp_path: Path) -> None:
    """The start and the end have other names; the run's record has the whole graph."""
    done = run_flow(write_flow(tmp_path, WAYS), "--max-workers", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "turns {'tiny': 0, 'small': 1, 'large': -2, 'huge': -3}" in done.stdout
    run_store, document = _record(tmp_path)
    assert run_store.tasks("work") == ["0", "1", "1-1", "2", "2-1", "2-2", "3", "3-1", "3-2", "3-3"]
    assert run_store.tasks("tidy") == ["2", "3"]
    graph = Graph.from_document("F", document["graph"])
    assert (graph.start, graph.end) == ("load", "save")
    assert graph["work"].cases == (("'again'", "work"), ("'long'", "tidy"), ("'short'", "join"))
    assert graph["join"].parents == ("work", "tidy")


def test_an_endless_generator_ends_at_the_widest_foreach(tmp_path: Path) -> None:
    """Its step fails; nothing waits for an item that is never the last."""
    source = foreach(items="itertools.count()", top="import itertools")
    done = run_flow(write_flow(tmp_path, source), "--max-num-splits", "20")
    assert done.returncode == 1
    assert "opens a foreach over more than 20 items of self.items" in done.stdout + done.stderr


def test_names_may_be_of_any_script(tmp_path: Path) -> None:
    """Steps, parameters and artifacts have every name that Python accepts."""
    source = """
    class F(FlowSpec):
        größe = Parameter("größe", default="ä")

        @step
        def start(self):
            self.项目 = ["é", "🦆"]
            self.next(self.हिन्दी, foreach="项目")

        @step
        def हिन्दी(self):
            print("→", self.input)
            self.עברית = self.input + self.größe
            self.next(self.συλλογή)

        @step
        def συλλογή(self, inputs):
            self.все = [branch.עברית for branch in inputs]
            self.next(self.end)

        @step
        def end(self):
            print(self.все)
    """
    file = write_flow(tmp_path, source)
    done = run_flow(file, "--größe", "ß")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "['éß', '🦆ß']" in done.stdout
    assert flow_command(file, "logs", "हिन्दी/1").stdout == "→ 🦆\n"
    again = flow_command(file, "resume", "συλλογή")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "हिन्दी" in flow_command(file, "graph").stdout
