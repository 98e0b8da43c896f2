from __future__ import annotations

import gc

from tunegate.garbage import lasting_imports


def test_what_was_imported_is_looked_through_by_no_collection() -> None:
    frozen = gc.get_freeze_count()

    with lasting_imports():
        assert not gc.isenabled()
        imported = [[] for _ in range(1000)]

    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(imported)
