from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunegate.models.templates import TEMPLATES, load_template
from tunegate.training.data.dialogues import Dialogue, Message, ToolCall
from tunegate.training.data.readers import Reason, RecordError
from tunegate.training.data.rendering import Rendered, Renderer
from tunegate.training.data.tokenize import IGNORED, Encoded, Limits, encode

START, END = "<|im_start|>", "<|im_end|>"
SPECIAL = [
    *(START, END, "<|user|>", "<|assistant|>", "<|tool|>", "<|observation|>", "<|eot_id|>", "<|start|>", "<|stop|>"),
    *("<|start_header_id|>", "<|end_header_id|>"),
]

# As Qwen3's works: reasoning stays where no question follows, tools are told in the system turn, results go to a user.
QWEN_LIKE = """
{%- if tools %}{{ '<|im_start|>system\\n# Tools' }}{% for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- set ns = namespace(last=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}
{%- if loop.index0 > ns.last %}{{ '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
# As Llama 3's works: trimmed turns, a call is the whole answer, results are the ipython's.
LLAMA_LIKE = """
{%- for message in messages %}
{%- set role = 'ipython' if message.role == 'tool' else message.role %}
{{- '<|start|>' + role + '<|stop|>\\n\\n' }}
{%- if tools and loop.first %}{{ tools | tojson + '\\n' }}{% endif %}
{%- if message.role == 'assistant' %}{% generation %}
{%- if message.tool_calls %}{{ message.tool_calls[0].function | tojson }}
{%- else %}{{ message.content | trim }}{% endif %}
{{- '<|eot_id|>' }}{% endgeneration %}
{%- else %}{{ message.content | trim + '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\\n\\n' }}{% endif %}
"""
# As GLM 4's works: the next turn's beginning ends an answer.
OPEN = """
{%- for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
# As DeepSeek-R1's works: the prompt begins a thought, and what was thought is left out of what was said.
OPENS_A_THOUGHT = """
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|assistant|>' + message.content.split('</think>')[-1] + '<|eot_id|>' }}
{%- else %}{{ '<|' + message.role + '|>' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}
"""
# As that of R1 of May 2025 works: the thought is the model's to begin.
DROPS_THOUGHTS = OPENS_A_THOUGHT.replace("<think>\\n", "")
# As QwQ's and Qwen3-Thinking's work: the last answer keeps its thought, those before lose it.
KEEPS_THE_LAST = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and not loop.last %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}
{%- elif message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' + message.content }}
{%- else %}{{ message.content }}{% endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}
"""
# What nobody knows: it asks for what it then leaves out.
ASKS_OTHERWISE = OPENS_A_THOUGHT.replace("<think>", "<plan>")
# As that of gpt-oss works: the last answer is closed otherwise than those before.
CLOSES_THE_LAST = """
{%- for message in messages %}
{{- '<|start|>' + message.role + '<|stop|>' + message.content }}
{{- '<|eot_id|>' if loop.last and message.role == 'assistant' else '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant<|stop|>' }}{% endif %}
"""

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", "properties": {}}},
}
SUNNY = Dialogue(
    (
        Message("user", "Is it sunny in Paris?"),
        Message("assistant", "", "I look it up.", (ToolCall("weather", {"city": "Paris"}, "c1"),)),
        Message("tool", '{"sky": "clear"}', name="weather", tool_call_id="c1"),
        Message("assistant", "Yes, it is.", "Clear is sunny."),
    ),
    (WEATHER,),
)
TWICE = Dialogue(
    (
        Message("user", "2 + 2?"),
        Message("assistant", "4", "Two and two."),
        Message("user", "And 3?"),
        Message("assistant", "7", "Four and three."),
    )
)


def _tokenizer(template: str) -> Any:
    """Bytes as tokens, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>", extra_special_tokens=SPECIAL)
    made.chat_template = template
    return made


def _encode(tokenizer: Any, dialogue: Dialogue) -> Encoded:
    (encoded,) = encode(tokenizer, [dialogue], Limits(4096))
    assert isinstance(encoded, Encoded), encoded
    return encoded


def _trained(tokenizer: Any, encoded: Encoded) -> list[str]:
    """The texts that are trained, each without what stands between."""
    pairs = zip(encoded.example.input_ids, encoded.example.labels, strict=True)
    spans: list[list[int]] = []
    before = False
    for token, label in pairs:
        if label != IGNORED:
            spans[-1].append(int(token)) if before else spans.append([int(token)])
        before = label != IGNORED
    return [tokenizer.decode(span) for span in spans]


@pytest.mark.parametrize("template", [QWEN_LIKE, LLAMA_LIKE], ids=["qwen", "llama"])
def test_tools_and_reasoning_are_trained_token_for_token_as_transformers_renders_them(template: str) -> None:
    tokenizer = _tokenizer(template)
    messages = [message.for_template() for message in SUNNY.messages]
    wanted = tokenizer.apply_chat_template(
        messages, tools=list(SUNNY.tools), return_dict=True, return_assistant_tokens_mask=True
    )

    example = _encode(tokenizer, SUNNY).example

    length = len(example.input_ids)
    assert list(example.input_ids) == wanted["input_ids"][:length]
    assert tokenizer.decode(wanted["input_ids"][length:]).strip() == ""
    assert [int(label != IGNORED) for label in example.labels] == wanted["assistant_masks"][:length]


def test_the_templates_of_qwen_render_tools_as_qwen_does() -> None:
    tokenizer = _tokenizer(load_template("qwen2.5"))
    plain = Dialogue(tuple(replace(message, reasoning="") for message in SUNNY.messages), SUNNY.tools)

    encoded = _encode(tokenizer, plain)

    text = tokenizer.decode(list(encoded.example.input_ids))
    assert text.startswith(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n# To"
    )
    assert '<tools>\n{"type": "function", "function": {"name": "weather", "description": "Of a city."' in text
    assert '\n<tool_response>\n{"sky": "clear"}\n</tool_response>' + END + "\n<|im_start|>assistant\nYes" in text
    assert text.count("<|im_start|>system") == 1
    assert _trained(tokenizer, encoded) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>' + END,
        "Yes, it is." + END,
    ]


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "qwen3_nothink"])
def test_a_served_prompt_is_what_training_read_before_the_answer(name: str) -> None:
    tokenizer = _tokenizer(load_template(name))

    example = _encode(tokenizer, SUNNY).example

    served = tokenizer.apply_chat_template(
        [message.for_template() for message in SUNNY.messages[:3]],
        tools=list(SUNNY.tools),
        add_generation_prompt=True,
        return_dict=True,
    )["input_ids"]
    assert list(example.input_ids[: len(served)]) == served
    assert example.labels[len(served) - 1] == IGNORED
    assert example.labels[len(served)] != IGNORED


TOOLS = {
    "chatglm3": (
        "<|system|>\nBe brief.你是一个名为 ChatGLM 的人工智能助手。",
        'weather\n{"city": "Paris"}<|observation|>',
        '\n{"sky": "clear"}<|assistant|>\nYes, it is.',
    ),
    "llama3": (
        "<|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nCutting Knowledge Date: December 2023\n",
        '{"name": "weather", "parameters": {"city": "Paris"}}<|eot_id|>',
        '<|start_header_id|>ipython<|end_header_id|>\n\n{"sky": "clear"}<|eot_id|><|start_header_id|>assistant',
    ),
    "mistral": (
        '[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "weather", "description": "Of a city."',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]<|endoftext|>',
        '[TOOL_RESULTS] {"content": {"sky": "clear"}}[/TOOL_RESULTS] Yes, it is.',
    ),
}
TOOLS["glm4"] = TOOLS["chatglm3"]


@pytest.mark.parametrize("name", TOOLS)
def test_a_named_template_renders_tools_as_its_model_family_was_tuned(name: str) -> None:
    tokenizer = _tokenizer(load_template(name))
    system = Message("system", "Be brief.")
    messages = (system, *(replace(message, reasoning="") for message in SUNNY.messages))

    encoded = _encode(tokenizer, Dialogue(messages, SUNNY.tools))

    text = tokenizer.decode(list(encoded.example.input_ids))
    begins, call, result = TOOLS[name]
    assert begins in text.split("Is it sunny")[0]
    assert "Be brief." in text.split("Is it sunny")[0]
    assert _trained(tokenizer, encoded)[0] == call
    assert result in text
    assert not encoded.unrendered


@pytest.mark.parametrize("name", TEMPLATES[1:])
def test_the_refusal_of_a_call_names_the_templates_that_have_a_place_for_it(name: str) -> None:
    plain = Dialogue(tuple(replace(message, reasoning="") for message in SUNNY.messages), SUNNY.tools)

    (encoded,) = encode(_tokenizer(load_template(name)), [plain], Limits(4096))

    named = {*TOOLS, "yi", *(each for each in TEMPLATES if each.startswith("qwen"))}
    assert isinstance(encoded, Encoded) == (name in named)
    if isinstance(encoded, RecordError):
        assert encoded.reason in (Reason.TOOL_TURN, Reason.REFUSED_BY_TEMPLATE)
        assert all(word in str(encoded) for word in ("chatglm3", "glm4", "llama3", "mistral", "yi", "those of Qwen"))


def test_text_beside_a_call_that_a_template_has_no_place_for_is_told() -> None:
    tokenizer = _tokenizer(load_template("llama3"))
    asked, called, *rest = (replace(message, reasoning="") for message in SUNNY.messages)

    encoded = _encode(tokenizer, Dialogue((asked, replace(called, content="I look."), *rest), SUNNY.tools))

    assert encoded.unrendered == ("messages[].content",)


@pytest.mark.parametrize("given", ["", "call_abc"])
def test_calls_get_ids_where_the_template_takes_those_of_nine_characters_alone(given: str) -> None:
    """As Mistral's own template, while data sets have none or OpenAI's."""
    tokenizer = _tokenizer(
        "{% for message in messages %}{% if message.tool_calls %}"
        "{% if message.tool_calls[0].id | length != 9 %}{{ raise_exception('IDs have length 9!') }}{% endif %}"
        "{{ message.tool_calls[0].function.name + message.tool_calls[0].id }}"
        "{% elif message.role == 'tool' %}{{ message.tool_call_id + message.content }}"
        "{% else %}{{ message.content }}{% endif %}"
        "{% if message.role == 'assistant' %}{{ '<|eot_id|>' }}{% endif %}{% endfor %}"
    )
    asked, called, told, answered = SUNNY.messages
    messages = (
        *(asked, replace(called, reasoning="", tool_calls=(replace(called.tool_calls[0], id=given),))),
        *(replace(told, tool_call_id=given), replace(answered, reasoning="")),
    )

    encoded = _encode(tokenizer, Dialogue(messages))

    assert _trained(tokenizer, encoded) == ["weather000000001<|eot_id|>", "Yes, it is.<|eot_id|>"]
    assert '000000001{"sky": "clear"}' in tokenizer.decode(list(encoded.example.input_ids))


def test_what_is_trained_of_a_call_is_the_thought_the_call_and_what_closes_it() -> None:
    tokenizer = _tokenizer(QWEN_LIKE)

    assert _trained(tokenizer, _encode(tokenizer, SUNNY)) == [
        "<think>\nI look it up.\n</think>\n\n\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>' + END,
        "<think>\nClear is sunny.\n</think>\n\nYes, it is." + END,
    ]


def test_an_answer_whose_reasoning_a_later_question_drops_is_read_and_told() -> None:
    tokenizer = _tokenizer(QWEN_LIKE)

    encoded = _encode(tokenizer, TWICE)

    assert _trained(tokenizer, encoded) == ["<think>\nFour and three.\n</think>\n\n7" + END]
    assert encoded.unrendered == ("messages[].reasoning_content",)
    assert "Two and two" not in tokenizer.decode(list(encoded.example.input_ids))


def test_without_reasoning_each_answer_is_trained_as_it_is_rendered() -> None:
    tokenizer = _tokenizer(QWEN_LIKE)
    plain = Dialogue(tuple(Message(message.role, message.content) for message in TWICE.messages))

    encoded = _encode(tokenizer, plain)

    assert _trained(tokenizer, encoded) == ["4" + END, "<think>\n\n</think>\n\n7" + END]
    assert not encoded.unrendered


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        pytest.param(Message("assistant", "7", "Four and three."), "Four and three.\n</think>\n\n7", id="by its key"),
        pytest.param(
            Message("assistant", "<think>\nFour and three.\n\n</think>\n\n7"),
            "Four and three.\n\n</think>\n\n7",
            id="in the text",
        ),
        pytest.param(
            Message("assistant", "Four and three.\n</think>\n\n7"), "Four and three.\n</think>\n\n7", id="as written"
        ),
        pytest.param(Message("assistant", "<think>Four.</think>7"), "Four.</think>7", id="without lines"),
        pytest.param(Message("assistant", "7"), "\n</think>\n\n7", id="none"),
        pytest.param(Message("assistant", "<think>\n\n</think>\n\n7"), "\n</think>\n\n7", id="empty"),
    ],
)
@pytest.mark.parametrize("template", [OPENS_A_THOUGHT, KEEPS_THE_LAST], ids=["R1", "QwQ"])
def test_a_thought_that_the_prompt_begins_is_trained_as_the_model_would_go_on(
    template: str, answer: Message, written: str
) -> None:
    tokenizer = _tokenizer(template)
    asked = (*TWICE.messages[:2], Message("user", "And 3?"))

    example = _encode(tokenizer, Dialogue((*asked, answer))).example

    prompt = tokenizer.apply_chat_template(
        [message.for_template() for message in asked], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    closing = END if template == KEEPS_THE_LAST else "<|eot_id|>"
    answered = tokenizer(written + closing, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(prompt).endswith("<think>\n")
    assert list(example.input_ids) == [*prompt, *answered]
    assert list(example.labels) == [IGNORED] * len(prompt) + answered


def test_a_thought_that_the_model_begins_itself_is_trained_with_its_beginning() -> None:
    tokenizer = _tokenizer(DROPS_THOUGHTS)

    assert _trained(tokenizer, _encode(tokenizer, TWICE)) == ["<think>\nFour and three.\n</think>\n\n7<|eot_id|>"]
    plain = Dialogue((Message("user", "2 + 2?"), Message("assistant", "4")))
    assert _trained(tokenizer, _encode(tokenizer, plain)) == ["4<|eot_id|>"]


@pytest.mark.parametrize("template", [OPENS_A_THOUGHT, KEEPS_THE_LAST, CLOSES_THE_LAST], ids=["R1", "QwQ", "gpt-oss"])
def test_an_answer_that_is_rendered_otherwise_than_the_model_would_write_it_is_read_and_told(template: str) -> None:
    tokenizer = _tokenizer(template)
    plain = Dialogue(tuple(Message(message.role, message.content) for message in TWICE.messages))

    encoded = _encode(tokenizer, plain)

    (trained,) = _trained(tokenizer, encoded)
    assert trained.removesuffix(END).removesuffix("<|eot_id|>").endswith("7")
    assert "4" not in trained
    assert "4<|" in tokenizer.decode(list(encoded.example.input_ids))
    assert encoded.unrendered == ("messages[].content",)


def test_a_thought_in_the_text_stays_where_the_template_knows_of_none() -> None:
    tokenizer = _tokenizer(LLAMA_LIKE)
    thought = Dialogue((Message("user", "2 + 2?"), Message("assistant", "<think>\nTwo.\n</think>\n\n4")))

    encoded = _encode(tokenizer, thought)

    assert _trained(tokenizer, encoded) == ["<think>\nTwo.\n</think>\n\n4<|eot_id|>"]
    assert not encoded.unrendered


def test_a_thought_in_the_text_that_a_later_question_drops_is_not_learned_to_be_left_out() -> None:
    tokenizer = _tokenizer(DROPS_THOUGHTS)
    thoughts = Dialogue(
        tuple(
            Message(message.role, f"<think>\n{message.reasoning}\n</think>\n\n{message.content}")
            if message.reasoning
            else message
            for message in TWICE.messages
        )
    )

    encoded = _encode(tokenizer, thoughts)

    assert _trained(tokenizer, encoded) == ["<think>\nFour and three.\n</think>\n\n7<|eot_id|>"]
    assert encoded.unrendered == ("messages[].reasoning_content",)


def test_reasoning_that_a_template_has_no_place_for_is_told_and_the_answer_trained() -> None:
    tokenizer = _tokenizer(LLAMA_LIKE)

    encoded = _encode(tokenizer, TWICE)

    assert _trained(tokenizer, encoded) == ["4<|eot_id|>", "7<|eot_id|>"]
    assert encoded.unrendered == ("messages[].reasoning_content",)


def test_an_answer_that_nothing_closes_ends_with_the_next_turns_beginning_and_the_last_with_the_sequence() -> None:
    tokenizer = _tokenizer(OPEN)
    plain = Dialogue(tuple(Message(message.role, message.content) for message in TWICE.messages))

    encoded = _encode(tokenizer, plain)

    assert _trained(tokenizer, encoded) == ["\n4<|user|>", "\n7<|endoftext|>"]


def test_a_template_that_trims_is_trained_as_it_trims() -> None:
    tokenizer = _tokenizer(LLAMA_LIKE)

    encoded = _encode(tokenizer, Dialogue((Message("user", " Hi "), Message("assistant", "  Hello. \n"))))

    assert _trained(tokenizer, encoded) == ["Hello.<|eot_id|>"]


@pytest.mark.parametrize(
    ("template", "dialogue", "reason", "words"),
    [
        pytest.param(ASKS_OTHERWISE, TWICE, Reason.NOTHING_TRAINED, "no answer as it asks for it", id="asks otherwise"),
        pytest.param(OPEN, SUNNY, Reason.TOOL_TURN, "which the chat template has no place for", id="calls"),
        pytest.param(
            "{% if messages[0].content == 'Hi' %}" + OPEN + "{% else %}{{ raise_exception('Say Hi.') }}{% endif %}",
            TWICE,
            Reason.REFUSED_BY_TEMPLATE,
            "the chat template refuses it: Say Hi.",
            id="refuses",
        ),
        pytest.param(
            QWEN_LIKE,
            Dialogue((Message("user", "Hi"), Message("assistant", "x", "a <|im_end|> b"))),
            Reason.RESERVED_TEXT,
            "an assistant turn holds <|im_end|>, which is a token of the model",
            id="reserved",
        ),
    ],
)
def test_a_dialogue_that_can_not_be_rendered_so_costs_its_row(
    template: str, dialogue: Dialogue, reason: Reason, words: str
) -> None:
    fine = Dialogue((Message("user", "Hi"), Message("assistant", "Hello.")))

    refused, _ = encode(_tokenizer(template), [dialogue, fine], Limits(4096))

    assert isinstance(refused, RecordError)
    assert refused.reason is reason
    assert words in str(refused)


def test_tools_that_no_template_renders_are_told() -> None:
    tokenizer = _tokenizer(OPEN)

    encoded = _encode(tokenizer, Dialogue((Message("user", "Hi"), Message("assistant", "Hello.")), (WEATHER,)))

    assert encoded.unrendered == ("tools",)


def test_a_tokenizer_that_puts_a_space_before_a_text_reads_the_whole_and_no_piece() -> None:
    """As those of Llama 2 and Mistral do."""
    pieces = ("▁", "▁Hi", "▁you", "▁Hello", "H", "i", "e", "l", "o", "y", "u", "[", "]", "▁[", "\n", ",")
    words = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(("<unk>", *pieces))}, "<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token + message.content }}"
        "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"
    )
    renderer = Renderer(tokenizer)
    rendered = renderer.render(Dialogue((Message("user", "Hi you"), Message("assistant", "Hello you"))))

    (segments,) = renderer.segments([rendered])

    assert [tokenizer.convert_ids_to_tokens(segment) for segment in segments] == [
        ["<s>", "▁Hi", "▁you"],
        ["▁Hello", "▁you", "</s>"],
    ]
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi you"}, {"role": "assistant", "content": "Hello you"}]
    )["input_ids"]
    assert [token for segment in segments for token in segment] == whole


def test_segments_join_to_the_text() -> None:
    tokenizer = _tokenizer(QWEN_LIKE)
    renderer = Renderer(tokenizer)
    rendered: Rendered = renderer.render(SUNNY)

    (segments,) = renderer.segments([rendered])

    assert "".join(tokenizer.decode(segment) for segment in segments) == rendered.text
    places = [0, *(bound for answer in rendered.answers for bound in (answer.start, answer.end))]
    assert [rendered.text[a:b] for a, b in pairwise(places)] == [tokenizer.decode(segment) for segment in segments]
