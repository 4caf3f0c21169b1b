"""The cards of a task: HTML files beside the records of the execution that made them.

<attempt>/cards/<position>.<type>[.<id>].html   the card; dots of a type are written as +
<attempt>/cards/<position>.<type>[.<id>].json   the data of its last refresh, where its page updates itself

They belong to the run as its records do: deleted with it, and of no other run.
"""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.storage.run_store import RunStore

FOLDER = "cards"
_PAGE, _DATA = ".html", ".json"


@dataclass(frozen=True, order=True)
class CardName:
    """The name of a card within an execution.

    Args:
        position: Its position among the cards of the step, from 0 at the top.
        type: The type of the card.
        id: Its id; empty if it has none.
    """

    position: int
    type: str = "default"
    id: str = ""

    @property
    def file(self) -> str:
        """The first part of the names of its objects."""
        return ".".join([str(self.position), self.type.replace(".", "+"), *([self.id] if self.id else [])])

    @staticmethod
    def of_file(name: str) -> CardName | None:
        """The name of the card whose page is in a file; None for the name of anything else."""
        position, _, rest = name.removesuffix(_PAGE).partition(".")
        kind, _, own_id = rest.partition(".")
        if not name.endswith(_PAGE) or not position.isdecimal() or not kind:
            return None
        return CardName(int(position), kind.replace("+", "."), own_id)


@dataclass(frozen=True)
class TaskCards:
    """Reads and writes the cards of one execution of a task.

    Args:
        run_store: The records of the run.
        step: The step.
        task: The task's id.
        attempt: The execution.
    """

    run_store: RunStore
    step: str
    task: str
    attempt: int

    def key(self, name: CardName, kind: str = _PAGE) -> str:
        """The key of a card's page."""
        return self.run_store.task_key(self.step, self.task, f"{self.attempt}/{FOLDER}/{name.file}{kind}")

    def names(self) -> list[CardName]:
        """The cards, in the order of the decorators."""
        prefix = self.run_store.task_key(self.step, self.task, f"{self.attempt}/{FOLDER}/")
        found = (CardName.of_file(key.removeprefix(prefix)) for key in self.run_store.store.list_keys(prefix))
        return sorted(name for name in found if name is not None)

    def write(self, name: CardName, page: str) -> None:
        """Writes a card's page; replaces an earlier one.

        Raises:
            StorageError: The store refuses.
        """
        self.run_store.store.put(self.key(name), [page.encode("utf-8", "replace")])

    def read(self, name: CardName) -> str:
        """A card's page.

        Raises:
            ObjectNotFoundError: There is none.
        """
        return bytes(self.run_store.store.get(self.key(name))).decode("utf-8", "replace")

    def write_data(self, name: CardName, data: str) -> None:
        """Writes the data of a card's last refresh, as JSON."""
        self.run_store.store.put(self.key(name, _DATA), [data.encode("utf-8", "replace")])

    def read_data(self, name: CardName) -> str:
        """The data of a card's last refresh, as JSON; empty if there is none."""
        return self.run_store.store.tail(self.key(name, _DATA), 0).decode("utf-8", "replace")
