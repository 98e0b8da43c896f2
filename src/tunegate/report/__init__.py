"""One page, and one JSON document, of what versions are worth beside each other. Nothing is measured here."""
