"""What documents and names are refused for, they are taken without once the message's words were followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import make_policy, make_version
from tests.refusals import refused, without_story
from tunegate.api.codec import from_json, from_yaml, to_json
from tunegate.api.digest import Digest
from tunegate.api.names import require_name
from tunegate.api.pinned import parse_storage_uri, storage_uri
from tunegate.api.policy import read_policy_file, write_policy_file
from tunegate.api.versions import Release

VERSION = make_version("run-1")


def test_a_digest_is_the_one_that_the_list_shows_whole() -> None:
    with refused("find it with: tunegate models list --json"):
        Digest.parse(VERSION.digest[7:19])
    Digest.parse(from_json(to_json(VERSION), type(VERSION), "the list").digest)


def test_a_version_is_named_in_the_form_of_the_message() -> None:
    with refused("write MODEL/RUN/checkpoint-STEP in lower-case letters"):
        require_name("Shop/run-1/checkpoint-10")
    require_name("shop/run-1/checkpoint-10")


def test_a_pinned_version_is_written_in_the_form_of_the_message() -> None:
    with refused("write tunegate://sha256-<64 hex digits>/MODEL/RUN/checkpoint-STEP/ with the slash at the end"):
        parse_storage_uri(storage_uri(VERSION).rstrip("/"))
    parse_storage_uri(storage_uri(VERSION))


def test_a_bare_spec_gets_the_head_that_the_message_shows() -> None:
    whole = write_policy_file(make_policy()).decode()
    lines = whole.partition("spec:\n")[2].splitlines()
    bare = "\n".join(line[2:] for line in lines)
    with refused("indent it below `spec:` and put these three lines first:") as caught:
        read_policy_file(bare.encode(), "policy.yaml")
    head = str(caught.value).partition("first:\n")[2].rstrip(".")
    indented = "\n".join(f"  {line}" for line in bare.splitlines())
    assert read_policy_file(f"{head}\nspec:\n{indented}\n".encode(), "policy.yaml") == read_policy_file(
        whole.encode(), "whole"
    )


def test_a_policy_is_corrected_where_the_message_says() -> None:
    whole = write_policy_file(make_policy())
    with refused(" is not a valid PromotionPolicy: ") as caught:
        read_policy_file(whole.replace(b"suspend:", b"suspendd:"), "policy.yaml")
    assert "suspendd" in str(caught.value)
    read_policy_file(whole, "policy.yaml")
    with refused(" PromotionPolicies; give each a file of its own."):
        read_policy_file(whole + b"---\n" + whole, "policies.yaml")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (" is not a valid ", "schema: tunegate.io/release/v1\nformat: gguf\n"),
        (" has the schema ", "schema: tunegate.io/manifest/v1\nformat: huggingface\n"),
        (" has the schema ", "schema: 1\nformat: huggingface\n"),
        ("; upgrade tunegate, which reads ", "schema: tunegate.io/release/v2\nformat: huggingface\n"),
    ],
)
def test_a_document_is_of_the_schema_that_the_message_names(words: str, text: str) -> None:
    with refused(words):
        from_yaml(text.encode(), Release, "release.yaml")
    from_yaml(b"schema: tunegate.io/release/v1\nformat: huggingface\n", Release, "release.yaml")


def test_every_message_has_its_story() -> None:
    assert without_story("api", Path(__file__)) == []
