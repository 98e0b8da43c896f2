"""What users say of answers: acknowledged only when the store has it. Nothing that people write is ever logged."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import datetime

import msgspec
from starlette.types import Receive, Scope, Send

from tunegate.api.errors import FeedbackError, ForgedIdError, StoreError
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.feedback import ResponseIds, VoteWriter
from tunegate.feedback.commits import Commits
from tunegate.feedback.tally import AMEND_SECONDS
from tunegate.feedback.votes import Outcome
from tunegate.serving.events import ApiError, bad_request
from tunegate.serving.http import ClientGoneError, error_response, json_response, read_body
from tunegate.serving.metrics import Metrics

logger = logging.getLogger(__name__)
STORE_SECONDS = 10.0
_STATUSES = {"counted": "accepted", "kept": "accepted", "amended": "amended", "repeat": "repeat"}


class FeedbackRoute:
    """`POST /v1/feedback`: 202 when the verdict is in the store; 200 when it amends one that was there, or was there
    itself; 409 when it contradicts one that is too old to be changed."""

    def __init__(
        self, ids: ResponseIds, writer: VoteWriter, metrics: Metrics, clock: Callable[[], datetime], version: str
    ) -> None:
        self._ids = ids
        self._clock = clock
        self._headers = {"x-tunegate-version": version}

        def counted(record: FeedbackRecord) -> None:
            metrics.judged(record.digest, record.feedback.verdict, record.step, record.feedback.rating)

        self._commits = Commits(writer, counted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status = _STATUSES[await self._accept(await read_body(receive))]
            response = json_response({"status": status}, 202 if status == "accepted" else 200, self._headers)
        except ApiError as error:
            response = error_response(error, self._headers)
        except ClientGoneError:
            return
        await response(scope, receive, send)

    def close(self) -> None:
        """Write what waits."""
        self._commits.close()

    async def _accept(self, body: bytes) -> Outcome:
        feedback = _decode(body)
        try:
            answer = self._ids.read(feedback.response_id)
        except ForgedIdError as error:
            raise bad_request(str(error), "response_id", "forged_response_id", status=403) from None
        record = FeedbackRecord(
            digest=answer.digest,
            step=answer.step,
            user=answer.user,
            answered=answer.answered,
            received=self._clock(),
            feedback=feedback,
        )
        try:
            writing = asyncio.wrap_future(self._commits.submit(record))
            writing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # who asked may be gone
            outcome = await asyncio.wait_for(asyncio.shield(writing), STORE_SECONDS)
        except (StoreError, FeedbackError, TimeoutError) as error:
            logger.warning("feedback was not stored", extra={"kind": type(error).__name__})
            message = "The feedback could not be stored and is not counted; send it again."
            raise ApiError(503, message, reason="unavailable") from None
        if outcome == "late":
            ago = f"more than {AMEND_SECONDS / 60:.0f} minutes ago"
            message = f"This answer was judged otherwise {ago}, and that verdict stays; send that one to say more."
            raise bad_request(message, "verdict", "judged_before", status=409)
        return outcome


def _decode(body: bytes) -> Feedback:
    try:
        return msgspec.json.decode(body, type=Feedback)
    except msgspec.ValidationError as error:
        field = re.search(r"at `\$\.(\w+)", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise bad_request(f"This is not feedback: {error}.", field[1] if field else None, status=422) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not JSON: {error}.") from None
