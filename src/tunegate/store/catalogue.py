"""What versions a store has, for one who looks again and again: listed in few requests, each manifest read once.

Of a manifest only what tells of the version is kept, and not its files: a store may have ten thousand versions of a
hundred files each.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tunegate.api.errors import DigestError, UsageError
from tunegate.api.names import NAME
from tunegate.api.versions import MANIFEST, Manifest, ModelVersion, Producer
from tunegate.store.bucket import Bucket, Entry

MANIFEST_KEY = re.compile(rf"{NAME.pattern}/{re.escape(MANIFEST)}")
_READERS = 8
_LOG = logging.getLogger(__name__)
_AFTER_DOCUMENTS = ".tunegate0"  # the key that sorts behind all of `.tunegate/`; no model begins with a dot


class Listed(NamedTuple):
    """A version, and who made it."""

    version: ModelVersion
    producer: Producer


class Catalogue:
    """The versions of models, as last listed and read. Not for several threads at a time."""

    def __init__(
        self,
        bucket: Bucket,
        read: Callable[[str], Manifest | None],
        version_of: Callable[[Manifest], ModelVersion],
    ) -> None:
        self._bucket, self._read_manifest, self._version_of = bucket, read, version_of
        self._known: dict[str, dict[Entry, Listed | DigestError | UsageError]] = {}
        self._unread: dict[str, list[Entry]] = {}
        self._fewest = 2  # so many models at once are worth a listing of the whole store

    def list(self, models: Collection[str]) -> None:
        """See which manifests these models have. Raises StoreError.

        Many models are listed in one pass over the store, as long as that takes no more requests than models.
        """
        found = self._pass_over(len(models)) if len(models) >= self._fewest else None
        for model in models:
            entries = self._manifests(self._bucket.pages(f"{model}/")) if found is None else found.get(model, [])
            before = self._known.get(model, {})
            self._known[model] = {entry: before[entry] for entry in entries if entry in before}
            self._unread[model] = [entry for entry in entries if entry not in before]

    def read(self, model: str, most: int) -> bool:
        """Read manifests of a model that were listed and not read, at most so many; whether none is left. Raises
        StoreError."""
        unread = self._unread.get(model, [])
        if unread:
            now = unread[:most]
            with ThreadPoolExecutor(min(_READERS, len(now))) as readers:
                for entry, found in zip(now, readers.map(self._read, now), strict=True):
                    if found is not None:
                        self._known[model][entry] = found
            del unread[: len(now)]
        return not unread

    def versions(self, model: str) -> Sequence[Listed]:
        """Those that were read, oldest first."""
        found = [each for each in self._known.get(model, {}).values() if isinstance(each, Listed)]
        return sorted(found, key=lambda each: (each.version.created, each.version.name))

    def damaged(self, model: str) -> Sequence[DigestError | UsageError]:
        """Why manifests of the model could not be read."""
        return [each for each in self._known.get(model, {}).values() if not isinstance(each, Listed)]

    def keep(self, models: Collection[str]) -> None:
        """Forget all others."""
        for model in self._known.keys() - set(models):
            del self._known[model], self._unread[model]

    def _pass_over(self, most: int) -> Mapping[str, Sequence[Entry]] | None:
        """The manifests of all models, by model; None when that would take more than `most` requests."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for number, page in enumerate(self._bucket.pages("", after=_AFTER_DOCUMENTS), 1):
            for entry in self._manifests([page]):
                found[entry.key.partition("/")[0]].append(entry)
            if number > most:
                # Others keep much beside the models: it is not tried again for so few.
                self._fewest = 2 * most
                return None
        return found

    @staticmethod
    def _manifests(pages: Iterable[Sequence[Entry]]) -> Sequence[Entry]:
        return [entry for page in pages for entry in page if MANIFEST_KEY.fullmatch(entry.key)]

    def _read(self, entry: Entry) -> Listed | DigestError | UsageError | None:
        """One that can't be read hides no other; one that is gone by now is none."""
        try:
            manifest = self._read_manifest(entry.key.removesuffix(f"/{MANIFEST}"))
        except (DigestError, UsageError) as error:
            _LOG.warning("left out: %s", error)
            return error
        return Listed(self._version_of(manifest), manifest.producer) if manifest else None
