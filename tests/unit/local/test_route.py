import itertools
import json
from typing import Any

import msgspec
import pytest

from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import UsageError
from tunegate.local.route import Backend, Route, choose, conversation_of

CONVERSATIONS = [f"conversation {number}" for number in range(10_000)]


def stable_and_canary(canary: int, *, salt: str = "promotion-1") -> Route:
    return Route(
        salt=salt,
        backends=(
            Backend(version="sha256:stable", url="http://127.0.0.1:8101", weight=100 - canary),
            Backend(version="sha256:canary", url="http://127.0.0.1:8102", weight=canary),
        ),
    )


def on_canary(route: Route) -> set[str]:
    return {name for name in CONVERSATIONS if choose(route, name).version == "sha256:canary"}


def body(*messages: tuple[str, str], **fields: object) -> bytes:
    return msgspec.json.encode({"messages": [{"role": role, "content": text} for role, text in messages], **fields})


@pytest.mark.parametrize("weight", [0, 1, 10, 50, 99, 100])
def test_the_canary_gets_its_share_of_the_conversations(weight: int) -> None:
    share = 100 * len(on_canary(stable_and_canary(weight))) / len(CONVERSATIONS)

    assert share == pytest.approx(weight, abs=2.0)  # four standard errors at 50 %


def test_a_growing_canary_keeps_its_conversations() -> None:
    shown = [on_canary(stable_and_canary(weight)) for weight in range(0, 101, 5)]

    assert all(before < after for before, after in itertools.pairwise(shown))


def test_another_promotion_shows_its_canary_to_other_conversations() -> None:
    first, second = (on_canary(stable_and_canary(10, salt=salt)) for salt in ("promotion-1", "promotion-2"))

    assert len(first & second) < len(first) / 5


def test_a_single_backend_gets_everything() -> None:
    alone = Backend(version="sha256:stable", url="http://127.0.0.1:8101", weight=100)

    assert all(choose(Route(salt="", backends=(alone,)), name) == alone for name in CONVERSATIONS[:100])


def test_a_route_comes_back_from_json() -> None:
    route = stable_and_canary(10)

    assert from_json(to_json(route), Route, "route.json") == route


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 20}, "the weights of a route add up to 100, not to 110"),
        ({"weight": -1}, "Expected `int` >= 0"),
        ({"url": "http://127.0.0.1:8102/v1"}, "matching regex"),
        ({"url": "127.0.0.1:8102"}, "matching regex"),
        ({"version": "sha256:stable"}, "both backends of the route serve version sha256:stable"),
        ({"wieght": 10}, "unknown field `wieght`"),
    ],
)
def test_a_wrong_route_is_refused_and_the_field_named(change: dict[str, object], message: str) -> None:
    route = json.loads(to_json(stable_and_canary(10)))
    route["backends"][1] |= change

    with pytest.raises(UsageError, match=message):
        from_json(msgspec.json.encode(route), Route, "route.json")


def test_a_route_has_no_second_canary() -> None:
    backends = tuple(
        Backend(version=f"sha256:{weight}", url="http://127.0.0.1:8101", weight=weight) for weight in (50, 20, 30)
    )

    with pytest.raises(ValueError, match="at most one canary"):
        Route(salt="", backends=backends)


ASKED = (("system", "You sell shoes."), ("user", "Do you have boots?"))


@pytest.mark.parametrize(
    "later",
    [
        body(*ASKED, ("assistant", "Yes."), ("user", "In red?")),
        body(*ASKED, ("assistant", "Yes."), ("user", "In red?"), stream=True, temperature=0.5),
        b'{ "messages": [{"content": "You sell shoes.", "role": "system"},'
        b' {"content": "Do you have boots?", "role": "user"}], "user": null }',
    ],
    ids=["next turn", "other options", "other spelling"],
)
def test_every_turn_of_a_conversation_is_the_same_conversation(later: bytes) -> None:
    assert conversation_of({}, later) == conversation_of({}, body(*ASKED))


def dashscope(*messages: tuple[str, str], **parameters: object) -> bytes:
    return msgspec.json.encode({"model": "m", "input": json.loads(body(*messages)), "parameters": parameters})


def test_every_turn_of_a_conversation_is_the_same_in_the_form_of_dashscope_too() -> None:
    first = conversation_of({}, dashscope(*ASKED))
    assert conversation_of({}, dashscope(*ASKED, ("assistant", "Yes."), ("user", "In red?"), top_p=0.5)) == first
    assert conversation_of({}, dashscope(ASKED[0], ("user", "Do you have sandals?"))) != first


def test_texts_to_complete_are_conversations_of_their_own() -> None:
    texts = [b'{"prompt": "Boots are"}', b'{"prompt": "Hats are"}', b'{"input": {"prompt": "Boots are"}}', b"{}"]
    assert len({conversation_of({}, text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    "other",
    [
        body(ASKED[0], ("user", "Do you have sandals?")),
        body(("system", "You sell hats."), ASKED[1]),
        body(*ASKED, user="ann"),
        body(ASKED[0]),
    ],
    ids=["question", "system prompt", "person", "nothing asked"],
)
def test_another_beginning_is_another_conversation(other: bytes) -> None:
    assert conversation_of({}, other) != conversation_of({}, body(*ASKED))


def generation(**given: Any) -> bytes:
    return json.dumps({"model": "shop", "input": given}).encode()


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (
            generation(messages=[{"role": "user", "content": "hi"}]),
            generation(messages=[{"role": role, "content": text} for role, text in (("user", "hi"), ("user", "yes"))]),
        ),
        (generation(prompt="hi"), generation(prompt="yes", history=[{"user": "hi", "bot": "hello"}])),
        (generation(prompt="hi"), generation(prompt=[{"role": "user", "content": "hi"}])),
    ],
)
def test_dashscopes_turns_are_one_conversation_too(first: bytes, later: bytes) -> None:
    assert conversation_of({}, later) == conversation_of({}, first)
    assert conversation_of({}, generation(prompt="other")) != conversation_of({}, first)


def test_the_header_names_the_conversation_whatever_the_body_says() -> None:
    given = {"x-conversation-id": "cart-17"}

    assert conversation_of(given, body(*ASKED)) == conversation_of(given, b"") == "cart-17"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"messages": "hello"}', b'{"messages": []}', b"\xff\xfe", b'{"messages":' + b"[" * 9999],
)
def test_what_is_no_chat_completion_is_a_conversation_too(text: bytes) -> None:
    assert choose(stable_and_canary(50), conversation_of({"x-conversation-id": ""}, text))


def test_a_header_that_is_not_utf8_is_a_conversation_too() -> None:
    assert choose(stable_and_canary(50), b"caf\xe9".decode(errors="surrogateescape"))
