"""Runs to look at: one flow run three times for real, with retries, cards, a failure, and code that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from k8sflow.storage import package
from k8sflow.storage.artifacts import blob_key
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import dump
from k8sflow.storage.run_store import RunStore
from tests.support import flow_command

FLOW = "Forecast"
SOURCE = '''"""Forecasts the sales of each store, and keeps the best model."""

import math
import time

import pandas

from k8sflow import FlowSpec, Parameter, card, current, resources, retry, step
from k8sflow.cards import Markdown, Table, ValueBox, VegaChart

STORES = ["Oslo", "Bergen", "Tromsø", "Stavanger", "Ålesund", "Bodø", "Drammen", "Hamar"]


class Forecast(FlowSpec):
    """Forecasts the sales of each store, and keeps the best model."""

    rate = Parameter("rate", default=0.1, help="The learning rate.")
    rounds = Parameter("rounds", default=40, help="How often the data is seen.")
    strict = Parameter("strict", default=False, help="Fail at data that is missing.")

    @step
    def start(self):
        """Finds the stores."""
        self.stores = STORES
        print("\\x1b[1mfound\\x1b[0m", len(self.stores), "stores")
        self.next(self.fit, foreach="stores")

    @resources(cpu=1, memory=400)
    @retry(times=1, minutes_between_retries=0)
    @step
    def fit(self):
        """Fits the model of one store."""
        number = STORES.index(self.input)
        print(f"reading the sales of \\x1b[1m{self.input}\\x1b[0m")
        if number == 2 and current.retry_count == 0:
            raise TimeoutError("the database did not answer: forecast.example.com:5432")
        if self.strict and number == 5:
            raise ValueError(f"the sales of {self.input} have 31 missing days, from 2026-01-01 on")
        self.losses = []
        for round in range(int(self.rounds)):
            self.losses.append(math.exp(-self.rate * round) + 0.02 * number)
            time.sleep(0.01 + 0.004 * number)
            if round % 8 == 0:
                print(f"\\x1b[32mround {round:3}\\x1b[0m  loss \\x1b[36m{self.losses[-1]:.4f}\\x1b[0m")
        print(f"\\x1b[1;32mdone\\x1b[0m  {self.input}")
        self.loss = self.losses[-1]
        self.store = self.input
        self.next(self.choose)

    @card(id="report")
    @step
    def choose(self, inputs):
        """Chooses the best model, and reports on all of them."""
        rows = [{"store": each.store, "loss": round(each.loss, 4)} for each in inputs]
        self.table = pandas.DataFrame(rows).sort_values("loss")
        self.best = self.table.iloc[0]["store"]
        points = [
            {"round": index, "loss": loss, "store": each.store}
            for each in inputs for index, loss in enumerate(each.losses)
        ]
        current.card["report"].extend([
            Markdown(f"# Forecast\\nThe model of **{self.best}** is the best of {len(rows)}."),
            ValueBox(title="best loss", value=rows[0]["loss"]),
            Table.from_dataframe(self.table),
            VegaChart({
                "mark": {"type": "line"}, "width": 600, "height": 220, "data": {"values": points},
                "encoding": {
                    "x": {"field": "round", "type": "quantitative"},
                    "y": {"field": "loss", "type": "quantitative"},
                    "color": {"field": "store", "type": "nominal"},
                },
            }),
        ])
        print("the best model is that of", self.best)
        self.next(self.end)

    @step
    def end(self):
        """Nothing else to do."""


if __name__ == "__main__":
    Forecast()
'''


def make(folder: Path) -> dict[str, str]:
    """Run the flow three times in a folder; return the ids of the runs by what they are.

    Args:
        folder: An empty folder, which gets the flow and the store ``.k8sflow``.
    """
    file = folder / "forecast.py"
    file.write_text(SOURCE, encoding="utf-8")
    found: dict[str, str] = {}
    for name, arguments in {
        "first": ("--tag", "baseline"),
        "failed": ("--strict", "true", "--tag", "nightly"),
        "last": ("--rate", "0.25", "--trace", "--tag", "nightly", "--tag", "candidate"),
    }.items():
        done = flow_command(file, "run", "--max-workers", "4", *arguments, USER="ada")
        assert (done.returncode == 0) == (name != "failed"), done.stderr
        ids = {run.name for run in (folder / ".k8sflow" / FLOW / "runs").iterdir()}
        (found[name],) = ids - set(found.values())
    _keep_code(folder, found["last"])
    return found


def _keep_code(folder: Path, run: str) -> None:
    """Keep the flow's folder with a run, as one on Kubernetes has it."""
    store = FolderStore(folder / ".k8sflow")
    built = package.build(folder)
    store.put(blob_key(FLOW, built.sha256), [built.archive])
    records = RunStore(store, FLOW, run)
    store.put(f"{records.prefix}/run.json", [dump(replace(records.read(), package=built.sha256).to_document())])


def pages(runs: dict[str, str]) -> dict[str, str]:
    """The paths of the pages about these runs, by what they show."""
    last, failed = (f"/runs/{FLOW}/{runs[name]}" for name in ("last", "failed"))
    return {
        "runs": "/",
        "run": last,
        "failure": failed,
        "failed-task": f"{failed}/tasks/fit/5",
        "task": f"{last}/tasks/fit/2",
        "card": f"{last}/tasks/choose/0",
        "compare": f"/compare?run={FLOW}/{runs['first']}&run={FLOW}/{runs['last']}",
        "code": f"{last}/code",
    }
