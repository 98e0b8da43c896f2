"""What a model takes of each GPU, estimated from its files before an engine is started for nothing.

Weights are the size of their files. What is left, less what vLLM leaves alone and takes for its own work, holds the
keys and values of the conversations.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import ModelError, ServingError
from tunegate.models.cards import Card

USED_SHARE = 0.9  # of a GPU: vLLM's --gpu-memory-utilization
WORK_BYTES = 1.5 * 2**30  # for activations and CUDA graphs
LEAST_TOKENS = 2048  # for which there must be room: one conversation
_VALUE_BYTES = 2  # of each number in keys and values, and of each weight that is not quantized: half precision
_QUANTIZED = {"none": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.52}  # bytes of a weight, with its share of the scales


@dataclass(frozen=True)
class Footprint:
    """A model's bytes: all weights, and the keys and values of one token. heads: of its attention."""

    weights: int
    token: int
    heads: int

    @classmethod
    def of(cls, folder: Path, weights: int | None = None) -> Footprint:
        """`weights`: their bytes, where no files are there. Raises ModelError when config.json does not say."""
        if weights is None:
            weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
            text: dict[str, Any] = config.get("text_config", config)
            heads = int(text["num_attention_heads"])
            width = int(text.get("head_dim") or text["hidden_size"] // heads)
            kept = int(text.get("num_key_value_heads") or heads)
            token = 2 * int(text["num_hidden_layers"]) * kept * width * _VALUE_BYTES
        except (OSError, msgspec.DecodeError, KeyError) as error:
            message = f"{folder / 'config.json'} does not say how large the model is: {error}"
            raise ModelError(f"{message}; publish the model with a whole one, under another name.") from None
        return cls(weights, token, heads)


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


def check(model: Footprint, gpus: Sequence[int], parallel: int) -> str:
    """What is to be expected, in a sentence. Raises ServingError when the model can't fit; without GPUs that we see,
    nobody knows."""
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
            "spread it over more GPUs (--tensor-parallel-size), or make it smaller (--quantization int4)."
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


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
