"""Versions side by side: what each cost to train, by its manifest, and what it is worth, by its evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tunegate.api.codec import Resource
from tunegate.api.errors import NotFoundError
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import Cost, Manifest, Training
from tunegate.evaluation.paired import Paired, compare_items
from tunegate.store import Store
from tunegate.store.evaluations import of_version


class Score(Resource, frozen=True, kw_only=True):
    """The first metric of a suite, which is its headline."""

    metric: str
    value: float | None = None
    stderr: float | None = None
    n: int


class Compared(Resource, frozen=True, kw_only=True):
    """One version: from its manifest, and from its evaluations by suite.

    base_bytes: of the model that an adapter is served on; None of a whole model, and where the store has none.
    """

    version: str
    digest: str
    method: str = ""
    trainable_parameters: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    loss: float | None = None
    bytes: int
    base_bytes: int | None = None
    scores: dict[str, Score] = {}


def compare(store: Store, names: Sequence[str]) -> tuple[list[Compared], set[str]]:
    """The named versions, each once, and the suites of which they were not all asked the same questions."""
    manifests = [store.manifest(name) for name in dict.fromkeys(names)]
    results = [of_version(store, manifest.digest) for manifest in manifests]
    digests = {(result.suite, result.suite_digest) for measured in results for result in measured}
    suites = [suite for suite, _ in digests]
    rows = [
        replace(compared(manifest, measured), base_bytes=_base_bytes(store, manifest))
        for manifest, measured in zip(manifests, results, strict=True)
    ]
    return rows, {suite for suite in suites if suites.count(suite) > 1}


def compare_by_item(store: Store, before: str, after: str) -> list[Paired]:
    """`after` against `before`, question by question, in each suite whose same questions both were asked."""
    first, second = (of_version(store, store.resolve(name).digest) for name in (before, after))
    asked = {(result.suite, result.suite_digest): result for result in first}
    pairs = [(asked[key], result) for result in second if (key := (result.suite, result.suite_digest)) in asked]
    return [found for pair in pairs if (found := compare_items(*pair))]


def compared(manifest: Manifest, results: Sequence[Evaluation]) -> Compared:
    """What is known of one version; its bytes are those that are served."""
    producer = manifest.producer
    training, derived = producer.training or Training(), producer.derived
    cost = training.cost or Cost()
    headlines = {result.suite: result.metrics[0] for result in results if result.metrics}
    return Compared(
        version=manifest.name,
        digest=manifest.digest,
        method=", ".join(filter(None, (training.method, derived.quantization if derived else ""))),
        trainable_parameters=cost.trainable_parameters,
        parameters=cost.parameters,
        seconds=cost.seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
        loss=producer.loss,
        bytes=_served(manifest),
        scores={
            suite: Score(metric=metric.name, value=metric.value, stderr=metric.stderr, n=metric.n)
            for suite, metric in headlines.items()
        },
    )


def _base_bytes(store: Store, manifest: Manifest) -> int | None:
    """Of all that lies beneath an adapter, which may be an adapter itself."""
    if manifest.format == "huggingface" or manifest.base is None:
        return None
    try:
        base = store.manifest(manifest.base.digest)
    except NotFoundError:
        return None
    return _served(base) + (_base_bytes(store, base) or 0)


def _served(manifest: Manifest) -> int:
    return sum(file.size for file in manifest.files if not file.path.startswith("resume/"))
