"""An index in PostgreSQL with pgvector, for what one machine's memory does not hold: searched as one in this process.

Each index is a schema of its own, named by its digest and written in one transaction; a name stands for the one that
was loaded last. The scores of words are those that the index was built with, so both give the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import msgspec
import numpy as np
import psycopg
from psycopg import sql

from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import KnowledgeError, NotFoundError, UsageError
from tunegate.knowledge.contents import Contents, Head
from tunegate.knowledge.documents import Chunk, Progress
from tunegate.knowledge.embedders import Embedder, Vectors
from tunegate.knowledge.index import COMPARED, LONGEST, Candidate, Found, fitting, found, is_same, rare_ids
from tunegate.knowledge.words import literal_ids, words

_NAMES = (
    "CREATE TABLE IF NOT EXISTS tunegate_knowledge (name text PRIMARY KEY, digest text NOT NULL, head text NOT NULL)"
)
_LARGEST_INDEXED = 2000  # dimensions, pgvector's limit


def load(folder: Path, digest: str, url: str, progress: Progress | None = None) -> None:
    """Write the index in `folder` to the database at `url`, as what the name after its # stands for from then on.

    An index that is there already is not written again. Raises UsageError for a URL without a name, KnowledgeError
    where the database does not answer, refuses, or lacks pgvector.
    """
    address, name = _parted(url)
    schema, index = _schema(digest), Contents(folder)
    with _connected(address) as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_NAMES)
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
        if cursor.fetchone() is None:
            vector = ""
            if index.head.embedder:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
                vector = f", vector vector({index.head.embedder.dimension}) NOT NULL"
            for statement in (
                "CREATE SCHEMA {schema}",
                f"CREATE TABLE {{schema}}.chunk (position int PRIMARY KEY, body text NOT NULL{vector})",
                "CREATE TABLE {schema}.word (word text PRIMARY KEY, positions int[] NOT NULL, scores real[] NOT NULL)",
            ):
                cursor.execute(sql.SQL(statement).format(schema=sql.Identifier(schema)))
            _fill(cursor, schema, index, progress)
        cursor.execute(
            "INSERT INTO tunegate_knowledge VALUES (%s, %s, %s) "
            "ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, head = excluded.head",
            [name, digest, to_json(index.head).decode()],
        )


def _fill(cursor: psycopg.Cursor[Any], schema: str, index: Contents, progress: Progress | None) -> None:
    into, total = sql.Identifier(schema), index.head.chunks
    with cursor.copy(sql.SQL("COPY {}.chunk FROM STDIN").format(into)) as copy:
        for position in range(total):
            # PostgreSQL's text can't hold NUL, which a file may
            body = msgspec.json.encode(index.chunk(position)).decode().replace("\\u0000", "")
            vector = [_written(index.vectors[position])] if index.head.embedder else []
            copy.write_row([position, body, *vector])
            if progress and not (position + 1) % 1000:
                progress("load", position + 1, total)
    with cursor.copy(sql.SQL("COPY {}.word FROM STDIN").format(into)) as copy:
        for word, positions, scores in index.lexicon.postings():
            copy.write_row([word, positions.tolist(), scores.tolist()])
    if index.head.embedder and index.head.embedder.dimension <= _LARGEST_INDEXED:
        cursor.execute(sql.SQL("CREATE INDEX ON {}.chunk USING hnsw (vector vector_cosine_ops)").format(into))


class PostgresIndex:
    """An index in a database. Safe to share between threads, which take turns."""

    def __init__(self, url: str, embedder: Embedder | None = None) -> None:
        """Open what the name after the # of `url` stands for. Raises as `Index`, and NotFoundError for another name."""
        self._address, name = _parted(url)
        with _connected(self._address) as connection:
            is_there = connection.execute("SELECT to_regclass('tunegate_knowledge')").fetchall()[0][0]
            listed = "SELECT name, digest, head FROM tunegate_knowledge ORDER BY name"
            rows = connection.execute(listed).fetchall() if is_there else []
            found_row = next((row for row in rows if row[0] == name), None)
            if found_row is None:
                known = f"there are: {', '.join(row[0] for row in rows)}." if rows else "there is none; load one."
                raise NotFoundError(f"There is no index {name} in that database; {known}")
            self.digest: str = found_row[1]
            self.head = from_json(found_row[2], Head, f"the head of {name}")
            self._schema = sql.Identifier(_schema(self.digest))
            self._embedder = fitting(self.head.embedder, embedder)
            if self._embedder:
                first = self._rows(connection, "SELECT body, vector::text FROM {}.chunk WHERE position = 0", {})[0]
                vector = np.array(msgspec.json.decode(first[1]), dtype=np.float32)
                if not is_same(self._embedder, _chunk(first[0]).whole, vector):
                    raise KnowledgeError(
                        f"{name} was made with another {self._embedder.ref.name}; build it again and load that, or "
                        "start the model that it was made with."
                    )

    def search(self, question: str, most: int = 5) -> Found:
        """As `Index.search`. Raises KnowledgeError where the database does not answer, too."""
        question, wanted = question[:LONGEST].replace("\0", " "), max(most, COMPARED)
        vector = _written(self._embedder.question(question)) if self._embedder else None
        asked = words(question)
        given: dict[str, Any] = {"asked": asked, "vector": vector, "wanted": wanted}
        with _connected(self._address) as connection:
            counts = dict(self._rows(connection, _COUNTS, {"all": [*asked, *literal_ids(question)]}))
            given["ids"] = rare_ids(question, counts, self.head.chunks)
            held: dict[int, list[str]] = dict(self._rows(connection, _HOLDERS, given))
            given["held"] = list(held)
            scores: dict[int, float] = dict(self._rows(connection, _NEAREST if vector else _BEST, given))
            order = sorted(scores, key=lambda position: (-len(held.get(position, ())), -scores[position], position))
            given["found"] = order[:wanted]
            bm25 = dict(self._rows(connection, _SCORES, given))
            chunks = {position: _chunk(body) for position, body in self._rows(connection, _BODIES, given)}
        candidates = [
            Candidate(
                chunks[position],
                scores[position] if vector else None,
                bm25.get(position, 0.0),
                tuple(sorted(held.get(position, ()))),
            )
            for position in order[:wanted]
        ]
        return found(self.head, question, candidates, counts, most)

    def _rows(self, connection: psycopg.Connection[Any], statement: str, given: Mapping[str, Any]) -> Sequence[Any]:
        query = sql.SQL(statement).format(*[self._schema] * statement.count("{}"))
        rows: Sequence[Any] = connection.execute(query, given).fetchall()
        return rows


_BODIES = "SELECT position, body FROM {}.chunk WHERE position = ANY(%(found)s)"
_COUNTS = "SELECT word, cardinality(positions) FROM {}.word WHERE word = ANY(%(all)s)"
_HOLDERS = (
    "SELECT position, array_agg(word) FROM {}.word, unnest(positions) position "
    "WHERE word = ANY(%(ids)s) GROUP BY position"
)
# The scores of a question's words in each chunk; a word that is asked twice counts twice.
_ADDED = (
    "SELECT position, sum(score)::float8 AS added FROM unnest(%(asked)s::text[]) a(word) JOIN {}.word USING (word), "
    "unnest(positions, scores) p(position, score)"
)
_BEST = (
    "(WITH best AS (" + _ADDED + " GROUP BY position) SELECT * FROM best WHERE position = ANY(%(held)s) UNION "  # noqa: S608
    "(SELECT * FROM best ORDER BY added DESC, position LIMIT %(wanted)s))"
)
_SCORES = _ADDED + " WHERE position = ANY(%(found)s) GROUP BY position"
_NEAREST = (
    "(SELECT position, 1 - (vector <=> %(vector)s::vector) FROM {}.chunk WHERE position = ANY(%(held)s)) UNION "
    "(SELECT position, 1 - (vector <=> %(vector)s::vector) FROM {}.chunk ORDER BY vector <=> %(vector)s::vector "
    "LIMIT %(wanted)s)"
)


def _parted(url: str) -> tuple[str, str]:
    address, name = urldefrag(url)
    if not name:
        raise UsageError("The URL of a database names no index; write its name behind a #: postgresql://HOST/DB#NAME.")
    return address, name


def _schema(digest: str) -> str:
    return f"tunegate_{Digest.parse(digest).hex[:32]}"


@contextmanager
def _connected(address: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for a moment. What the database says has no address in it, which may hold a password."""
    try:
        with psycopg.connect(address, connect_timeout=10) as connection:
            yield connection
    except psycopg.errors.FeatureNotSupported as error:
        raise KnowledgeError(f"The database lacks pgvector ({error.diag.message_primary}); install it there.") from None
    except psycopg.Error as error:
        reason = error.diag.message_primary or type(error).__name__
        raise KnowledgeError(
            f"The database can't be used: {reason}; check its URL, its rights, and that it runs."
        ) from None


def _written(vector: Vectors) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def _chunk(body: str) -> Chunk:
    return msgspec.json.decode(body, type=Chunk)
