"""A model that was trained, measured and promoted, in a real store, with its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.builders import at, make_evaluation, make_policy
from tests.chromium import browser  # noqa: F401 (a fixture)
from tunegate.api.digest import Digest
from tunegate.api.feedback import Tally
from tunegate.api.promotion import Approval, Comparison, Decision, GateResult, Promotion, PromotionStatus, StepVerdicts
from tunegate.api.promotion import Transition as At
from tunegate.api.records import Place
from tunegate.api.versions import BaseModel, Dataset, ModelVersion, Producer, Release, Training
from tunegate.promotion.analysis import compare
from tunegate.records.checking import Verification, verify
from tunegate.records.signing import Signer, new_key, read_key
from tunegate.records.writing import Unrecorded, write
from tunegate.store import Store
from tunegate.store.evaluations import save

POLICY = make_policy(approval="Manual")
PLACE = Place(policy="shop")


@dataclass
class Recorded:
    """served: what the server says that it serves."""

    store: Store
    signer: Signer
    base: ModelVersion
    promotion: Promotion
    served: str

    def verify(self) -> Verification:
        return verify(self.store, self.promotion, [self.signer.public_key], lambda: {"http://shop": self.served})

    def with_record(self, signer: Signer) -> Promotion:
        record = write(self.store, Unrecorded(self.promotion, POLICY, PLACE), signer)
        return with_status(self.promotion, record=record)

    def succeeded_by(self, run: str, folder: Path) -> Promotion:
        """A later promotion of the same model."""
        version = publish(self.store, folder, f"shop/{run}/checkpoint-10")
        return promoted(version, self.promotion.candidate, run, 10_000)


def with_status(promotion: Promotion, **changes: object) -> Promotion:
    return msgspec.structs.replace(promotion, status=msgspec.structs.replace(promotion.status, **changes))


def publish(store: Store, folder: Path, name: str, base: ModelVersion | None = None) -> ModelVersion:
    weights = folder / name
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(f"the weights of {name}".encode())
    reference = BaseModel(uri=base.uri, digest=base.digest) if base else None
    producer = Producer(
        kind="PyTorchJob",
        run=name.split("/")[1],
        uid="0f8fad5b-d9cb-469f-a165-70867728950e",
        arguments={"finetuning_type": "lora", "learning_rate": 0.0001},
        seed=7,
        datasets=(Dataset(name="shop-dialogues", digest=str(Digest.of_bytes(b"dialogues")), rows=1200),),
        step=10,
        loss=1.25,
        training=Training(method="lora"),
    )
    return store.publish(weights, name, release=Release(format="huggingface", base=reference), producer=producer)


def promoted(candidate: ModelVersion, stable: ModelVersion, run: str, began: float) -> Promotion:
    verdicts = {0: (Tally(up=30, down=3), Tally(up=200, down=45)), 1: (Tally(up=90, down=9), Tally(up=80, down=20))}
    seen: Comparison = compare(
        {step: ours for step, (ours, _) in verdicts.items()},
        {step: theirs for step, (_, theirs) in verdicts.items()},
        POLICY.feedback,
        [10, 50, 95],
    )
    gate = GateResult(
        suite="quality", metric="score", bound="min", threshold=0.5, passed=True, observed=0.9, n=100, message="fine"
    )
    assert seen.steps[0] == StepVerdicts(step=0, candidate=verdicts[0][0], stable=verdicts[0][1])
    phases = (
        ("Verifying", 0),
        ("Evaluating", 0),
        ("Paused", 10),
        ("Progressing", 10),
        ("Paused", 50),
        ("Succeeded", 100),
    )
    history = tuple(
        At(phase=phase, time=at(began + 60 * index), reason="Went", message=f"{weight} % of the traffic", weight=weight)  # type: ignore[arg-type]
        for index, (phase, weight) in enumerate(phases)
    )
    status = PromotionStatus(
        phase="Succeeded",
        stable=stable,
        weight=100,
        canary_started=at(began + 120),
        gates=(gate,),
        comparison=seen,
        decision=Decision(outcome="Promoted", reason="Baked", message=seen.message, time=at(began + 300)),
        history=history,
    )
    approval = Approval(verdict="Approved", actor="ada", message="reads well")
    return Promotion(name=f"shop-{run}", created=at(began), candidate=candidate, approval=approval, status=status)


@pytest.fixture
def signer() -> Signer:
    return read_key(new_key(), "a key")


@pytest.fixture
def recorded(store: Store, tmp_path: Path, signer: Signer) -> Recorded:
    base = publish(store, tmp_path, "base/base/checkpoint-0")
    candidate = publish(store, tmp_path, "shop/run-7/checkpoint-10", base)
    save(store, make_evaluation(candidate, score=0.9))
    made = Recorded(store, signer, base, promoted(candidate, base, "run-7", 0), candidate.digest)
    made.promotion = made.with_record(signer)
    return made
