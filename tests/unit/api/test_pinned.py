"""The pinned URI: written for a version, read back, and refused when it could mean something else."""

from __future__ import annotations

import pytest

from tests.builders import make_version
from tunegate.api.errors import UsageError
from tunegate.api.pinned import Pinned, parse_storage_uri, storage_uri

DIGITS = "0f" * 32


def test_a_version_becomes_a_uri_and_comes_back() -> None:
    version = make_version("run-1", step=10)

    uri = storage_uri(version)

    assert uri == f"tunegate://sha256-{version.digest[7:]}/shop/run-1/checkpoint-10/"
    assert parse_storage_uri(uri) == Pinned(version.name, version.digest)
    assert parse_storage_uri(storage_uri(version, weights=False)) == Pinned(version.name, version.digest, weights=False)


@pytest.mark.parametrize(
    "uri",
    [
        f"tunegate://sha256-{DIGITS}/shop/run/checkpoint-1",  # a prefix: checkpoint-10 begins so, too
        f"tunegate://sha256-{DIGITS}/shop/run/checkpoint-1//",
        f"tunegate://sha256-{DIGITS}/shop/run/checkpoint-01/",
        f"tunegate://sha256-{DIGITS}/shop/run/checkpoint-1/?weights=some",
        f"tunegate://sha256-{DIGITS}/shop/../checkpoint-1/",
        f"tunegate://sha256-{DIGITS}/shop/run/",
        f"tunegate://sha256-{DIGITS[:-1]}/shop/run/checkpoint-1/",
        f"tunegate://sha256-{DIGITS.upper()}/shop/run/checkpoint-1/",
        f"tunegate://sha256:{DIGITS}/shop/run/checkpoint-1/",
        f"s3://sha256-{DIGITS}/shop/run/checkpoint-1/",
        f"tunegate://sha256-{DIGITS}/shop/run/checkpoint-1/\n",
        "",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="checkpoint-STEP"):
        parse_storage_uri(uri)
