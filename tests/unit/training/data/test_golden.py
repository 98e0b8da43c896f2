"""Token ids as the vocabularies of published models give them.

Qwen's stands in a package; of Llama 3's and Mistral's those entries stand here that these texts come to.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tunegate.models.templates import set_template
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.tokenize import IGNORED, Encoded, Limits, encode

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


# By the bytes in hexadecimal, as the published file has them.
LLAMA3_RANKS = {
    **{"41": 32, "61": 64, "65": 68, "69": 72, "6e": 77, "72": 81, "73": 82, "74": 83, "75": 84, "a2": 95, "a3": 96},
    **{"a5": 98, "a8": 101, "ab": 104, "ac": 105, "b4": 112, "b6": 114, "b7": 115, "b8": 116, "bd": 121, "be": 122},
    **{"e3": 159, "e4": 160, "e5": 161, "e6": 162, "e7": 163, "e8": 164, "e9": 165, "0a": 198, "80": 222, "82": 224},
    **{"8d": 235, "8e": 236, "90": 238, "94": 242, "97": 245, "9d": 251, "a0": 254, "6572": 261, "7374": 267},
    **{"0a0a": 271, "616e": 276, "6173": 300, "7573": 355, "697374": 380, "617373": 395, "616e74": 519},
    **{"75736572": 882, "e380": 1300, "e38082": 1811, "e4b8": 3574, "e794": 7518, "e4bd": 8687, "697374616e74": 11451},
    **{"e4b880": 15120, "e68e": 19012, "e99d": 21688, "e6ac": 25340, "e99da2": 28190, "e5a5": 28194, "e6b4": 44647},
    **{"e5a3": 45826, "e5a5bd": 53901, "e4bda0": 57668, "82a8": 61857, "e6acbe": 69253, "e794b7": 71208},
    **{"e88d": 76698, "617373697374616e74": 78191, "e68ea8": 84851, "e682a8": 88126, "e5a3ab": 101559},
    **{"e6b497": 108914, "e88d90": 115278, "e68ea8e88d90": 118553, "e5a5b6": 118593},
}
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIAL = {
    **{"<|end_of_text|>": 128001, "<|begin_of_text|>": 128000, "<|start_header_id|>": 128006},
    **{"<|end_header_id|>": 128007, "<|eot_id|>": 128009},
}
LLAMA3 = [
    *(128000, 128006, 882, 128007, 271, 57668, 53901, 128009, 128006, 78191, 128007, 271, 88126, 53901, 1811, 128009),
    *(128006, 882, 128007, 271, 118553, 15120, 69253, 198, 71208, 101559, 108914, 28190, 118593, 128009),
    *(128006, 78191, 128007, 271, 118553, 32, 69253, 1811, 128009),
]
MISTRAL_PIECES = {
    **{"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "<0x0A>": 781, "<0xA6>": 937, "<0x97>": 922},
    **{"<0xB4>": 951, "<0xE5>": 1000, "<0xA5>": 936, "<0xB6>": 953, "<0xE6>": 1001, "▁": 29473, "A": 29509},
    **{"。": 29712, "一": 29737, "面": 29949, "你": 30151, "好": 30298, "您": 30457, "款": 30762, "推": 30831},
    **{"男": 31121, "士": 31160, "荐": 31712},
}
# As Mistral's own library encodes the same dialogue with the third of its tokenizers.
MISTRAL = [
    *(1, 3, 29473, 30151, 30298, 4, 29473, 30457, 30298, 29712, 2),
    *(3, 29473, 30831, 31712, 29737, 30762, 781, 31121, 31160, 1001, 951, 922, 29949, 1000, 936, 953, 4),
    *(29473, 30831, 31712, 29509, 30762, 29712, 2),
]


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Qwen's tokenizer over the part of its vocabulary that these texts can come to, with its own ids."""
    dashscope = pytest.importorskip("dashscope")
    from dashscope.tokenizers.qwen_tokenizer import PAT_STR

    file = Path(dashscope.__file__).parent / "resources/qwen.tiktoken"
    said = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\nsystem\nuser\nassistant\n"
    texts = (said + "".join(message.content for message in DIALOGUE.messages)).encode()
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {token: int(rank) for coded, rank in lines if (token := base64.b64decode(coded)) in texts}
    return _of_ranks(ranks, PAT_STR, SPECIAL)


def _of_ranks(ranks: Mapping[bytes, int], words: str, special: Mapping[str, int]) -> Any:
    """A tokenizer of bytes whose ids are the order of its merges; the first special token ends a sequence."""
    letters = bytes_to_unicode()
    merges = sorted(
        (rank, ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spelled(token): rank for token, rank in ranks.items()} | special
    made = Tokenizer(models.BPE(vocabulary, [(spelled(left), spelled(right)) for *_, left, right in merges]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    end, *others = special
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, extra_special_tokens=others)


@pytest.mark.parametrize("name", SYSTEM)
def test_the_ids_are_those_of_qwens_own_vocabulary(qwen: Any, name: str) -> None:
    set_template(qwen, name, Path("qwen"))

    ids, trained = _encoded(qwen)

    assert ids == [*SYSTEM[name], *TURNS]
    assert trained == [111308, 1773, 151645, 101914, 32, 68153, 1773, 151645]


def test_the_vendors_own_tokenizer_says_the_same(qwen: Any) -> None:
    import dashscope

    set_template(qwen, "qwen", Path("qwen"))
    messages = [message.for_template() for message in DIALOGUE.messages]
    text = qwen.apply_chat_template(messages, tokenize=False)

    ids = dashscope.get_tokenizer("qwen-7b-chat").encode(text, allowed_special="all", disallowed_special=())

    assert ids[:-1] == [*SYSTEM["qwen"], *TURNS]


def test_the_ids_are_those_of_llama_3s_own_vocabulary() -> None:
    ranks = {bytes.fromhex(token): rank for token, rank in LLAMA3_RANKS.items()}
    llama = _of_ranks(ranks, LLAMA3_WORDS, LLAMA3_SPECIAL)
    llama.bos_token = "<|begin_of_text|>"
    set_template(llama, "llama3", Path("llama"))

    ids, trained = _encoded(llama)

    assert ids == LLAMA3
    assert trained == [88126, 53901, 1811, 128009, 118553, 32, 69253, 1811, 128009]


def test_the_ids_are_those_of_mistrals_own_library() -> None:
    words = Tokenizer(models.BPE(MISTRAL_PIECES, [], byte_fallback=True, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    mistral = PreTrainedTokenizerFast(
        **{"tokenizer_object": words, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        extra_special_tokens=["[INST]", "[/INST]"],
    )
    set_template(mistral, "mistral", Path("mistral"))

    ids, trained = _encoded(mistral)

    assert ids == MISTRAL
    assert trained == [29473, 30457, 30298, 29712, 2, *MISTRAL[-7:]]


def _encoded(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids of the dialogue, and those that are trained."""
    (encoded,) = encode(tokenizer, [DIALOGUE], Limits(512))
    assert isinstance(encoded, Encoded)
    labels = [int(label) for label in encoded.example.labels]
    return [int(token) for token in encoded.example.input_ids], [label for label in labels if label != IGNORED]
