"""What users say of answers: acknowledged only when the store has it. Nothing that people write is ever logged."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec
from starlette.types import Receive, Scope, Send

from tunegate.api.errors import ForgedIdError, StoreError
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.feedback import FeedbackLog, ResponseIds
from tunegate.serving.events import ApiError, bad_request
from tunegate.serving.http import ClientGoneError, error_response, json_response, read_body
from tunegate.serving.metrics import Metrics

logger = logging.getLogger(__name__)
STORE_SECONDS = 10.0


class FeedbackRoute:
    """`POST /v1/feedback`: 202 when the verdict is in the store, 200 when it was there before."""

    def __init__(
        self, ids: ResponseIds, log: FeedbackLog, metrics: Metrics, clock: Callable[[], datetime], version: str
    ) -> None:
        self._ids = ids
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._headers = {"x-tunegate-version": version}
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="feedback")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            new = await self._accept(await read_body(receive))
            response = json_response({"status": "accepted" if new else "repeat"}, 202 if new else 200, self._headers)
        except ApiError as error:
            response = error_response(error, self._headers)
        except ClientGoneError:
            return
        await response(scope, receive, send)

    def close(self) -> None:
        """Wait for what is being written."""
        self._pool.shutdown()

    async def _accept(self, body: bytes) -> bool:
        feedback = _decode(body)
        try:
            answer = self._ids.read(feedback.response_id)
        except ForgedIdError as error:
            raise bad_request(str(error), "response_id", "forged_response_id", status=403) from None
        record = FeedbackRecord(
            digest=answer.digest,
            step=answer.step,
            answered=answer.answered,
            received=self._clock(),
            feedback=feedback,
        )
        writing = asyncio.get_running_loop().run_in_executor(self._pool, self._write, record, answer.user)
        try:
            return await asyncio.wait_for(asyncio.shield(writing), STORE_SECONDS)
        except (StoreError, TimeoutError) as error:
            logger.warning("feedback was not stored", extra={"kind": type(error).__name__})
            message = "The feedback could not be stored and is not counted; send it again."
            raise ApiError(503, message, reason="unavailable") from None

    def _write(self, record: FeedbackRecord, user: str | None) -> bool:
        """Store and then count it, even when the client no longer waits."""
        if not self._log.record(record, user):
            return False
        try:
            if self._log.counts(record.digest, user):
                self._metrics.judged(record.digest, record.feedback.verdict, record.step)
        except StoreError:  # it is stored: to ask for it again would be wrong, and to count too much, too
            logger.warning("feedback was stored but not counted")
        return True


def _decode(body: bytes) -> Feedback:
    try:
        return msgspec.json.decode(body, type=Feedback)
    except msgspec.ValidationError as error:
        field = re.search(r"at `\$\.(\w+)", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise bad_request(f"This is not feedback: {error}.", field[1] if field else None, status=422) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not JSON: {error}.") from None
