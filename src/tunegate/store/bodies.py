"""The body of an answer, read into a buffer of one's own, and never waited for without an end.

It reaches below botocore and urllib3, which make new bytes of every piece and copy them, down to the socket where that
is a plain one: the kernel then fills the buffer while other threads have the interpreter. Else it reads what they give.
"""

from __future__ import annotations

import http.client
import io
import socket
import struct
import time
from typing import Any

from tunegate.store.client import BrokenBodyError, StalledBodyError

STALL_SECONDS = 60.0
_LEAST = 64 << 10  # bytes that have to come within STALL_SECONDS
_AT_ONCE = 2 * io.DEFAULT_BUFFER_SIZE


class Body:
    """So many bytes of an answer's body; `url` is who sends it. Leaving the `with` keeps the connection for the next
    call if all was read, and closes it otherwise."""

    def __init__(self, stream: Any, size: int, url: str) -> None:
        self._stream = stream
        self._left = size
        self._url = url
        self._raw = getattr(stream, "_raw_stream", None)
        self._source = getattr(self._raw, "_fp", stream)
        self._socket = _plain_socket(self._raw)
        self._is_drained = False

    def __enter__(self) -> Body:
        if self._socket:
            self._socket.setblocking(True)  # the kernel watches the time
            seconds, fraction = divmod(STALL_SECONDS, 1)
            self._set_timeout(struct.pack("ll", int(seconds), int(fraction * 1e6)))
        return self

    def __exit__(self, *_: object) -> None:
        if self._raw is not None and not self._left:
            self._source.read(0)  # http.client: only a read that finds nothing left ends the answer
            if self._socket:
                self._set_timeout(struct.pack("ll", 0, 0))
                self._socket.settimeout(STALL_SECONDS)
            if self._source.isclosed():
                self._raw.release_conn()
        self._stream.close()

    def read_into(self, buffer: memoryview) -> memoryview:
        """The next bytes, at the beginning of `buffer`: as many as it takes, or fewer where they come slowly.

        Raises BrokenBodyError when the connection is lost, StalledBodyError when hardly anything comes.
        """
        buffer, began = buffer[: self._left], time.monotonic()
        try:
            count = self._fill(buffer, began)
        except (BlockingIOError, TimeoutError):
            count = -1
        except (OSError, http.client.HTTPException) as error:
            raise BrokenBodyError(self._url, str(error)) from error
        if not count:
            raise BrokenBodyError(self._url, "the stream ended early")
        if count < min(_LEAST, len(buffer)) and (count < 0 or time.monotonic() - began >= STALL_SECONDS):
            raise StalledBodyError(self._url, f"fewer than {_LEAST >> 10} KiB came in {STALL_SECONDS:.0f} s")
        self._left -= count
        return buffer[:count]

    def read(self) -> bytes:
        """All of it. Raises as `read_into`."""
        whole = memoryview(bytearray(self._left))
        at = 0
        while self._left:
            at += len(self.read_into(whole[at:]))
        return bytes(whole)

    def skip(self, count: int) -> None:
        """Read so many bytes for nothing. Raises as `read_into`, and ends the answer then."""
        buffer = memoryview(bytearray(min(count, 256 << 10)))
        try:
            while count:
                count -= len(self.read_into(buffer[:count]))
        except BaseException:
            self._stream.close()
            raise

    def _fill(self, buffer: memoryview, began: float) -> int:
        if self._socket and self._is_drained:
            count = self._socket.recv_into(buffer, len(buffer), socket.MSG_WAITALL)
            self._source.length -= count
            return count
        count = 0
        while count < len(buffer) and time.monotonic() - began < STALL_SECONDS:
            wanted = min(_AT_ONCE, len(buffer) - count)
            piece = self._source.read1(wanted)
            buffer[count : count + len(piece)] = piece
            count += len(piece)
            # What was read along with the headers is given at once, and the rest comes from the socket.
            self._is_drained = len(piece) < wanted or wanted > io.DEFAULT_BUFFER_SIZE
            if not piece or (self._socket and self._is_drained):
                break
        return count

    def _set_timeout(self, timeval: bytes) -> None:
        assert self._socket
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def _plain_socket(raw: Any) -> socket.socket | None:
    """What the rest of an answer comes from as it is; None where it is in chunks, encrypted, or the last one."""
    found = getattr(getattr(raw, "connection", None), "sock", None)
    is_plain = type(found) is socket.socket and getattr(raw._fp, "length", None) is not None
    return found if is_plain else None
