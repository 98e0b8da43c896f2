"""The model store as the rest of tunegate sees it: versions by name, URI or digest, and small documents.

A folder of the store is a version when its manifest is there; without one nobody sees it.
"""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunegate.api.codec import from_json
from tunegate.api.digest import Digest, beginning, short
from tunegate.api.errors import DigestError, NotFoundError, UsageError
from tunegate.api.names import require_name
from tunegate.api.pinned import SCHEME, parse_storage_uri
from tunegate.api.versions import MANIFEST, File, Manifest, ModelVersion, Producer, Release, digest_of
from tunegate.store import fetching, publishing
from tunegate.store.artifacts import Artifacts
from tunegate.store.bucket import Bucket, Entry
from tunegate.store.catalogue import MANIFEST_KEY, Catalogue
from tunegate.store.claims import is_claimed
from tunegate.store.client import Location, check, connect, parse_uri
from tunegate.store.transfer import Progress, SourceFile

_READERS = 8
_LOG = logging.getLogger(__name__)


class Store:
    """Versions and documents in one bucket, under one prefix. Safe to share between threads."""

    def __init__(self, client: Any, location: Location, endpoint_url: str | None, ending: threading.Event) -> None:
        self._bucket = Bucket(client, location)
        self._ending = ending
        self._manifests: dict[Entry, Manifest] = {}  # immutable, so what was read once stays true
        self._damaged: dict[Entry, DigestError | UsageError] = {}
        self.uri = location.uri
        self.endpoint_url = endpoint_url

    def __repr__(self) -> str:
        return f"Store({self.uri})"

    @classmethod
    def open(cls, uri: str, *, endpoint_url: str | None = None, **keys: str) -> Store:
        """The store at `s3://bucket[/prefix]` or `oss://...`; without `keys` (for boto3's session), credentials come
        from where AWS tools look for them.

        Raises UsageError for another URI, StoreError when it can't be reached, refuses us or has no such bucket.
        """
        store = cls.at(uri, endpoint_url=endpoint_url, **keys)
        check(store._bucket.client, store._bucket.location)
        return store

    @classmethod
    def at(cls, uri: str, *, endpoint_url: str | None = None, **keys: str) -> Store:
        """As `open`, without asking the store anything yet: for whoever must start while it is down."""
        location, ending = parse_uri(uri), threading.Event()
        return cls(connect(location, endpoint_url, ending, **keys), location, endpoint_url, ending)

    def hurry(self) -> None:
        """Wait for a busy store no more, also in calls under way: whoever uses this one is about to end."""
        self._ending.set()

    def publish(
        self,
        folder: Path | Manifest,
        name: str,
        *,
        release: Release,
        producer: Producer,
        prompts: Path | None = None,
        sent: Iterable[File] = (),
        instead: Mapping[str, bytes] = MappingProxyType({}),
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Make `folder` the version `name`; the same bytes again are the same version, and are not sent again.

        folder: or the manifest of a version of this store, whose weights are then copied within it. release: becomes
        the version's release.yaml. prompts: the folder of the prompts that it names. sent: files of the version that
        others have, and have sent by `send_part`. instead: what its files of these paths hold, not what `folder` has.
        Raises StoreError when the name belongs to other bytes or a file changes meanwhile, UsageError for a name or
        folder that can't be one.
        """
        require_name(name)
        if isinstance(folder, Manifest):
            origin, sources = [folder], publishing.carried(folder, release, prompts)
        else:
            origin, sources = [], publishing.combined(publishing.collect(folder, release, prompts), sent, instead)
        manifest = publishing.publish(
            self._bucket,
            name,
            sources,
            release=release,
            producer=producer,
            find=lambda: self._read(name),
            siblings=lambda: [*origin, *self._complete(name.split("/")[0])],
            progress=progress,
        )
        return self.version_of(manifest)

    def send_share(self, folder: Path, name: str, *, release: Release, index: int, count: int) -> None:
        """Send one of `count` shares of what `publish` of the same makes the version `name`, and nothing that shows.

        Processes that send the others at once share the work; a `publish` of the name waits for them, takes over what
        they finished, and sends what is missing. Raises StoreError.
        """
        require_name(name)
        by_size = sorted(publishing.collect(folder, release), key=lambda source: (-source.size, source.path))
        siblings = partial(self._complete, name.split("/")[0])
        publishing.send_share(self._bucket, name, tuple(by_size[index::count]), siblings)

    def send_part(self, folder: Path, name: str, paths: Iterable[str]) -> tuple[File, ...] | None:
        """Send the files `paths` of `folder` for a `publish` by another process, which has none of them.

        Returns what that is to be told of them; None, and nothing is sent, where somebody publishes the name just now
        or has done so. Raises StoreError.
        """
        require_name(name)
        sources = tuple(SourceFile(path, (folder / path).stat().st_size, folder / path) for path in paths)
        return publishing.send_share(self._bucket, name, sources, partial(self._complete, name.split("/")[0]))

    def is_sent(self, name: str) -> bool:
        """Whether anybody sends files of the version `name` just now, or publishes it."""
        return is_claimed(self._bucket, name)

    def fetch(
        self,
        version: str | Manifest,
        into: Path,
        *,
        digest: str | None = None,
        include_resume: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Bring a version's files to the folder `into`: complete and verified, or not there at all.

        A version whose manifest was read before may be given by it, which is then not read again.
        `digest` is the one that is expected; files under `resume/` come only when asked for. Raises DigestError naming
        what differs, NotFoundError, or StoreError when the disk or the store fails; fetching again resumes.
        """
        manifest = version if isinstance(version, Manifest) else self.manifest(version)
        if digest is not None and manifest.digest != digest:
            raise DigestError(f"{manifest.name} is {manifest.digest}, not {digest}; ask for the version by its digest.")
        return fetching.fetch(self._bucket, manifest, into, include_resume=include_resume, progress=progress)

    def verify(self, version: str, progress: Progress | None = None) -> Manifest:
        """Read every byte of a version again. Raises DigestError naming the file that differs."""
        manifest = self.manifest(version)
        fetching.verify(self._bucket, manifest, progress)
        return manifest

    def list(self, model: str | None = None) -> builtins.list[ModelVersion]:
        """The complete versions, of one model or of all, oldest first; a warning tells of those that can't be read."""
        return [self.version_of(manifest) for manifest in self.manifests(model)]

    def manifests(self, model: str | None = None) -> builtins.list[Manifest]:
        """As `list`, with all that is known of each version."""
        return self._complete(model)

    def damaged(self, model: str) -> builtins.list[DigestError | UsageError]:
        """Why manifests of a model could not be read when it was last listed."""
        return [error for entry, error in self._damaged.items() if entry.key.startswith(f"{model}/")]

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version given by name, URI, pinned URI, or at least 8 digits of its digest.

        Raises NotFoundError, and DigestError when another digest is there than the one that the URI pins.
        """
        if version.startswith(SCHEME):
            pinned = parse_storage_uri(version)
            found = self.manifest(pinned.name)
            if found.digest != pinned.digest:
                raise DigestError(
                    f"{pinned.name} in {self.uri} is {found.digest}, not the {pinned.digest} that was asked for; "
                    "publish under a new name instead of over an old one."
                )
            return found
        if digits := beginning(version):
            every = self._complete(None)
            matches = [manifest for manifest in every if Digest.parse(manifest.digest).hex.startswith(digits)]
            if not matches:
                short_names = [f"{manifest.name} ({short(manifest.digest)})" for manifest in every]
                raise NotFoundError(f"no version with digest {digits} in {self.uri}; {self._tell(short_names)}")
            if len({manifest.digest for manifest in matches}) > 1:
                names = ", ".join(manifest.name for manifest in matches)
                raise UsageError(f"digest {digits} fits several versions ({names}); give more digits.")
            return matches[0]  # the same bytes under several names are one version; the oldest name stands for it
        name = require_name(version.removeprefix(f"{self.uri}/").rstrip("/"))
        if manifest := self._read(name):
            return manifest
        known = [manifest.name for manifest in self._complete(name.split("/")[0])]
        raise NotFoundError(f"no version {name} in {self.uri}; {self._tell(known)}")

    def resolve(self, version: str) -> ModelVersion:
        """The version given as for `manifest`. Raises NotFoundError and DigestError."""
        return self.version_of(self.manifest(version))

    def catalogue(self) -> Catalogue:
        """The versions, for one who looks again and again."""
        return Catalogue(self._bucket, self._read, self.version_of)

    def artifacts(self, kind: str) -> Artifacts:
        """Folders of this store that are no versions, such as the indexes of `knowledge`."""
        return Artifacts(self._bucket, kind)

    def put(self, key: str, body: bytes) -> None:
        """Write a small document, over an older one."""
        self._bucket.put(key, body)

    def put_new(self, key: str, body: bytes) -> bool:
        """Write a small document unless there is one; says whether it was written."""
        return self._bucket.put_new(key, body)

    def get(self, key: str) -> bytes | None:
        return self._bucket.get(key)

    def keys(self, prefix: str) -> builtins.list[str]:
        """The keys that start with `prefix`, sorted."""
        return sorted(entry.key for entry in self._bucket.entries(prefix))

    def entries(self, prefix: str) -> builtins.list[Entry]:
        """The objects whose keys start with `prefix`."""
        return self._bucket.entries(prefix)

    def folders(self, prefix: str) -> builtins.list[str]:
        """The next path segments below `prefix`, which ends in '/'."""
        return self._bucket.folders(prefix)

    def ages(self, prefix: str) -> dict[str, float]:
        """The seconds since each object below `prefix` was written, all by the store's clock."""
        return self._bucket.ages(prefix)

    def delete(self, key: str) -> None:
        """Remove a document; one that is not there is no error."""
        self._bucket.delete(key)

    def _complete(self, model: str | None) -> builtins.list[Manifest]:
        models = [model] if model else [name for name in self._bucket.folders("") if not name.startswith(".")]
        entries = [entry for name in models for entry in self._bucket.entries(f"{name}/")]
        entries = [entry for entry in entries if MANIFEST_KEY.fullmatch(entry.key)]
        gone = {entry for entry in self._damaged if model in (None, entry.key.split("/")[0])} - set(entries)
        for entry in gone:
            del self._damaged[entry]
        unread = [entry for entry in entries if entry not in self._manifests and entry not in self._damaged]
        if unread:
            with ThreadPoolExecutor(min(_READERS, len(unread))) as readers:
                tuple(readers.map(self._keep, unread))
        found = [manifest for entry in entries if (manifest := self._manifests.get(entry))]
        return sorted(found, key=lambda manifest: (manifest.created, manifest.name))

    def _keep(self, entry: Entry) -> None:
        """Read a manifest for good. One that can't be read is told of once, and hides no other."""
        try:
            if manifest := self._read(entry.key.removesuffix(f"/{MANIFEST}")):
                self._manifests[entry] = manifest
        except (DigestError, UsageError) as error:
            self._damaged[entry] = error
            _LOG.warning("left out: %s", error)

    def _read(self, name: str) -> Manifest | None:
        body = self._bucket.get(f"{name}/{MANIFEST}")
        return (
            None if body is None else check_manifest(from_json(body, Manifest, f"{self.uri}/{name}/{MANIFEST}"), name)
        )

    def version_of(self, manifest: Manifest) -> ModelVersion:
        """A manifest of this store as the version that it describes."""
        return ModelVersion(
            model=manifest.model,
            name=manifest.name,
            uri=f"{self.uri}/{manifest.name}/",
            digest=manifest.digest,
            format=manifest.format,
            created=manifest.created,
            base=manifest.base,
        )

    @staticmethod
    def _tell(known: builtins.list[str]) -> str:
        shown = ", ".join(known[-5:])
        return f"there are: {shown}{' and older ones' if len(known) > 5 else ''}." if known else "there are none."


_SPOILED = f"delete its {MANIFEST} from the store, and publish the version again"


def check_manifest(manifest: Manifest, name: str) -> Manifest:
    """The manifest, when it is of `name`, agrees with itself and stays in its folder. Raises DigestError."""
    if manifest.name != name or manifest.model != name.split("/")[0]:
        raise DigestError(f"the manifest under {name} is of {manifest.name}; {_SPOILED}.")
    for path in (file.path for file in manifest.files):
        if {"", ".", ".."} & set(path.split("/")) or "\\" in path or "\0" in path:
            raise DigestError(f"the manifest of {name} names {path!r}, which is outside its folder; delete it.")
    if digest_of(manifest.files) != manifest.digest:
        raise DigestError(f"the manifest of {name} disagrees with its own digest; {_SPOILED}.")
    return manifest
