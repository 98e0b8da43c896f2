"""What a model takes of each GPU, estimated from its files before an engine is started for nothing.

Weights are the size of their files. What is left, less what vLLM leaves alone and takes for its own work, holds the
keys and values of the conversations.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tunegate.api.errors import ModelError, ServingError
from tunegate.api.versions import ModelVersion
from tunegate.models.cards import Card
from tunegate.store.release import read_file

if TYPE_CHECKING:
    from tunegate.store import Store

USED_SHARE = 0.9  # of a GPU: vLLM's --gpu-memory-utilization
WORK_BYTES = 1.5 * 2**30  # for activations and CUDA graphs
LEAST_TOKENS = 2048  # for which there must be room: one conversation
_VALUE_BYTES = 2  # of each number in keys and values, and of each weight that is not quantized: half precision
_COUNTS = (1, 2, 4, 8, 16, 32)  # of cards that a model is spread over
_QUANTIZED = {"none": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.52}  # bytes of a weight, with its share of the scales


@dataclass(frozen=True)
class Footprint:
    """A model's bytes: all weights, and the keys and values of one token. heads: of its attention. rounded: the bytes
    of the weights that `tunegate quantize` would round: not its vocabulary's, and none where they are rounded already.
    adapter: those of a LoRA of rank 1 on all linear layers, where each layer has one of each kind.
    """

    weights: int
    token: int
    heads: int
    rounded: int = 0
    adapter: int = 0

    @classmethod
    def of(cls, folder: Path, weights: int | None = None) -> Footprint:
        """`weights`: their bytes, where no files are there. Raises ModelError when config.json does not say."""
        if weights is None:
            weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        try:
            config = (folder / "config.json").read_bytes()
        except OSError as error:
            raise _unsaid(folder / "config.json", error) from None
        return cls.told(config, weights, folder / "config.json")

    @classmethod
    def told(cls, config: bytes, weights: int, source: str | Path) -> Footprint:
        """By the text of a config.json, which `source` names. Raises ModelError when it does not say."""
        try:
            found = msgspec.json.decode(config, type=dict[str, Any])
            text: dict[str, Any] = found.get("text_config", found)
            heads = int(text["num_attention_heads"])
            width = int(text.get("head_dim") or text["hidden_size"] // heads)
            kept = int(text.get("num_key_value_heads") or heads)
            layers, hidden = int(text["num_hidden_layers"]), int(text.get("hidden_size", 0))
            token = 2 * layers * kept * width * _VALUE_BYTES
            between = int(text.get("intermediate_size") or 0)
            sides = 2 * (hidden + heads * width) + 2 * (hidden + kept * width) + 3 * (hidden + between) * bool(between)
            tables = 1 if found.get("tie_word_embeddings", True) else 2
            words = tables * int(text.get("vocab_size", 0)) * hidden * _VALUE_BYTES
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise _unsaid(source, error) from None
        rounded = 0 if "quantization_config" in found else max(weights - words, 0)
        return cls(weights, token, heads, rounded, layers * sides * _VALUE_BYTES)

    def with_adapters(self, count: int, rank: int) -> Footprint:
        """With room for so many adapters of that rank, as vLLM makes it when it starts. What adapters were trained on
        is not rounded."""
        return replace(self, weights=self.weights + count * rank * self.adapter, rounded=0)


def of_version(store: Store, version: ModelVersion) -> Footprint:
    """Of a version in the store, by its manifest and config.json alone; of an adapter, that of the base that it is
    merged into. Raises ModelError when that does not say, or as the store."""
    while version.format != "huggingface" and version.base:
        version = store.resolve(version.base.uri)
    files = store.manifest(version.digest).files
    weights = sum(file.size for file in files if file.path.endswith(".safetensors") and "/" not in file.path)
    return Footprint.told(read_file(store, version, "config.json"), weights, f"{version.name}/config.json")


def misfit(model: Footprint, card: Card, gpus: int) -> str:
    """Why a server of the model can't be on `gpus` cards, and on what it could; empty where it can.

    Pure: what `check` refuses in the pod, in the words of who has not asked for the pod yet.
    """
    parallel = choose_parallel(model, [card.memory] * gpus, None)
    if _is_room(model, card, parallel):
        return ""
    more = next((size for size in _COUNTS if size > parallel and _is_room(model, card, size)), None)
    ways = [f"on {more} of them"] if more else []
    smaller = (method for method in ("int8", "int4") if _is_room(_quantized(model, method), card, parallel))
    ways += [f"on {parallel} in {method} (tunegate quantize --method {method})" for method in islice(smaller, 1)]
    would = f"it would fit {', or '.join(ways)}" if ways else f"nor would it on {_COUNTS[-1]} of them; take larger ones"
    takes = f"its weights take {_gib(model.weights / parallel)} of each of {parallel} {card.name} with"
    least = f"which leaves too little for a conversation of {LEAST_TOKENS} tokens"
    return f"does not fit: {takes} {_gib(card.memory)}, {least}; {would}"


def _is_room(model: Footprint, card: Card, parallel: int) -> bool:
    return model.heads % parallel == 0 and room_for(model, card.memory, parallel) >= LEAST_TOKENS


def _quantized(model: Footprint, method: str) -> Footprint:
    return replace(model, weights=model.weights - int(model.rounded * (1 - _QUANTIZED[method] / _VALUE_BYTES)))


def visible_gpus() -> list[int]:
    """The bytes of each GPU that this process may use; none where there is no nvidia-smi."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    argv = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run([*argv, *(["-i", chosen] if chosen else [])], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [int(line) * 2**20 for line in done.stdout.split()]


def choose_parallel(model: Footprint, gpus: Sequence[int], asked: int | None) -> int:
    """Over how many GPUs the model is spread: as asked, or over as many as there are and its heads divide by."""
    if asked is not None:
        return asked
    return max((size for size in range(1, len(gpus) + 1) if model.heads % size == 0), default=1)


def check(
    model: Footprint, gpus: Sequence[int], parallel: int, smaller: str = "make it smaller (--quantization int4)"
) -> str:
    """What is to be expected, in a sentence. Raises ServingError when the model can't fit, with `smaller` as a way out;
    without GPUs that we see, nobody knows."""
    weights = model.weights / parallel
    text = f"weights take {_gib(weights)} of each of {parallel} GPUs"
    if not gpus:
        return f"{text}; how much there is, nvidia-smi does not say"
    if parallel > len(gpus):
        raise ServingError(f"--tensor-parallel-size {parallel} needs as many GPUs; there are {len(gpus)}: lower it.")
    least = min(sorted(gpus, reverse=True)[:parallel])
    tokens = room_for(model, least, parallel)
    text = f"{text} with {_gib(least)}"
    if tokens < LEAST_TOKENS:
        raise ServingError(
            f"The model can't fit: its {text}, which leaves too little for a conversation of {LEAST_TOKENS} tokens; "
            f"spread it over more GPUs (--tensor-parallel-size), or {smaller}."
        )
    return f"{text}, which leaves room for conversations of about {tokens:,} tokens in all"


def room_for(model: Footprint, memory: int, parallel: int) -> int:
    """Tokens of conversations that a model over `parallel` GPUs of `memory` bytes has room for; below 0 for none."""
    return int((memory * USED_SHARE - WORK_BYTES - model.weights / parallel) / (model.token / parallel))


@dataclass(frozen=True)
class Server:
    """A way to serve on so many cards. tensor_parallel: cards of one server. weights: bytes on each card.

    streams: how many conversations fit on all servers. first_token: seconds from a prompt of half the length.
    tokens_per_second: of one of the streams asked for. The last two are None where the card's speed is not known.
    """

    tensor_parallel: int
    quantization: str
    weights: float
    streams: int
    first_token: float | None
    tokens_per_second: float | None


@dataclass(frozen=True)
class Load:
    """streams: conversations at a time. length: tokens of each, with its answer.

    mfu, mbu: shares of a card's FLOP/s and of its memory bandwidth that are reached.
    """

    streams: int
    length: int
    mfu: float
    mbu: float


@dataclass(frozen=True)
class Weights:
    """How many a model has, in its body, which quantization rounds, and in its head."""

    parameters: int
    body: int
    head: int


def estimate_servers(folder: Path, weights: Weights, card: Card, cards: int, load: Load) -> list[Server]:
    """Each way to round the weights of the model in `folder` and to spread it over `cards`.

    Writing reads all weights and all keys and values for each token, half of each conversation on average. Raises
    ModelError when config.json does not say how large the model is.
    """
    others, flops = (weights.parameters - weights.body) * _VALUE_BYTES, 2 * (weights.body + weights.head)
    found = []
    for quantization, size in _QUANTIZED.items():
        model = Footprint.of(folder, int(weights.body * size + others))
        for parallel in (count for count in range(1, cards + 1) if not (model.heads % count or cards % count)):
            copies = cards // parallel
            each = max(room_for(model, card.memory, parallel), 0) // load.length
            first = speed = None
            if card.flops and card.bandwidth and each:
                writers = min(-(-load.streams // copies), each)
                flops_each, bytes_each = card.flops * load.mfu * parallel, card.bandwidth * load.mbu * parallel
                read = model.weights + writers * load.length / 2 * model.token
                first = flops * load.length / 2 / flops_each
                speed = 1 / max(read / bytes_each, writers * flops / flops_each)
            found.append(Server(parallel, quantization, model.weights / parallel, each * copies, first, speed))
    return found


def _unsaid(source: str | Path, error: Exception) -> ModelError:
    message = f"{source} does not say how large the model is: {error}"
    return ModelError(f"{message}; publish the model with a whole one, under another name.")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
