"""Versions that are looked for again and again: few requests, and each manifest read once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders import make_manifest
from tests.unit.store.picky import PickyStore, picky_store
from tunegate.api.codec import to_json
from tunegate.api.versions import MANIFEST
from tunegate.store import EmbeddedStore, Store
from tunegate.store.catalogue import Catalogue

MODELS = tuple(f"model-{number}" for number in range(6))


@pytest.fixture
def counting(embedded_store: EmbeddedStore) -> Iterator[PickyStore]:
    with picky_store(embedded_store.endpoint_url) as counting:
        yield counting


@pytest.fixture
def counted(store: Store, counting: PickyStore) -> Store:
    """The same store through one that counts requests."""
    return Store.open(store.uri, endpoint_url=counting.url)


def put_version(store: Store, model: str, step: int) -> None:
    manifest = make_manifest(model, step)
    store.put(f"{manifest.name}/model.safetensors", b"weights")
    store.put(f"{manifest.name}/{MANIFEST}", to_json(manifest))


def read_all(catalogue: Catalogue, *models: str) -> dict[str, list[int | None]]:
    """List and read; the steps of each model's versions."""
    catalogue.list(models)
    for model in models:
        while not catalogue.read(model, 2):
            pass
    return {model: [listed.producer.step for listed in catalogue.versions(model)] for model in models}


def listings(counting: PickyStore) -> int:
    return sum("list-type=2" in request for request in counting.requests)


def manifests(counting: PickyStore) -> int:
    return sum(request.startswith("GET") and MANIFEST in request.partition("?")[0] for request in counting.requests)


def test_many_models_are_one_listing_and_each_manifest_is_read_once(counted: Store, counting: PickyStore) -> None:
    for model in MODELS:
        put_version(counted, model, 2)
        put_version(counted, model, 1)
    counted.put(".tunegate/votes/a", b"no version")
    catalogue = counted.catalogue()
    counting.requests.clear()
    assert read_all(catalogue, *MODELS) == {model: [1, 2] for model in MODELS}
    assert (listings(counting), manifests(counting)) == (1, 12)
    put_version(counted, MODELS[0], 3)
    counting.requests.clear()
    assert read_all(catalogue, *MODELS)[MODELS[0]] == [1, 2, 3]
    assert (listings(counting), manifests(counting)) == (1, 1)


def test_one_model_is_listed_alone(counted: Store, counting: PickyStore) -> None:
    for model in MODELS:
        put_version(counted, model, 1)
    counting.requests.clear()
    assert read_all(counted.catalogue(), MODELS[2]) == {MODELS[2]: [1]}
    assert manifests(counting) == 1


def test_a_store_that_holds_much_besides_is_listed_model_by_model(store: Store, counting: PickyStore) -> None:
    for model in MODELS:
        put_version(store, model, 1)
    counted = Store.open(store.uri, endpoint_url=counting.url)
    catalogue = counted.catalogue()
    catalogue._bucket.client.meta.events.register(  # a page is one object, as if there were thousands
        "provide-client-params.s3.ListObjectsV2", lambda params, **rest: {**params, "MaxKeys": 1}
    )
    counting.requests.clear()
    assert read_all(catalogue, *MODELS[:3]) == {model: [1] for model in MODELS[:3]}
    whole = listings(counting)
    counting.requests.clear()
    read_all(catalogue, *MODELS[:3])
    assert listings(counting) < whole, "the whole store is not tried again for so few models"


def test_what_is_gone_is_forgotten_and_what_is_damaged_hides_no_other(store: Store) -> None:
    catalogue = store.catalogue()
    for step in (1, 2):
        put_version(store, "shop", step)
    store.put(f"shop/run/checkpoint-3/{MANIFEST}", b"{")
    assert read_all(catalogue, "shop") == {"shop": [1, 2]}
    (damaged,) = catalogue.damaged("shop")
    assert "checkpoint-3" in str(damaged)
    store.delete(f"shop/run/checkpoint-3/{MANIFEST}")
    store.delete(f"shop/run/checkpoint-1/{MANIFEST}")
    assert read_all(catalogue, "shop") == {"shop": [2]}
    assert catalogue.damaged("shop") == []
    catalogue.keep([])
    assert catalogue.versions("shop") == []


def test_files_of_manifests_are_not_kept(store: Store) -> None:
    put_version(store, "shop", 1)
    catalogue = store.catalogue()
    read_all(catalogue, "shop")
    (known,) = catalogue._known["shop"].values()
    assert not hasattr(known, "files")
    assert store.manifest("shop/run/checkpoint-1").files, "the store itself has them"
