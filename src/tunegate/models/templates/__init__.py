"""The chat templates that training writes beside the weights, so that serving renders the same bytes.

`auto` is the base's own. The others go by LLaMA-Factory's names: `chatml` adds the system turn "You are a helpful
assistant." to a dialogue that begins without one, as it did in 0.1.8, and `qwen` the words Qwen2.5 was tuned with; a
dialogue with its own system turn, even an empty one, is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import ModelError, UsageError

AUTO = "auto"
TEMPLATE_FILE = "chat_template.jinja"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
_ANSWER = "An answer of no model"


@dataclass(frozen=True)
class _Named:
    """A Jinja file of ours, the tokens that it can't do without, and what is set at its top."""

    file: str
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


_CHATML = (TURN_START, TURN_END)
_GLM = ("<|user|>", "<|assistant|>", "<|observation|>")
_QWEN = {"default_system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."}
_NAMED = {
    "baichuan2": _Named("baichuan2.jinja", ("<reserved_106>", "<reserved_107>")),
    "chatglm3": _Named("glm.jinja", ("[gMASK]", "sop", *_GLM), {"prefix": "[gMASK]sop"}),
    "chatml": _Named("chatml.jinja", _CHATML),
    "deepseek": _Named("deepseek.jinja"),
    "deepseek3": _Named("deepseek3.jinja", ("<｜User｜>", "<｜Assistant｜>")),
    "default": _Named("default.jinja"),
    "gemma": _Named("gemma.jinja", ("<start_of_turn>", "<end_of_turn>")),
    "glm4": _Named("glm.jinja", ("[gMASK]", "<sop>", *_GLM), {"prefix": "[gMASK]<sop>"}),
    "llama2": _Named("llama2.jinja"),
    "llama3": _Named("llama3.jinja", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "mistral": _Named("mistral.jinja"),
    "qwen": _Named("qwen.jinja", _CHATML, _QWEN),
    "qwen2.5": _Named("qwen.jinja", _CHATML, _QWEN),
    "qwen3": _Named("qwen.jinja", _CHATML, {"thinks": True}),
    "qwen3_nothink": _Named("qwen.jinja", _CHATML),
    "yi": _Named("qwen.jinja", _CHATML),
}
TEMPLATES = (AUTO, *_NAMED)


def check_template(name: str) -> None:
    """Raise UsageError for a name that is none, with those that are near."""
    if name in TEMPLATES:
        return
    near = get_close_matches(name, TEMPLATES, 3, 0.5)
    did_you_mean = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"There is no template {name!r}; the templates are: {', '.join(TEMPLATES)}.{did_you_mean}")


def load_template(name: str) -> str:
    """The Jinja text of the template of ours called `name`. Raises UsageError for an unknown name."""
    check_template(name)
    named = _NAMED[name]
    settings = "".join(f"{{%- set {key} = {value!r} -%}}\n" for key, value in named.settings.items())
    return settings + Path(__file__).with_name(named.file).read_text(encoding="utf-8")


def needs_of(name: str) -> tuple[str, ...]:
    """The tokens without which a model can't be trained with the template of ours called `name`."""
    return _NAMED[name].needs


def template_for(name: str, folder: Path) -> str:
    """The text of the template called `name` over the model in `folder`; `auto` is chatml where that has none."""
    return (template_of(folder) or load_template("chatml")) if name == AUTO else load_template(name)


def set_template(tokenizer: Any, name: str, folder: Path) -> None:
    """Give the tokenizer of `folder` the template called `name`; `auto` leaves its own, and is chatml without one.

    Raises ModelError where the tokenizer lacks what the template needs.
    """
    if name == AUTO and tokenizer.chat_template:
        return
    chosen = "chatml" if name == AUTO else name
    for token in needs_of(chosen):
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise ModelError(
                f"The tokenizer in {folder} has no {token}, which the template {chosen} needs; use another base, or "
                "give the --template that it was tuned with."
            )
    tokenizer.chat_template = load_template(chosen)


def template_of(folder: Path) -> str:
    """The Jinja text of a model folder's chat template, or of several of them; empty without one."""
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    old = folder / "tokenizer_config.json"  # where templates were before they had a file of their own
    found = msgspec.json.decode(old.read_bytes(), type=dict).get("chat_template", "") if old.is_file() else ""
    return found if isinstance(found, str) else "\n".join(str(each.get("template", "")) for each in found)


def special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches the tokens that no text of a person may hold; nothing where there are none."""
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found |= set(tokenizer.all_special_tokens)
    return re.compile("|".join(re.escape(token) for token in sorted(found, key=len, reverse=True)) or "(?!)")


def closing_of(tokenizer: Any) -> str:
    """The special token by which the chat template ends an answer; empty where the next turn's beginning does.

    Found by rendering a dialogue. Raises ModelError for a template that can't be rendered, or closes no answer where
    the tokenizer has no end-of-sequence token either.
    """
    from jinja2 import TemplateError  # not in the image that only brings versions to servers

    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(asked, tokenize=False))
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(
            f"The base's chat template can't render a question and its answer ({error}); give another --template."
        ) from None
    if _ANSWER not in text:
        raise ModelError(
            "The base's chat template leaves answers out, so that nothing can be trained; give another --template."
        )
    closing = special_tokens(tokenizer).search(text.rpartition(_ANSWER)[2])
    if closing is None and tokenizer.eos_token is None:
        raise ModelError(
            "The chat template closes no answer, and the tokenizer has no end-of-sequence token; set eos_token in it."
        )
    return closing[0] if closing else ""


def stops_of(tokenizer: Any) -> set[int]:
    """The ids that end an answer by the tokenizer's chat template. Raises ModelError as `closing_of` does."""
    stops = {closing_of(tokenizer)}
    if stops == {""}:
        asked, answered = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": _ANSWER}
        call = {"type": "function", "function": {"name": "call", "arguments": {}}}
        called = {"role": "assistant", "content": "", "tool_calls": [call]}
        after = _following(tokenizer, [asked, answered], asked)
        after |= _following(tokenizer, [asked, called], {"role": "tool", "content": "{}"})
        stops = {tokenizer.eos_token} | after
    return {tokenizer.convert_tokens_to_ids(token) for token in stops}


def _following(tokenizer: Any, said: list[dict[str, Any]], turn: dict[str, Any]) -> set[str]:
    """The special token with which a turn begins after others; none where the template has no place for it."""
    from jinja2 import TemplateError

    try:
        head, text = (str(tokenizer.apply_chat_template(each, tokenize=False)) for each in (said, [*said, turn]))
    except (TemplateError, ValueError, TypeError):
        return set()
    found = special_tokens(tokenizer).match(text, len(head)) if text.startswith(head) else None
    return {found[0]} if found else set()
