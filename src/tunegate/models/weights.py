"""Whether a model's files are what their names say: no Git LFS pointer, nothing cut off, every number finite.

Headers come first, then one tensor after another, so that memory stays small; imports no torch but for a .bin. Whether
names and shapes are those of config.json is the network's own matter.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import ModelError
from tunegate.files import POINTER, in_threads
from tunegate.models.prompt_tuning import LORA, PREFIX

_LONGEST_POINTER = 1024  # bytes, by git-lfs's own rule
_LONGEST_HEADER = 100_000_000  # bytes, by safetensors' own rule
_CHUNK = 1 << 22  # bytes in memory at once
# The bits of a type's exponent: a number that has all of them is NaN or infinite.
_EXPONENT: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),  # has no infinity: its NaN has every bit
}
_AGAIN = "fetch it again, or save the model there once more"


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def check_weights(folder: Path) -> None:
    """Raise ModelError, naming file and weight, unless the model or adapter in `folder` can be computed with.

    Refused are Git LFS pointers, files that are missing, cut off or damaged, numbers that are NaN or infinite, and a
    tokenizer with more tokens than the model has embeddings.
    """
    for path in sorted(folder.iterdir()):
        _refuse_pointer(path)
    _check_files(folder, _weight_files(folder))


def check_part(folder: Path) -> None:
    """As `check_weights`, where `folder` has some of the files with weights, and others have the rest."""
    _check_files(folder, sorted(folder.glob("*.safetensors")))


def _check_files(folder: Path, files: list[Path]) -> None:
    headers = {path: _header(path) for path in files if path.suffix == ".safetensors"}
    _check_tokenizer(folder)
    in_threads(lambda path: _check_finite(path, *headers[path]), headers)
    for path in files:
        if path not in headers:
            _check_pickled(path)
    for beside in (folder / PREFIX, folder / LORA):
        if beside.is_dir():
            check_weights(beside)


def _refuse_pointer(path: Path) -> None:
    if not path.is_file() or path.stat().st_size > _LONGEST_POINTER:
        return
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ModelError(
                f"{path} is a Git LFS pointer, not the file itself; fetch it there with `git lfs pull`, or download it."
            )


def _weight_files(folder: Path) -> list[Path]:
    """What transformers and peft load from `folder`; a shard that an index names must be there."""
    for name in ("adapter_model.safetensors", "adapter_model.bin", "model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / name).is_file() and not (folder / "pytorch_model.bin").is_file():
            return _shards(folder / name)
    return [path] if (path := folder / "pytorch_model.bin").is_file() else []


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
    except msgspec.DecodeError as error:
        raise ModelError(f"{index} can't be read: {error}; {_AGAIN}.") from None
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ModelError(
            f"{index.parent} lacks {missing[0]}, one of {len(names)} files with weights that {index.name} names; "
            f"{_AGAIN}."
        )
    return [index.parent / name for name in names]


def _header(path: Path) -> tuple[int, dict[str, _Tensor]]:
    """Where the numbers in a safetensors file begin, and its tensors. Raises ModelError unless all bytes are there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER or not (text := file.read(length)).startswith(b"{"):
            raise ModelError(f"{path} is no safetensors file, but {_kind(path)}; {_AGAIN}.")
    whole = 8 + length
    if len(text) == length:
        try:
            raw = msgspec.json.decode(text, type=dict[str, Any])
            raw.pop("__metadata__", None)
            tensors = msgspec.convert(raw, dict[str, _Tensor])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ModelError(f"The header of {path} can't be read: {error}; {_AGAIN}.") from None
        whole += max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if size < whole:
        raise ModelError(f"{path} is cut off: it has {size:,} bytes of at least {whole:,}; {_AGAIN}.")
    return 8 + length, tensors


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    if not head:
        return "empty"
    return "a page of HTML" if head[:1] == b"<" else "something else"


def _check_finite(path: Path, start: int, tensors: dict[str, _Tensor]) -> None:
    import numpy as np  # the storage initializer, which checks digests alone, has none

    with path.open("rb", buffering=0) as file:
        for name, tensor in tensors.items():
            begin, end = tensor.data_offsets
            kind, exponent = _EXPONENT.get(tensor.dtype, ("u1", 0))
            if not exponent:
                continue
            if end - begin != prod(tensor.shape) * np.dtype(kind).itemsize:
                raise ModelError(f"{name} in {path} has other bytes than its shape needs; {_AGAIN}.")
            file.seek(start + begin)
            bad = sum(_not_finite(part, kind, exponent) for part in _parts(file, end - begin))
            if bad:
                raise _is_not_finite(name, path, bad, prod(tensor.shape))


def _parts(file: Any, length: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_CHUNK, length)))
    while length:
        part = buffer[: min(_CHUNK, length)]
        filled = 0
        while filled < len(part):
            filled += file.readinto(part[filled:])
        length -= filled
        yield part


def _not_finite(part: memoryview, kind: str, exponent: int) -> int:
    import numpy as np

    bits = np.frombuffer(part, kind) & np.dtype(kind).type(exponent)
    return int((bits == exponent).sum()) if bits.size and bits.max() == exponent else 0


def _check_pickled(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is cut off, or was saved by a PyTorch before 1.6; {_AGAIN}.")
    import torch

    try:
        weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} can't be read: {str(error).splitlines()[0]}; {_AGAIN}.") from None
    for name, weight in weights.items():
        if isinstance(weight, torch.Tensor) and weight.is_floating_point():
            bad = int((~torch.isfinite(weight)).sum())
            if bad:
                raise _is_not_finite(name, path, bad, weight.numel())


def _is_not_finite(name: str, path: Path, bad: int, count: int) -> ModelError:
    return ModelError(
        f"{name} in {path} has {bad:,} of {count:,} numbers that are NaN or infinite: the training that made it went "
        "wrong; take an earlier checkpoint, or train again with a lower --learning_rate or in bfloat16."
    )


def _check_tokenizer(folder: Path) -> None:
    """Raise ModelError when the tokenizer makes ids for which the model that config.json describes has no embedding."""
    config, tokenizer = _read(folder / "config.json"), _read(folder / "tokenizer.json")
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if not isinstance(rows, int) or not tokenizer:
        return
    vocabulary = tokenizer.get("model", {}).get("vocab") or {}
    ids = (
        dict(vocabulary)
        if isinstance(vocabulary, dict)
        else {str(piece[0]): id_ for id_, piece in enumerate(vocabulary)}
    )
    ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
    settings = _read(folder / "tokenizer_config.json")
    ids |= {token["content"]: int(id_) for id_, token in (settings.get("added_tokens_decoder") or {}).items()}
    beyond = {text: id_ for text, id_ in ids.items() if id_ >= rows} if ids and max(ids.values()) >= rows else {}
    for text in _placeholders(settings):
        beyond.pop(text, None)
    if beyond:
        first = min(beyond, key=lambda text: beyond[text])
        raise ModelError(
            f"The tokenizer in {folder} has {len(beyond)} tokens more than the model has embeddings ({rows:,}), such "
            f"as {first!r} ({beyond[first]}); give the model its own tokenizer, or resize its embeddings."
        )


def _placeholders(settings: dict[str, Any]) -> list[str]:
    """The tokens that stand for pictures and sounds, which a model of text alone never reads."""
    extra = settings.get("extra_special_tokens")
    known = {**settings, **(extra if isinstance(extra, dict) else {})}
    return [str(known.get(f"{kind}_token")) for kind in ("image", "audio", "video")]


def _read(path: Path) -> dict[str, Any]:
    """Nothing for what is no JSON: those who load it name it."""
    with suppress(OSError, msgspec.DecodeError):
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        return found
    return {}
