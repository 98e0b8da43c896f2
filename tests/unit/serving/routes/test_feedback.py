from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import openai
import pytest

from tests.unit.serving.standin import DIGEST, KEY, MODEL, Server, embedded, now
from tunegate.api.errors import StoreError
from tunegate.api.feedback import Tally, step_tag
from tunegate.api.traffic import STEP_HEADER
from tunegate.feedback import FeedbackLog, ResponseIds
from tunegate.feedback.segments import read_lines


def call(url: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=100) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else text


def judge(server: Server, response_id: str, verdict: str = "up", **said: Any) -> tuple[int, Any]:
    body = {"response_id": response_id, "verdict": verdict, **said}
    return call(f"{server.url}/v1/feedback", json.dumps(body).encode())


def test_a_verdict_is_accepted_once(server: Server) -> None:
    answer = server.ids.issue(DIGEST, now())

    assert judge(server, answer, "down", rating=2, tags=["rude"], comment="No.") == (202, {"status": "accepted"})
    assert judge(server, answer, "down") == (200, {"status": "repeat"})
    assert server.count("tunegate_feedback_total", verdict="down") == 1
    assert FeedbackLog(server.store).tally(DIGEST) == Tally(down=1)


def test_a_verdict_can_be_changed_for_a_while_and_a_reason_added_at_any_time(server: Server) -> None:
    answer = server.ids.issue(DIGEST, now())

    assert judge(server, answer, "up") == (202, {"status": "accepted"})
    assert judge(server, answer, "down") == (200, {"status": "amended"})
    server.state.later = timedelta(minutes=11)
    assert judge(server, answer, "down", comment="It is blue.") == (200, {"status": "amended"})
    status, body = judge(server, answer, "up")
    assert (status, body["error"]["param"], body["error"]["code"]) == (409, "verdict", "judged_before")
    assert "more than 10 minutes ago" in body["error"]["message"]

    (record,) = FeedbackLog(server.store).list(DIGEST)
    assert (record.feedback.verdict, record.feedback.comment) == ("down", "It is blue.")
    assert FeedbackLog(server.store).tally(DIGEST) == Tally(down=1)
    assert server.count("tunegate_feedback_total", verdict="up") == 1
    assert server.count("tunegate_feedback_total", verdict="down") == 0


def test_an_answer_given_by_the_chat_can_be_judged(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/openai/v1", api_key="none")
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])

    assert judge(server, answer.id)[0] == 202
    assert [record.digest for record in FeedbackLog(server.store).list(DIGEST)] == [DIGEST]


@pytest.mark.parametrize("limits", [None, embedded()], ids=["passed through", "written"])
def test_a_verdict_before_the_answer_ends_counts_once(server: Server) -> None:
    """A stream tells its id in the first chunk, and a user may have read enough by then."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "go on"}], "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=100) as stream:
        answer = json.loads(stream.readline().removeprefix(b"data: "))["id"]
        assert judge(server, answer, "down") == (202, {"status": "accepted"})
        assert server.count("tunegate_feedback_total", verdict="down") == 1
        assert judge(server, answer, "down") == (200, {"status": "repeat"})
        server.engine.go_on.set()
        rest = stream.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert judge(server, answer, "down") == (200, {"status": "repeat"})
    assert server.count("tunegate_feedback_total", verdict="down") == 1
    assert FeedbackLog(server.store).tally(DIGEST) == Tally(down=1)


def test_a_verdict_on_an_answer_that_nobody_reads_to_its_end_counts(server: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "go on"}], "stream": True}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=100) as stream:
        answer = json.loads(stream.readline().removeprefix(b"data: "))["id"]
    server.engine.ended.wait(100)
    assert judge(server, answer, "down") == (202, {"status": "accepted"})
    assert FeedbackLog(server.store).tally(DIGEST) == Tally(down=1)


def test_an_answer_carries_the_step_that_the_route_tells_into_votes_and_metrics(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")

    def ask(step: str | None, **more: Any) -> Any:
        headers = {} if step is None else {STEP_HEADER: step}
        chat = client.chat.completions.with_raw_response
        return chat.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], extra_headers=headers, **more)  # type: ignore[call-overload]

    answers = [ask("shop-run-7/1"), ask("shop-run-7/1", stream=True), ask(None), ask("../etc/1"), ask("shop-run-7/1x")]
    echoed = [answer.headers.get(STEP_HEADER) for answer in answers]
    assert echoed == ["shop-run-7/1", "shop-run-7/1", None, None, None]

    tag = step_tag("shop-run-7", 1)
    assert judge(server, answers[0].parse().id, "down")[0] == 202
    assert judge(server, answers[2].parse().id, "up")[0] == 202
    assert server.count("tunegate_feedback_total", step=tag, verdict="down") == 1
    assert server.count("tunegate_feedback_total", step="", verdict="up") == 1
    assert server.count("tunegate_questions_total", step=tag) == 2
    assert server.count("tunegate_questions_total", step="") == 3
    assert {record.step for record in FeedbackLog(server.store).list(DIGEST)} == {tag, None}
    assert FeedbackLog(server.store).tallies(DIGEST, "shop-run-7", now())[1] == Tally(down=1)


def test_one_user_counts_at_most_three_times(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")

    def ask(**who: str) -> str:
        return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], **who).id  # type: ignore[call-overload, no-any-return]

    for who in [{"user": "anna"}] * 2 + [{"safety_identifier": "anna"}] * 3 + [{"user": "ben"}] + [{}] * 5:
        assert judge(server, ask(**who), "down") == (202, {"status": "accepted"})

    assert server.count("tunegate_feedback_total", verdict="down") == 3 + 1 + 5
    assert FeedbackLog(server.store).tally(DIGEST) == Tally(down=9)
    assert len(FeedbackLog(server.store).list(DIGEST)) == 11
    said = "".join(server.store.bodies) + str([read_lines(body) for body in server.store.bodies.values()])
    assert "anna" not in said


def test_unnamed_users_of_one_address_count_as_the_policy_says(server: Server) -> None:
    """A client's word on where it asks from counts where a proxy that is trusted passes it on, such as this machine."""
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")

    def ask(address: str) -> str:
        asked: list[Any] = [{"role": "user", "content": "hi"}]
        headers = {"X-Forwarded-For": address}
        return client.chat.completions.create(model=MODEL, messages=asked, extra_headers=headers).id

    for address in ["203.0.113.7"] * 5 + ["198.51.100.9, 203.0.113.7"] * 2 + ["203.0.113.8"]:
        assert judge(server, ask(address), "down")[0] == 202

    log = FeedbackLog(server.store)
    assert log.tallies(DIGEST, "shop-run-7", now())[None] == Tally(down=8)
    assert log.tallies(DIGEST, "shop-run-7", now(), 2)[None] == Tally(down=3)
    said = str([read_lines(body) for body in server.store.bodies.values()])
    assert "113.7" not in said


def test_feedback_on_another_version_is_kept_and_counted_there(server: Server) -> None:
    other = "sha256:" + "cd" * 32

    assert judge(server, ResponseIds(KEY, MODEL).issue(other, now()))[0] == 202
    assert FeedbackLog(server.store).tally(other) == Tally(up=1)
    assert FeedbackLog(server.store).tally(DIGEST) == Tally()
    assert server.count("tunegate_feedback_total", model_version="cd" * 6, verdict="up", step="") == 1


def test_forged_and_foreign_ids_are_refused(server: Server) -> None:
    for ids in (ResponseIds(bytes(32), MODEL), ResponseIds(KEY, "other-model")):
        status, body = judge(server, ids.issue(DIGEST, now()))
        assert (status, body["error"]["param"]) == (403, "response_id")
    assert judge(server, "chatcmpl-123")[0] == 403
    assert server.store.bodies == {}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b"\xff", 400, None),
        (b"[]", 422, None),
        (b'{"verdict": "up"}', 422, "response_id"),
        (b'{"response_id": "x"}', 422, "verdict"),
        (b'{"response_id": "x", "verdict": "meh"}', 422, "verdict"),
        (b'{"response_id": "x", "verdict": "up", "rating": 6}', 422, "rating"),
        (b'{"response_id": "x", "verdict": "up", "tags": ["' + b"x" * 65 + b'"]}', 422, "tags"),
        (b'{"response_id": "x", "verdict": "up", "note": 1}', 422, "note"),
    ],
)
def test_malformed_feedback_names_the_field(server: Server, body: bytes, status: int, field: str | None) -> None:
    got, answer = call(f"{server.url}/v1/feedback", body)

    assert (got, answer["error"]["param"]) == (status, field)


def test_feedback_that_is_too_large_is_refused(server: Server) -> None:
    assert call(f"{server.url}/v1/feedback", b"x" * (1 << 21))[0] == 413


def test_nothing_counts_while_the_store_is_down_and_the_client_may_try_again(server: Server) -> None:
    answer = server.ids.issue(DIGEST, now())
    server.store.failure = StoreError("s3://models can't be reached.")
    assert judge(server, answer)[0] == 503
    assert server.count("tunegate_feedback_total", verdict="up") == 0

    server.store.failure = None
    assert judge(server, answer)[0] == 202
    assert server.count("tunegate_feedback_total", verdict="up") == 1


def test_one_of_many_at_the_same_time_is_the_first(server: Server) -> None:
    answer = server.ids.issue(DIGEST, now())
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: judge(server, answer)[0], range(24)))

    assert sorted(statuses) == [200] * 23 + [202]
    assert server.count("tunegate_feedback_total", verdict="up") == 1


@pytest.mark.parametrize("prefix", ["", "/openai"])
def test_the_served_model_is_listed_with_its_digest(server: Server, prefix: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}{prefix}/v1", api_key="none")
    (listed,) = client.models.list().data

    assert (listed.id, listed.object, listed.to_dict()["digest"]) == (MODEL, "model", DIGEST)
    assert client.models.retrieve(MODEL).id == MODEL
    assert call(f"{server.url}/v1/models")[1]["models"] == [MODEL]


def test_one_model_is_as_ready_as_the_engine(server: Server) -> None:
    server.state.ready = False

    assert call(f"{server.url}/v1/models/{MODEL}")[0] == 503
    assert call(f"{server.url}/v1/models/other")[0] == 404


def test_health_is_kserves_and_other_methods_are_refused(server: Server) -> None:
    assert call(f"{server.url}/v2/health/live") == (404, b"kserve")
    assert call(f"{server.url}/v1/chat/completions")[0] == 405
    assert server.count("tunegate_model_info", digest=DIGEST, model=MODEL) == 1
