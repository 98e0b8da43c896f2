"""Files, folders and URIs as documents; what can't be read is refused with what to do about it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunegate.api.errors import KnowledgeError, UsageError
from tunegate.knowledge.documents import Document, Progress, Section
from tunegate.knowledge.markup import read_html, read_markdown
from tunegate.knowledge.tables import read_csv, read_json, read_jsonl
from tunegate.store.files import fetch_plain, is_uri

_LARGEST = 256 << 20  # bytes of a file, which is read as a whole


@dataclass(frozen=True)
class Reading:
    """What was read. skipped: the files of folders that are of no known kind. notes: what of documents is missing."""

    documents: tuple[Document, ...]
    skipped: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for document in self.documents for note in document.notes)


def read(
    sources: Sequence[str],
    cache: Path,
    *,
    endpoint_url: str | None = None,
    progress: Progress | None = None,
) -> Reading:
    """The documents in files, folders, and at `s3://` or `oss://` URIs, which are fetched to `cache`.

    Raises UsageError for a source that can't be one,
    KnowledgeError for a file that can't be read or a folder that holds none, and what the store raises.
    """
    given = [
        fetch_plain(source, cache, endpoint_url=endpoint_url) if is_uri(source) else Path(source) for source in sources
    ]
    files: dict[str, Path] = {}
    skipped = []
    for source, path in zip(sources, given, strict=True):
        found = _files_of(path, source)
        for name, file in found.items():
            if file.suffix.lower() not in SUFFIXES:
                skipped.append(name)
            elif name in files:
                raise UsageError(f"Two sources are named {name}; rename one, or give a folder that holds both.")
            else:
                files[name] = file
    documents = []
    for done, name in enumerate(sorted(files), 1):
        documents.append(_read_file(files[name], name))
        if progress:
            progress("read", done, len(files))
    return Reading(tuple(documents), tuple(sorted(skipped)))


def _files_of(path: Path, source: str) -> dict[str, Path]:
    """The files of a source by the names that documents get, which say nothing of this machine."""
    kinds = ", ".join(sorted(SUFFIXES))
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{source} is of no kind that is read ({kinds}); convert it.")
        return {path.name: path}
    if not path.is_dir():
        raise UsageError(f"{source} does not exist; name a file, a folder or a URI.")
    found = {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    }
    if not any(file.suffix.lower() in SUFFIXES for file in found.values()):
        raise KnowledgeError(
            f"{source} holds no file that is read ({kinds}); put documents in it, or name another folder."
        )
    return found


def _read_file(path: Path, source: str) -> Document:
    if path.stat().st_size > _LARGEST:
        raise KnowledgeError(f"{source} is larger than {_LARGEST >> 20} MiB; split it.")
    try:
        body = path.read_bytes()
    except OSError as error:
        raise KnowledgeError(f"{source} can't be read: {error.strerror}; make it readable.") from None
    suffix = path.suffix.lower()
    if suffix in _OFFICE:
        office = importlib.import_module("tunegate.knowledge.office")  # an extra of its own
        document: Document = getattr(office, _OFFICE[suffix])(body, source, path.stem)
        return document
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnowledgeError(
            f"{source} is not UTF-8 (byte {error.start}); convert it, for example with: iconv -f gb18030 -t utf-8."
        ) from None
    return _TEXT[suffix](text, source, path.stem)


_TEXT: dict[str, Callable[[str, str, str], Document]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".txt": lambda text, source, stem: Document(source, stem, (Section(text, line=1),) if text.strip() else ()),
}
_OFFICE = {".pdf": "read_pdf", ".docx": "read_docx"}
SUFFIXES = frozenset(_TEXT) | frozenset(_OFFICE)
