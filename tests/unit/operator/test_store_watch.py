"""What the store's errors are as reasons of a condition."""

from __future__ import annotations

import pytest

from tunegate.api.errors import CredentialsError, DigestError, NotFoundError, StoreError, TunegateError
from tunegate_operator.store_watch import problem_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CredentialsError("s3://models refuses the key"), "CredentialsRefused"),
        (StoreError("the folder credentials/ is not there"), "StoreUnreachable"),
        (NotFoundError("nothing there"), "VersionMissing"),
        (DigestError("other bytes"), "DigestMismatch"),
    ],
)
def test_the_kind_of_an_error_is_its_reason_and_never_its_words(error: TunegateError, reason: str) -> None:
    assert problem_of(error).reason == reason
