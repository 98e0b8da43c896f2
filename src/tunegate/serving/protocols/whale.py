"""Whale's alias of chat completions: OpenAI's form and, beside it, `generate_config` as transformers spells it.

Token ids in it must be the model's, which `tokens` checks; `transformers_version` says nothing about an answer.
"""

from __future__ import annotations

from dataclasses import replace

from tunegate.serving.events import Ask, bad_request
from tunegate.serving.protocols.openai import CHAT, read_request
from tunegate.serving.protocols.protocol import Headers, Protocol, decode

_FIELD = "generate_config"
_SPELLED = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
}
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "user_token_id", "assistant_token_id")
_MOOT = ("temperature", "top_k", "top_p")


def read(body: bytes, headers: Headers = ()) -> Ask:
    """What the client asks. Raises ApiError 400 that names the field."""
    request = decode(body)
    config = request.pop(_FIELD, {})
    if not isinstance(config, dict):
        raise bad_request(f"{_FIELD} must be an object.", _FIELD)
    config = {name: value for name, value in config.items() if value is not None}
    if unknown := sorted(set(config) - {*_SPELLED, *_IDS, "do_sample", "transformers_version"}):
        fields = [f"{_FIELD}.{name}"[:100] for name in unknown[:20]]
        raise bad_request(f"Not known here, leave it out: {', '.join(fields)}.", fields[0])
    given = {_SPELLED[name]: value for name, value in config.items() if name in _SPELLED}
    if twice := sorted(set(given) & set(request)):
        raise bad_request(f"{twice[0]} stands in the request and in {_FIELD}; give it once.", twice[0])
    request |= given
    notes: tuple[str, ...] = ()
    if not isinstance(config.get("do_sample", True), bool):
        raise bad_request(f"{_FIELD}.do_sample must be true or false.", f"{_FIELD}.do_sample")
    if not config.get("do_sample", True):
        moot = [name for name in _MOOT if request.pop(name, None) is not None]
        notes = (f"{_FIELD}.do_sample is false, so these change nothing: {', '.join(moot)}.",) if moot else ()
        request["temperature"] = 0
    names = {ours: f"{_FIELD}.{theirs}" for theirs, ours in _SPELLED.items() if theirs in config}
    ids = {name: config[name] for name in _IDS if name in config}
    names |= {name: f"{_FIELD}.{name}" for name in ids}
    return replace(read_request(request), names=names, token_ids=ids, notes=notes)


WHALE = Protocol(read, CHAT.writer, CHAT.error)
