"""A model of a public hub by its id: fetched by the hub's own client, and published in the store with its commit.

What was published once is found there again, so that nobody needs the hub a second time.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

from tunegate.api import environment
from tunegate.api.errors import ModelError, NotFoundError, StoreError, UnavailableError, UsageError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.files import default_cache, new_folder
from tunegate.models.fit import require_whole
from tunegate.store import Store
from tunegate.store.transfer import Progress

_LOG = logging.getLogger(__name__)
_PART = r"[A-Za-z0-9_][\w.-]*"
_URI = re.compile(rf"(hf|ms)://({_PART}/{_PART})(?:@([\w./-]+))?")
_ID = re.compile(rf"{_PART}/{_PART}")
_DEFAULTS = ("", "main", "master")  # what the hubs call the branch that is fetched where none is named
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*"]
_NOT_FILES = ["*/*", "consolidated*", "*.bin.index.json"]  # the weights once, and none that are pickled

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_Refusals = dict[type[Exception], Callable[[], Exception]]


@dataclass(frozen=True)
class HubModel:
    """`hub`: hf or ms; `name`: ORG/NAME; `revision`: a branch, a tag or a commit, empty for the hub's default."""

    hub: str
    name: str
    revision: str = ""

    @property
    def uri(self) -> str:
        """Without the revision."""
        return f"{self.hub}://{self.name}"


@dataclass(frozen=True)
class Snapshot:
    """The files of a model as they were at one `commit`; the folder is the cache's: read it, never write to it."""

    folder: Path
    commit: str


def parse_hub(text: str, revision: str = "") -> HubModel | None:
    """Read `hf://ORG/NAME[@REVISION]`, `ms://...`, or `ORG/NAME` as the hub that USE_MODELSCOPE_HUB chooses has it.

    None for what is neither. Raises UsageError for half of a URI, and where it names another revision than `revision`.
    """
    if match := _URI.fullmatch(text):
        hub, name, named = match.groups()
        if named and revision not in ("", named):
            raise UsageError(f"{text} and --model_revision {revision} are two revisions; give one of them.")
        revision = named or revision
    elif text.startswith(("hf://", "ms://")):
        raise UsageError(f"{text!r} is no model of a hub; write hf://ORG/NAME or hf://ORG/NAME@REVISION.")
    elif _ID.fullmatch(text):
        uses_modelscope = os.environ.get(environment.MODELSCOPE, "").lower() in ("1", "true", "y")
        hub, name = "ms" if uses_modelscope else "hf", text
    else:
        return None
    return HubModel(hub, name, "" if revision in _DEFAULTS else revision)


def published(store: Store, model: HubModel) -> ModelVersion | None:
    """The newest version in the store that came from this model at this revision, or by this branch's name."""
    usual, every = _model_of(model), None
    for manifest in chain.from_iterable(reversed(store.manifests(of)) for of in (usual, every)):
        told = manifest.producer.arguments
        if told.get("source") == model.uri and model.revision in (told.get("revision"), told.get("asked")):
            return store.version_of(manifest)
    return None


def publish_from_hub(
    store: Store, model: HubModel, name: str | None = None, progress: Progress | None = None
) -> ModelVersion:
    """Fetch a model and publish it, as `<name>/<hub>-<commit>/checkpoint-0` where no `name` is given.

    Raises what `fetch_from_hub` raises, ModelError for a model that is not whole, and StoreError.
    """
    snapshot = fetch_from_hub(model)
    require_whole(snapshot.folder)
    name = name or f"{_model_of(model)}/{model.hub}-{snapshot.commit[:12]}/checkpoint-0"
    _LOG.info("publishing %s at %s as %s", model.uri, snapshot.commit, name)
    arguments = {"source": model.uri, "revision": snapshot.commit, "asked": model.revision}
    producer = Producer(kind="hub", arguments=arguments)
    return store.publish(
        snapshot.folder, name, release=Release(format="huggingface"), producer=producer, progress=progress
    )


def fetch_from_hub(model: HubModel) -> Snapshot:
    """The model's files, from the hub or from its client's own cache. What was cut off is gone on with.

    Raises NotFoundError or ModelError for a model that can't be had or used, UnavailableError where the hub can't be
    reached, UsageError where its client is not installed.
    """
    found, commit = (_from_huggingface if model.hub == "hf" else _from_modelscope)(model)
    paths = [path for path in sorted(found.iterdir()) if path.is_file() and _is_wanted(path.name)]
    if not any(path.suffix == ".safetensors" for path in paths):
        raise ModelError(
            f"{model.uri} has no weights as safetensors, and pickled ones may run what they hold; load it with "
            "transformers once, save it with save_pretrained, and give that folder."
        )
    # The client's folder may hold what others fetched, and equal models are to have equal digests.
    into = default_cache() / "hub" / f"{model.hub}-{model.name.replace('/', '--')}-{commit[:12]}"
    if not into.is_dir() or not all(path.exists() for path in into.iterdir()):
        with new_folder(into) as folder:
            for path in paths:
                (folder / path.name).symlink_to(path.resolve())
    return Snapshot(into, commit)


def _is_wanted(name: str) -> bool:
    return any(fnmatch(name, kind) for kind in _FILES) and not any(fnmatch(name, kind) for kind in _NOT_FILES)


def _model_of(model: HubModel) -> str:
    """The first part of the names of its versions."""
    return re.sub(r"[^a-z0-9.]+", "-", model.name.partition("/")[2].lower())[:63].strip("-.")


def _from_huggingface(model: HubModel) -> tuple[Path, str]:
    import huggingface_hub
    from huggingface_hub import errors

    refusals: _Refusals = {
        errors.GatedRepoError: lambda: _gated(model, "HF_TOKEN"),
        errors.RepositoryNotFoundError: lambda: _unknown(model, "HF_TOKEN"),
        errors.RevisionNotFoundError: lambda: NotFoundError(
            f"{model.uri} has no revision {model.revision or 'main'}; give a branch, a tag or a commit."
        ),
    }
    with _explained(model, refusals, "HF_ENDPOINT"):
        folder = huggingface_hub.snapshot_download(
            model.name, revision=model.revision or None, allow_patterns=_FILES, ignore_patterns=_NOT_FILES
        )
    return Path(folder), Path(folder).name


def _from_modelscope(model: HubModel) -> tuple[Path, str]:
    try:
        from modelscope_hub import HubApi, errors
    except ModuleNotFoundError:
        raise UsageError(
            f"{model.uri} is fetched by ModelScope's client; install it with: pip install 'tunegate[modelscope]'."
        ) from None

    refusals: _Refusals = {
        errors.AuthenticationError: lambda: _gated(model, "MODELSCOPE_API_TOKEN"),
        errors.PermissionDeniedError: lambda: _gated(model, "MODELSCOPE_API_TOKEN"),
        errors.NotExistError: lambda: _unknown(model, "MODELSCOPE_API_TOKEN"),
    }
    with _explained(model, refusals, "MODELSCOPE_ENDPOINT"):
        api, revision = HubApi(), model.revision or "master"
        listed = api.legacy.list_repo_files(model.name, "model", revision=revision)
        # It names no commit of a branch, but that of each file.
        commit = str(max(listed, key=lambda file: file.get("CommittedDate") or 0)["Revision"])
        folder = default_cache() / "hub" / f"modelscope-{model.name.replace('/', '--')}-{commit[:12]}"
        api.download_repo(
            *(model.name, "model"),
            revision=revision,
            local_dir=folder,
            file_list=listed,
            allow_patterns=_FILES,
            ignore_patterns=_NOT_FILES,
        )
    return folder, commit


@contextmanager
def _explained(model: HubModel, refusals: _Refusals, endpoint: str) -> Iterator[None]:
    """What a hub's client raises, as an error that names the remedy."""
    try:
        yield
    except Exception as error:
        for kind, refusal in refusals.items():
            if isinstance(error, kind):
                raise refusal() from error
        first: BaseException = error
        while cause := first.__cause__ or first.__context__:  # the first of them says why
            first = cause
        if isinstance(first, OSError) and first.errno in _DISK:
            raise StoreError(
                f"{model.uri} can't be kept: {first.strerror}; make room, or set HF_HOME and TUNEGATE_CACHE."
            ) from error
        reason = " ".join(str(first).split()) or type(first).__name__
        raise UnavailableError(
            f"{model.uri} can't be fetched: {reason.rstrip('.')}; give the folder of a copy, publish it where the hub "
            f"can be reached (tunegate models publish {model.uri}), or set {endpoint} to a mirror."
        ) from error


def _gated(model: HubModel, token: str) -> ModelError:
    return ModelError(
        f"{model.uri} is given to those alone who accept its terms; accept them on its page, and set {token} to a "
        "token of that account."
    )


def _unknown(model: HubModel, token: str) -> NotFoundError:
    return NotFoundError(
        f"The hub has no {_named(model)} for you to see; correct the name, or set {token} where it is private."
    )


def _named(model: HubModel) -> str:
    return f"{model.uri}@{model.revision}" if model.revision else model.uri
