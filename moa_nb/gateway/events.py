"""Server-sent events, out of the bytes of a stream."""

from __future__ import annotations

__all__ = ["Events"]


class Events:
    r"""Splits a stream; linear in its bytes, however they are cut.

    >>> events = Events()
    >>> events.feed(b"data: 1\n\ndata: 2\n"), events.feed(b"\n: a comment\n\n"), events.rest()
    ([b'1'], [b'2'], [])
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._carriage = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that a piece completes."""
        if self._carriage or b"\r" in piece:
            piece = self._with_newlines(piece)
        rest = self._rest
        if not rest and piece.endswith(b"\n\n"):
            return _data(piece[:-2])  # nearly always
        start = max(len(rest) - 1, 0)
        rest += piece
        end = rest.rfind(b"\n\n", start)
        if end < 0:
            return []
        block = bytes(rest[:end])
        del rest[: end + 2]
        return _data(block)

    def rest(self) -> list[bytes]:
        """Return the data of an event that nothing ended but the stream."""
        return _data(bytes(self._rest))

    def _with_newlines(self, piece: bytes) -> bytes:
        # A CR at the end may be half of CRLF: it waits for the next piece.
        whole = self._carriage + piece
        self._carriage = b"\r" if whole.endswith(b"\r") else b""
        return whole[: len(whole) - len(self._carriage)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")


_FIELD, _NEXT = b"data: ", b"\n\ndata: "


def _data(block: bytes) -> list[bytes]:
    """Return the data of each event of a block; comments and other fields are left out."""
    found = block.removeprefix(_FIELD).split(_NEXT)
    if not block.startswith(_FIELD) or block.count(b"\n") != 2 * (len(found) - 1):
        # Not each event is one line of data, as nearly all are.
        events = (event.split(b"\n") for event in block.split(b"\n\n"))
        found = [b"\n".join(line[5:] for line in lines if line.startswith(b"data:")) for lines in events]
    return [data for event in found if (data := event.strip())]
