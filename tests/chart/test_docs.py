"""The commands of the installation guides are run as they stand, against a real API server, in their order."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, find_assets
from tests.chart.rendering import REPOSITORY, need_helm, read_yaml

DOCS = REPOSITORY / "docs"
GUIDES = ("install.md", "install-kind.md", "air-gapped.md", "upgrade.md")


def _blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / guide).read_text(), re.MULTILINE | re.DOTALL)


def _commands(guide: str) -> list[str]:
    lines = [line for block in _blocks(guide, "console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


@pytest.fixture(scope="module")
def shell(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A shell in the repository whose kubectl and helm speak to a cluster without tunegate."""
    need_helm()
    folder = tmp_path_factory.mktemp("bin")
    assets = find_assets()
    assert assets is not None
    (folder / "kubectl").symlink_to(assets / "kubectl")
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig)}


def _run(command: str, environment: dict[str, str], folder: Path = REPOSITORY) -> str:
    words = ["bash", "-ec", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def test_the_guide_installs_and_uninstalls(shell: dict[str, str], tmp_path: Path) -> None:
    (policy,) = _blocks("install.md", "yaml")
    (tmp_path / "policy.yaml").write_text(policy)
    *commands, last = _commands("install.md")
    assert last.startswith("helm uninstall")
    for command in commands:
        said = _run(command.replace("policy.yaml", str(tmp_path / "policy.yaml")), shell)
        if command.startswith("helm template"):
            assert read_yaml(said)
        if command.startswith("kubectl get"):
            assert "promotionpolicy.tunegate.io/shop" in said
    for command in _commands("upgrade.md"):
        _run(command, shell)
    _run(last, shell)
    assert "promotionpolicy.tunegate.io/shop" in _run(
        "kubectl get promotionpolicies --namespace shop --output name", shell
    )


def test_the_air_gapped_rendering_names_no_other_registry(shell: dict[str, str]) -> None:
    (command,) = _commands("air-gapped.md")
    images = re.findall(r'image: "(\S+)"|value: "(\S+:[\w.]+)"$', _run(command, shell), re.MULTILINE)
    found = {image for pair in images for image in pair if image}
    assert len(found) == 4
    assert all(image.startswith("mirror.example:5000/tunegate-mirror/tunegate/") for image in found)


def test_the_mirror_takes_every_image_of_the_list(tmp_path: Path) -> None:
    """The two loops, with a docker that notes what it is asked for."""
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@" >> "$LOG"\necho image\n')
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "images").symlink_to(REPOSITORY / "images")
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    for block in _blocks("air-gapped.md", "bash"):
        _run(block, environment, tmp_path)
    lines = (REPOSITORY / "images/images.txt").read_text().splitlines()
    images = [line for line in lines if line and not line.startswith("#")]
    said = log.read_text().splitlines()
    assert [line for line in said if line.startswith("save")] == [f"save {image}" for image in images]
    assert len([line for line in said if line.startswith("load")]) == len(images)
    pushed = [
        line.removeprefix("push mirror.example:5000/tunegate-mirror/") for line in said if line.startswith("push")
    ]
    assert pushed == images


def test_the_list_has_what_the_training_operator_puts_before_workers() -> None:
    text = (DOCS / "air-gapped.md").read_text()
    image = "alpine:3.10"  # config.go of training operator 1.9
    assert image in (REPOSITORY / "images/images.txt").read_text().splitlines()
    assert f"--pytorch-init-container-image=mirror.example:5000/tunegate-mirror/{image}" in text


@pytest.mark.parametrize("guide", GUIDES)
def test_every_link_leads_somewhere(guide: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (DOCS / guide).read_text()):
        assert (DOCS / target).exists(), target


@pytest.mark.parametrize("guide", GUIDES)
def test_every_value_that_is_named_exists(guide: str) -> None:
    readme = (REPOSITORY / "charts/tunegate/README.md").read_text()
    text = (DOCS / guide).read_text()
    groups = "rbac|store|feedback|operator|evaluation|traffic|storage|monitoring|networkPolicy|image|crds|approvals"
    named = set(re.findall(rf"(?:`|--set )((?:{groups})\.[A-Za-z.]+)", text))
    assert [name for name in named if f"`{name}`" not in readme] == []


def test_every_reason_of_the_operator_has_its_entry() -> None:
    sources = (REPOSITORY / "operators/promotion/src/tunegate_operator").glob("*.py")
    named = {word for path in sources for word in re.findall(r'Problem\("\w+", "(\w+)"', path.read_text())}
    entries = re.findall(r"^### (\w+)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(named) > 5
    assert named - {"Waiting"} <= set(entries)
    assert len(entries) == len(set(entries))
