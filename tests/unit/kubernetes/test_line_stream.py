"""Lines of a stream: whole, in order, and several at a time where many arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.kubernetes.line_stream import lines_of


class Body:
    """A body that has arrived up to a moment of a clock that only pauses move.

    Args:
        interval: The seconds between two lines.
        count: The number of lines.
    """

    def __init__(self, *, interval: float, count: int) -> None:
        self.now = 0.0
        self.pauses = 0
        self.reads: list[int] = []
        self._interval = interval
        self._count = count

    async def _pause(self, seconds: float) -> None:
        self.pauses += 1
        self.now += seconds

    async def chunks(self) -> AsyncIterator[bytes]:
        sent = 0
        while sent < self._count:
            self.now = max(self.now, (sent + 1) * self._interval)
            arrived = min(self._count, round(self.now / self._interval + 1e-6))
            self.reads.append(arrived - sent)
            yield b"".join(b"%d\n" % number for number in range(sent, arrived))
            sent = arrived

    def lines(self) -> list[bytes]:
        async def gathered() -> list[bytes]:
            return [line async for line in lines_of(self.chunks(), clock=lambda: self.now, pause=self._pause)]

        return asyncio.run(gathered())


def test_many_lines_are_read_several_at_a_time() -> None:
    """Four hundred a second, of which each wake-up gets twenty."""
    body = Body(interval=0.0025, count=2_000)
    assert body.lines() == [b"%d" % number for number in range(2_000)]
    assert len(body.reads) < 150
    assert set(body.reads[20:-1]) <= {19, 20, 21}


def test_few_lines_are_read_at_once() -> None:
    """Ten a second, as in a run of a few tasks."""
    body = Body(interval=0.1, count=100)
    assert body.lines() == [b"%d" % number for number in range(100)]
    assert body.pauses == 0


@given(lines=st.lists(st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"")), max_size=8), data=st.data())
def test_lines_are_whole_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    text = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            if start < end:
                yield text[start:end]

    async def found() -> list[bytes]:
        return [line async for line in lines_of(chunks())]

    assert asyncio.run(found()) == text.split(b"\n")[: None if lines and lines[-1] else -1]
