"""How many tokens messages take, exactly: by a model's own tokenizer and chat template, without its weights."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from tunegate.api.errors import DigestError, ModelError, UsageError
from tunegate.models.network import load_tokenizer

if TYPE_CHECKING:
    from tunegate.store import Store

# What transformers reads a tokenizer from.
_FILES = (
    "config.json",
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)


class Tokens:
    """Counts by the tokenizer in a folder. Raises ModelError when there is no usable one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = load_tokenizer(folder)

    @classmethod
    def of(cls, folder_or_version: str, store: Store | None) -> Tokens:
        """Those of a folder, or of a version in the store, of which only the tokenizer's files are fetched.

        Raises UsageError where it is no folder and no store is given, StoreError or DigestError from the store.
        """
        if Path(folder_or_version).is_dir():
            return cls(Path(folder_or_version))
        if store is None:
            raise UsageError(f"There is no folder {folder_or_version}; correct it, or give --store for a version.")
        manifest = store.manifest(folder_or_version)
        with tempfile.TemporaryDirectory() as folder:
            for file in manifest.files:
                if not any(Path(file.path).match(pattern) for pattern in _FILES) or "/" in file.path:
                    continue
                body = store.get(f"{manifest.name}/{file.path}") or b""
                if hashlib.sha256(body).hexdigest() != file.sha256:
                    raise DigestError(
                        f"{manifest.name}/{file.path} is not what was published; publish it again under another name."
                    )
                (Path(folder) / file.path).write_bytes(body)
            return cls(Path(folder))

    @property
    def control(self) -> list[str]:
        """The special tokens, which must not occur in what people write."""
        return [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]

    def count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def count_prompt(self, messages: Sequence[tuple[str, str]]) -> int:
        """The tokens of messages, each a role and a content, up to where the answer begins.

        Raises ModelError when the chat template refuses them.
        """
        dialogue = [{"role": role, "content": content} for role, content in messages]
        try:
            text = self._tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError) as error:
            raise ModelError(
                f"The chat template in {self._folder} refuses these messages: {error}; change one of them."
            ) from None
        return self.count(str(text))
