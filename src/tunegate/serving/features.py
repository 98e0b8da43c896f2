"""Which fields of a request an engine honors, as the engine declares it; the others are refused by name.

An answer that silently ignores `stop` or `response_format` would be a wrong answer. Values that ask for nothing pass,
because chat interfaces send them without being asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunegate.serving.events import bad_request

LENGTHS = ("max_tokens", "max_completion_tokens")
# What our server reads itself, and fields that are about billing, storage or caching.
_OURS = frozenset({"model", "messages", "prompt", "stream", "stream_options"})
_IRRELEVANT = frozenset(
    {"user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"}
)
# What else decides how tokens are drawn: it changes nothing where always the likeliest is taken.
_DRAWING = frozenset({"top_p", "top_k", "min_p", "seed"})
# Fields of the API with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "stop": ([], ""),
    "seed": (),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": ("none", "medium"),  # none is asked for; the second is OpenAI's default
    "verbosity": ("medium",),
    "prediction": (),
    "audio": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "chat_template_kwargs": ({},),
}
# Fields of vLLM's own that change an answer as their names say; `documents` and others would bypass the release.
_VLLM = frozenset(
    {
        "stop_token_ids",
        "include_stop_str_in_output",
        "structured_outputs",
        "continue_final_message",
        "add_generation_prompt",
        "priority",
        "min_tokens",
        "ignore_eos",
        "skip_special_tokens",
    }
)
# What vLLM 0.32 takes without a word, and without effect.
_NOT_VLLM = frozenset(
    {
        "audio",
        "best_of",
        "function_call",
        "functions",
        "modalities",
        "prediction",
        "suffix",
        "verbosity",
        "web_search_options",
    }
)
_TAKE_OUT = "leave it out, or serve the version with --engine-url on an engine that can"


@dataclass(frozen=True)
class EngineFeatures:
    """What an engine does by itself.

    fields: those that it honors, by OpenAI's names; None for one that decides on every field itself.
    usage_in_chunks: whether it says in every chunk of a stream, when asked to, how many tokens there are.
    tool_calls: whether it reads the calls that a model makes of its own accord.
    """

    fields: frozenset[str] | None = None
    usage_in_chunks: bool = False
    tool_calls: bool = True

    def check(self, request: Mapping[str, Any], *, greedy: bool) -> None:
        """Raises ApiError 400 with the field that can't be honored. greedy: the likeliest token is always taken."""
        if self.fields is None:
            return
        harmless = self.fields | _OURS | _IRRELEVANT | (_DRAWING if greedy else frozenset())
        for name, value in request.items():
            if name in harmless or value in _NEUTRAL.get(name, ()):
                continue
            if (
                name == "tools" and request.get("tool_choice") == "none"
            ):  # named for turns of before, and not to be called
                continue
            if name in _NEUTRAL:
                message = f"The engine of this server can't do {name}; {_TAKE_OUT}."
            else:
                message = f"Unknown field {name[:100]!r}; {_TAKE_OUT}."
            raise bad_request(message, name[:100], "unsupported_parameter")


ANY = EngineFeatures()
# What the answers of a model with a prefix honor: one after the other, with one random state for all.
_TRANSFORMERS = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty", *LENGTHS}) | {
    "stop",  # both by our server
    "response_format",
}
TRANSFORMERS_ALONE = EngineFeatures(_TRANSFORMERS, tool_calls=False)
TRANSFORMERS = EngineFeatures(_TRANSFORMERS | {"seed"}, tool_calls=False)
VLLM = EngineFeatures(
    _VLLM | {*_NEUTRAL, "temperature", "top_p", *LENGTHS} - _NOT_VLLM,
    usage_in_chunks=True,
)
