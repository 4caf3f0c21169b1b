"""Two streams and a result in one log of lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.task.host.framing import (
    LONGEST_PIECE_BYTES,
    Encoder,
    OutputStream,
    Piece,
    ResultLine,
    decode,
    encode_result,
)

tricky = st.lists(
    st.sampled_from([b"\x1c", b"\x1d", b"\x1e", b"\x1f", b"\n", b"\r", b"a", b"\xff", "é".encode(), b"\x00"]),
    max_size=20,
).map(b"".join)
chunks = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), tricky), max_size=12)


def decoded(log: bytes) -> list[Piece | ResultLine]:
    assert log == b"" or log.endswith(b"\n")
    return [decode(line) for line in log.split(b"\n")[:-1]]


@given(chunks)
def test_each_stream_comes_out_as_it_went_in(written: list[tuple[OutputStream, bytes]]) -> None:
    """Whatever bytes a task writes, in whatever pieces, and whether or not it ends its lines."""
    encoders = {"stdout": Encoder("stdout"), "stderr": Encoder("stderr")}
    log = b"".join(encoders[stream].feed(data) for stream, data in written)
    log += encoders["stdout"].flush() + encoders["stderr"].flush()
    pieces = decoded(log)
    for stream in encoders:
        expected = b"".join(data for name, data in written if name == stream)
        assert (
            b"".join(piece.data for piece in pieces if isinstance(piece, Piece) and piece.stream == stream) == expected
        )


def test_plain_output_stays_readable() -> None:
    """``kubectl logs`` shows what the task printed."""
    assert Encoder("stdout").feed(b"hello\nworld\n") == b"hello\nworld\n"
    assert Encoder("stderr").feed(b"oh\n") == b"\x1foh\n"


def test_a_result_differs_from_output_that_looks_like_one() -> None:
    line = encode_result('{"outcome":"succeeded"}')
    assert decoded(line) == [ResultLine('{"outcome":"succeeded"}')]
    assert decoded(Encoder("stdout").feed(line)) == [Piece("stdout", line)]


def test_a_line_without_end_is_not_held_for_ever() -> None:
    encoder = Encoder("stdout")
    written = encoder.feed(b"x" * LONGEST_PIECE_BYTES)
    assert decoded(written) == [Piece("stdout", b"x" * LONGEST_PIECE_BYTES)]
    assert encoder.flush() == b""


def test_a_line_that_nobody_framed_is_stdout() -> None:
    assert decode(b"/usr/bin/python3: No module named k8sflow") == Piece(
        "stdout", b"/usr/bin/python3: No module named k8sflow\n"
    )
