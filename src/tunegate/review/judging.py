"""Asking a judge model, at any URL with OpenAI's API. Each reply is on the disk before it counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime

from tunegate.api.errors import EvaluationError
from tunegate.evaluation.models.remote import RemoteModel
from tunegate.review.items import Review
from tunegate.review.judge import calls, judged
from tunegate.review.marks import Judgement, Log


class Judge(RemoteModel):
    """Greedy and patient, as whoever measures; which model it is, its server says."""

    remedy = "lower --max-tokens, or name a judge with a longer context"


def ask(
    judge: Judge, review: Review, file: Log, max_tokens: int, done: Callable[[int, int], None]
) -> list[EvaluationError]:
    """Ask what has no reply yet or one without a verdict, and keep the replies.

    Questions that the server refuses are returned, and none of them is kept. `done` gets how many are answered, and of
    how many. Raises ServingError when the server is away: asked again, it goes on from there.
    """
    replies = [line for line in file.lines if isinstance(line, Judgement)]
    known = {reply.asked for reply in replies} - {reply.asked for reply in judged(review, replies, judge.model).unread}
    asked = list(calls(review, judge.model))
    missing = [call for call in asked if call.asked not in known]
    refused, answered = [], len(asked) - len(missing)
    with ThreadPoolExecutor(judge.concurrency) as pool:
        waiting = {pool.submit(judge.ask, call.dialogue, max_tokens): call for call in missing}
        try:
            for future in as_completed(waiting):
                call = waiting[future]
                try:
                    reply = future.result()
                except EvaluationError as error:
                    refused.append(error)
                    continue
                line = Judgement(
                    model=judge.model,
                    asked=call.asked,
                    answers=call.item.digest,
                    criterion=call.criterion.name,
                    left=call.left,
                    reply=reply,
                    time=datetime.now(UTC),
                )
                file.append(line)
                answered += 1
                done(answered, len(asked))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return refused
