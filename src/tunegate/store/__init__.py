"""The model store: versions in an S3 bucket, complete or invisible, verified byte for byte.

It knows of files, digests and S3; it must not know what a model is or who asks.
"""

from tunegate.store.embedded import EmbeddedStore
from tunegate.store.transfer import Progress
from tunegate.store.versions import Store

__all__ = ["EmbeddedStore", "Progress", "Store"]
