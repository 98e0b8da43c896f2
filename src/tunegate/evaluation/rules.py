"""Rules that an answer must keep, each scored in 0..1: text in, numbers out."""

from __future__ import annotations

import re
import unicodedata

import msgspec

_CITATION = re.compile(r"\[[\d,; ]+\]")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


class _Rule(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    pass


class Contains(_Rule, frozen=True, kw_only=True, tag="contains"):
    """The answer holds at least one of `any`, or each of `all`; exactly one of the two is given."""

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.any) == bool(self.all):
            raise ValueError("a contains rule needs either any or all, with at least one text")
        _refuse_blank(self.any + self.all)


class Excludes(_Rule, frozen=True, kw_only=True, tag="excludes"):
    """The answer holds none of `any`."""

    any: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.any:
            raise ValueError("an excludes rule needs any, with at least one text")
        _refuse_blank(self.any)


class Exact(_Rule, frozen=True, kw_only=True, tag="exact"):
    """The answer is the reference, but for case, width and white space."""


class RougeL(_Rule, frozen=True, kw_only=True, tag="rouge_l"):
    """The character ROUGE-L F1 of answer and reference is at least `min`."""

    min: float

    def __post_init__(self) -> None:
        if not 0 < self.min <= 1:
            raise ValueError("a rouge_l rule needs min above 0 and at most 1")


class Grounded(_Rule, frozen=True, kw_only=True, tag="grounded"):
    """Every number in the answer, but for citations, is one of `numbers`: no price and no term is made up."""

    numbers: tuple[float, ...] = ()


Rule = Contains | Excludes | Exact | RougeL | Grounded


def kind(rule: Rule) -> str:
    """The rule's name in records and metrics; `rouge_l` there is the F1 itself, so its bound is `rouge_l_min`."""
    name = str(rule.__struct_config__.tag)
    return "rouge_l_min" if name == "rouge_l" else name


def needs_reference(rule: Rule) -> bool:
    return isinstance(rule, Exact | RougeL)


def passes(rule: Rule, answer: str, reference: str) -> bool:
    """Whether `answer` keeps `rule`, both texts normalized first."""
    text = normalize(answer)
    match rule:
        case Contains(any=(), all=needed):
            return all(normalize(part) in text for part in needed)
        case Contains(any=options):
            return any(normalize(part) in text for part in options)
        case Excludes(any=banned):
            return not any(normalize(part) in text for part in banned)
        case Exact():
            return text == normalize(reference)
        case Grounded(numbers=known):
            said = _NUMBER.findall(_CITATION.sub(" ", text))
            return all(float(number.replace(",", "")) in known for number in said)
        case RougeL(min=least):
            return rouge_l(answer, reference) >= least


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 over the characters of the normalized texts, 0..1.

    Characters, because word ROUGE finds no words in Chinese. F1 of the longest common subsequence is
    2 LCS / (m + n), which is the normalized similarity of the insert-delete distance.
    """
    # Only who measures has this package; who reads results, such as the operator, gets by without.
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(normalize(answer), normalize(reference)))


def normalize(text: str) -> str:
    """Full-width forms become plain (NFKC), case is folded, and runs of white space become one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _refuse_blank(texts: tuple[str, ...]) -> None:
    if not all(text.strip() for text in texts):
        raise ValueError("a rule's texts must not be blank")
