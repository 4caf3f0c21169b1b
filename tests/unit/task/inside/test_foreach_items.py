"""A foreach over objects that have a length and indexes and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inprocess import Failed, run_source

SOURCE = """
    class Images:
        def __init__(self, *names): self.names = dict(enumerate(names))
        def __len__(self): return len(self.names)
        def __getitem__(self, index): return {item}
    class Grid(Images):
        def __getitem__(self, index): return index % 2
        def __len__(self): return 3
    class F(FlowSpec):
        @step
        def start(self):
            self.images = {value}
            self.next(self.branch, foreach="images")
        @step
        def branch(self):
            self.got = self.input
            self.next(self.join)
        @step
        def join(self, inputs):
            self.all = [i.got for i in inputs]
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("value", "items"),
    [('Images("a", "b", "c")', ["a", "b", "c"]), ("Grid()", [0, 1, 0]), ("Images()", [])],
)
def test_a_foreach_goes_over_indexes(tmp_path: Path, value: str, items: list[object]) -> None:
    """From 0 to the length, whether or not the object raises at its end."""
    run = run_source(tmp_path, SOURCE.format(item="self.names[index]", value=value))
    assert run["end"].task.data.all == items


@pytest.mark.parametrize("item", ["{'x': 1}[index]", "[][index]", "self.missing"])
def test_an_index_without_an_item_is_a_clear_error(tmp_path: Path, item: str) -> None:
    """It names the class, the index and what the object raised."""
    with pytest.raises(Failed, match=r"an? Images of length 1 gave no item 0: (Key|Index|Attribute)Error"):
        run_source(tmp_path, SOURCE.format(item=item, value='Images("a")'))
