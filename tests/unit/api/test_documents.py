"""Documents of the store, as an earlier and as a newer tunegate wrote them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tunegate.api.codec import Document, changed, from_json, from_yaml, to_json, to_yaml
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric, Probe
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.api.pinned import index_of
from tunegate.api.policy import PromotionPolicy
from tunegate.api.versions import (
    Cost,
    Derived,
    File,
    Limits,
    Manifest,
    Producer,
    Prompts,
    Release,
    Training,
    digest_of,
)

T = datetime(2026, 3, 4, tzinfo=UTC)
FILES = (File(path="model.safetensors", size=3, sha256="0" * 64),)
MANIFEST = Manifest(
    model="shop",
    name="shop/run/checkpoint-1",
    format="huggingface",
    digest=digest_of(FILES),
    files=FILES,
    producer=Producer(kind="test", training=Training(method="lora", cost=Cost(seconds=1.5))),
    created=T,
)
EVALUATION = Evaluation(
    version="shop/run/checkpoint-1",
    digest=MANIFEST.digest,
    suite="tea",
    suite_digest=MANIFEST.digest,
    metrics=(Metric(name="score", value=0.5, n=2),),
    records=(),
    code_version="1",
    started=T,
    seconds=1.0,
)
FEEDBACK = FeedbackRecord(
    digest=MANIFEST.digest, answered=T, received=T, feedback=Feedback(response_id="chatcmpl-1", verdict="up")
)
URI = index_of("shop", MANIFEST.digest).uri
RELEASE = Release(format="huggingface", system_prompt="You are Xuan.")
DOCUMENTS = [
    pytest.param(MANIFEST, ("producer", "training", "cost"), id="manifest"),
    pytest.param(EVALUATION, ("metrics", 0), id="evaluation"),
    pytest.param(FEEDBACK, ("feedback",), id="feedback"),
    pytest.param(RELEASE, (), id="release"),
]


def plain(document: Document) -> dict[str, Any]:
    return dict(json.loads(to_json(document)))


def newer(document: Document, inside: tuple[str | int, ...]) -> dict[str, Any]:
    """The document as a newer minor version may write it: with fields at the top and somewhere within."""
    written = plain(document)
    part: Any = written
    for step in inside:
        part = part[step]
    part["mood"] = "calm"
    return {**written, "schema": f"{written['schema']}.3", "added": {"by": ["a", "newer", "one"]}}


@pytest.mark.parametrize(("document", "inside"), DOCUMENTS)
def test_fields_of_a_newer_minor_are_ignored_and_those_at_the_top_written_again(
    document: Document, inside: tuple[str | int, ...]
) -> None:
    written = newer(document, inside)

    read = from_json(json.dumps(written), type(document), "store/key")

    assert read == document
    again = plain(read)
    assert (again["schema"], again["added"]) == (written["schema"], written["added"])
    assert from_json(to_json(read), type(document), "store/key") == document
    assert json.loads(to_json([read]))[0] == again


def test_a_result_without_probes_is_written_as_before_there_were_any() -> None:
    assert b"probes" not in to_json(EVALUATION)
    probed = msgspec.structs.replace(EVALUATION, probes=(Probe(tokens=(1, 2), logprobs=(-0.5,)),))
    assert from_json(to_json(probed), Evaluation, "store/key") == probed


@pytest.mark.parametrize(("document", "inside"), DOCUMENTS)
@pytest.mark.parametrize("major", ["v2", "v12.1"])
def test_a_newer_major_says_to_upgrade(document: Document, inside: tuple[str | int, ...], major: str) -> None:
    written = plain(document)
    written["schema"] = written["schema"].replace("/v1", f"/{major}")

    with pytest.raises(UsageError, match=r"store/key was written by a newer tunegate, .*; upgrade tunegate"):
        from_json(json.dumps(written), type(document), "store/key")


@pytest.mark.parametrize("schema", ["tunegate.io/suite/v1", "v1", 1, "tunegate.io/manifest/v0"])
def test_another_kind_of_document_is_refused(schema: object) -> None:
    with pytest.raises(UsageError, match=r"a Manifest has tunegate\.io/manifest/v1"):
        from_json(json.dumps({**plain(MANIFEST), "schema": schema}), Manifest, "key")


def test_a_wrong_value_is_still_named() -> None:
    with pytest.raises(UsageError, match=r"Expected `int`, got `str` - at `\$.files\[0\].size`"):
        from_json(json.dumps({**plain(MANIFEST), "files": [{"path": "a", "size": "b", "sha256": ""}]}), Manifest, "key")


def test_an_unknown_field_does_not_change_the_digest() -> None:
    written = newer(MANIFEST, ("files", 0))

    read = from_json(json.dumps(written), Manifest, "key")

    assert digest_of(read.files) == read.digest == MANIFEST.digest


def test_a_release_without_a_schema_is_of_v1() -> None:
    assert from_yaml("format: huggingface\nsystemPrompt: You are Xuan.\n", Release, "release.yaml") == RELEASE


def test_what_is_changed_keeps_what_is_unknown() -> None:
    read = from_yaml("format: huggingface\nprompt: {fewShot: 3}\n", Release, "release.yaml")

    whole = changed(read, system_prompt="Hm.")

    assert from_yaml(to_yaml(whole), Release, "again").unknown == {"prompt": {"fewShot": 3}}
    assert from_yaml(to_yaml(whole), Release, "again").system_prompt == "Hm."


def test_what_people_write_stays_strict() -> None:
    with pytest.raises(UsageError, match="unknown field `gatez`"):
        from_yaml("gatez: []", PromotionPolicy, "policy.yaml")


def test_notes_of_0_1_become_typed() -> None:
    notes = {"base": "sha256:1", "globalBatch": "16", "totalSteps": "12", "method": "lora", "seconds": "61.5"}
    notes |= {"parameters": "9", "madeFrom": "s3://b/shop/run/checkpoint-1/ sha256:2", "quantization": "int8"}
    written = plain(MANIFEST)
    written["producer"] = {"kind": "test", "step": 12, "notes": {**notes, "weightError": "0.0061"}}

    read = from_json(json.dumps(written), Manifest, "key")

    cost = Cost(parameters=9, seconds=61.5)
    training = Training(method="lora", base="sha256:1", global_batch=16, total_steps=12, cost=cost)
    derived = Derived(uri="s3://b/shop/run/checkpoint-1/", digest="sha256:2", quantization="int8", weight_error=0.0061)
    assert read.producer == Producer(kind="test", step=12, training=training, derived=derived)
    assert read.is_last
    assert read.unknown == {}


def test_a_release_of_weights_alone_is_written_as_it_always_was() -> None:
    """Its bytes are part of the digest: another field would make another version of the same weights."""
    assert to_yaml(RELEASE).decode().splitlines() == [
        "schema: tunegate.io/release/v1",
        "format: huggingface",
        "base: null",
        "systemPrompt: You are Xuan.",
        "generation: {}",
    ]


def test_a_release_says_all_that_is_served() -> None:
    whole = Release(
        format="huggingface",
        prompts=Prompts(),
        knowledge=index_of("shop", "sha256:" + "0" * 64),
        tools=("calculator", "knowledge"),
        dialect="openai",
        limits=Limits(steps=2),
    )
    assert from_yaml(to_yaml(whole), Release, "again") == whole


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("prompts: {path: ../other}", r"prompts\.path"),
        ("knowledge: {uri: s3://b/x/, digest: sha256:" + "0" * 64 + "}", r"knowledge\.uri"),
        (f"knowledge: {{uri: {URI}, digest: 12}}", r"knowledge\.digest"),
        ("limits: {steps: 0}", r"limits\.steps"),
        ("dialect: morse", r"dialect"),
    ],
)
def test_a_release_that_can_t_be_served_is_refused_by_the_field(wrong: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"x is not a valid Release.*{said}"):
        from_yaml(f"format: huggingface\n{wrong}\n", Release, "x")
