"""The part of a store that the logs need, in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    key: str
    etag: str


class Documents:
    """`failure` makes it fail as an unreachable one does; `gets` and `puts` are counted."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.gets = self.puts = 0
        self.written: dict[str, float] = {}  # how many seconds ago, where a test says so

    def put(self, key: str, body: bytes) -> None:
        if self.failure:
            raise self.failure
        self.puts += 1
        self.bodies[key] = body

    def put_new(self, key: str, body: bytes) -> bool:
        if self.failure:
            raise self.failure
        self.puts += 1
        return self.bodies.setdefault(key, body) is body

    def get(self, key: str) -> bytes | None:
        self.gets += 1
        return self.bodies.get(key)

    def entries(self, prefix: str) -> list[Entry]:
        return [Entry(key, f"{hash(self.bodies[key])}") for key in sorted(self.bodies) if key.startswith(prefix)]

    def folders(self, prefix: str) -> list[str]:
        below = (key.removeprefix(prefix) for key in self.bodies if key.startswith(prefix))
        return sorted({rest.split("/")[0] for rest in below if "/" in rest})

    def delete(self, key: str) -> None:
        self.bodies.pop(key, None)

    def ages(self, prefix: str) -> dict[str, float]:
        return {entry.key: self.written.get(entry.key, 0.0) for entry in self.entries(prefix)}
