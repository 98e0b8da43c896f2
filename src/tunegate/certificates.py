"""The certificate of one server that no public CA vouches for, by the file that has it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any


class Pinned(ssl.SSLContext):
    """Trusts what stands in one file and no CA besides, as it is when a connection begins.

    KServe makes an engine's certificate anew whenever its pods change, and the file follows some time later: the one
    before stays trusted for as long as this process runs.
    """

    file: Path

    @classmethod
    def to(cls, file: Path) -> Pinned:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.file = file
        # KServe's signs itself and may sign nothing: it is no CA, and trusted as what it is.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self.load_verify_locations(self.file)
        return super().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self.load_verify_locations(self.file)
        return super().wrap_socket(*args, **options)
