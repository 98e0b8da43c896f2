"""Token ids as the vocabularies of published models give them, where a package carries one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tunegate.models.templates import set_template
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.tokenize import IGNORED, Encoded, Limits, encode

dashscope = pytest.importorskip("dashscope")

DIALOGUE = Dialogue(
    (
        Message("user", "你好"),
        Message("assistant", "您好。"),
        Message("user", "推荐一款\n男士洗面奶"),
        Message("assistant", "推荐A款。"),
    )
)
SYSTEM = {
    "chatml": [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198],
    "qwen": [
        *(151644, 8948, 198, 2610, 525, 1207, 16948, 11, 3465, 553, 54364, 14817, 13, 1446),
        *(525, 264, 10950, 17847, 13, 151645, 198),
    ],
    "qwen3_nothink": [],
}
SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
TURNS = [
    *(151644, 872, 198, 108386, 151645, 198, 151644, 77091, 198, 111308, 1773, 151645, 198),
    *(151644, 872, 198, 101914, 104794, 198, 114783, 99634, 27091, 99968, 151645, 198),
    *(151644, 77091, 198, 101914, 32, 68153, 1773, 151645),
]


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Qwen's tokenizer over the part of its vocabulary that these texts can come to, with its own ids."""
    from dashscope.tokenizers.qwen_tokenizer import PAT_STR

    file = Path(dashscope.__file__).parent / "resources/qwen.tiktoken"
    said = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\nsystem\nuser\nassistant\n"
    texts = (said + "".join(message.content for message in DIALOGUE.messages)).encode()
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {token: int(rank) for coded, rank in lines if (token := base64.b64decode(coded)) in texts}
    letters = bytes_to_unicode()
    merges = sorted(
        (rank, ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spelled(token): rank for token, rank in ranks.items()} | SPECIAL
    words = Tokenizer(models.BPE(vocabulary, [(spelled(left), spelled(right)) for *_, left, right in merges]))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PAT_STR), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    end, *others = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end, extra_special_tokens=others)


@pytest.mark.parametrize("name", SYSTEM)
def test_the_ids_are_those_of_qwens_own_vocabulary(qwen: Any, name: str) -> None:
    set_template(qwen, name, Path("qwen"))

    (encoded,) = encode(qwen, [DIALOGUE], Limits(512))

    assert isinstance(encoded, Encoded)
    assert list(encoded.example.input_ids) == [*SYSTEM[name], *TURNS]
    trained = [int(label) for label in encoded.example.labels if label != IGNORED]
    assert trained == [111308, 1773, 151645, 101914, 32, 68153, 1773, 151645]


def test_the_vendors_own_tokenizer_says_the_same(qwen: Any) -> None:
    set_template(qwen, "qwen", Path("qwen"))
    messages = [message.for_template() for message in DIALOGUE.messages]
    text = qwen.apply_chat_template(messages, tokenize=False)

    ids = dashscope.get_tokenizer("qwen-7b-chat").encode(text, allowed_special="all", disallowed_special=())

    assert ids[:-1] == [*SYSTEM["qwen"], *TURNS]
