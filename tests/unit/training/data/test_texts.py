from __future__ import annotations

import pytest

from tunegate.training.data.readers import RecordError
from tunegate.training.data.texts import turns_of_text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi\nyou<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>",
            id="chatml",
        ),
        pytest.param(
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi\nyou [/INST] Hello. </s><s>[INST] Bye [/INST] Yes. </s>",
            id="llama 2",
        ),
        pytest.param(
            "Be kind.\n\n### Instruction:\nHi\n\n### Input:\nyou\n\n### Response:\nHello."
            "### Human: Bye### Assistant: Yes.",
            id="hashes",
        ),
    ],
)
def test_turns_are_found_by_their_marks(text: str) -> None:
    assert [(turn.role, turn.content) for turn in turns_of_text(text)] == [
        ("system", "Be kind."),
        ("user", "Hi\nyou"),
        ("assistant", "Hello."),
        ("user", "Bye"),
        ("assistant", "Yes."),
    ]


@pytest.mark.parametrize(
    "text", ["<|im_start|>tool\n{}<|im_end|>\n<|im_start|>user\nHi<|im_end|>", "Be kind. [INST] Hi [/INST] Hello."]
)
def test_what_stands_outside_of_marked_turns_is_not_lost(text: str) -> None:
    with pytest.raises(RecordError, match="outside of the marked turns"):
        list(turns_of_text(text))


def test_a_text_without_marks_is_refused_and_a_question_without_an_answer_is_kept() -> None:
    with pytest.raises(RecordError, match="no marks of turns"):
        list(turns_of_text("The lamp is bright."))
    assert [turn.role for turn in turns_of_text("### Human: Hi")] == ["user"]
