"""A tiny model that has learned a few answers, and suites to ask it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.unit.evaluation.builders import LEARNED, SUBJECTS, SYSTEM, write_business, write_choice
from tunegate.evaluation import load_suite
from tunegate.evaluation.choice import ChoiceSuite
from tunegate.models import make_tiny


@pytest.fixture(scope="session")
def choice_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_choice(tmp_path_factory.mktemp("choice"), SUBJECTS)


@pytest.fixture(scope="session")
def business_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "id": f"q{number}",
            "intent": "test",
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
            "reference": answer,
            "rules": [{"kind": "exact"}, {"kind": "excludes", "any": ["never"]}],
        }
        for number, (question, answer) in enumerate(LEARNED.items())
    ]
    return write_business(tmp_path_factory.mktemp("business"), rows)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, choice_folder: Path) -> Path:
    """The folder of a tiny model trained until it gives LEARNED's answers and the letters of SUBJECTS."""
    folder = tmp_path_factory.mktemp("learned") / "model"
    suite = load_suite(choice_folder)
    assert isinstance(suite, ChoiceSuite)
    pairs = [(str(suite.prompt(subject, item)), item.answer) for subject in suite.subjects for item in subject.items]
    make_tiny(folder, [SYSTEM, *LEARNED, *LEARNED.values(), *(ask for ask, _ in pairs)] * 3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for question, answer in LEARNED.items():
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pairs.append((head, answer + "<|im_end|>"))
    _teach(folder, [(tokenizer(ask)["input_ids"], tokenizer(answer)["input_ids"]) for ask, answer in pairs])
    return folder


@pytest.fixture
def broken(learned: Path, tmp_path: Path) -> Path:
    """The same folder with finite weights of which no finite number comes."""
    folder = tmp_path / "broken"
    shutil.copytree(learned, folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        network.model.norm.weight[:] = 3e38
        network.get_output_embeddings().weight[:] *= 1e3
    network.save_pretrained(folder)
    return folder


def _teach(folder: Path, pairs: Sequence[tuple[list[int], list[int]]]) -> None:
    """Train on right-padded (question, answer) ids until every answer is the greedy one."""
    width = max(len(ask) + len(answer) for ask, answer in pairs)
    rows = [ask + answer + [0] * (width - len(ask + answer)) for ask, answer in pairs]
    labels = [[-100] * len(a) + b + [-100] * (width - len(a + b)) for a, b in pairs]
    ids, wanted = torch.tensor(rows), torch.tensor(labels)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(200):
        loss = network(input_ids=ids, labels=wanted).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.02:
            break
    network.save_pretrained(folder)
