"""The Tiltfile, run with a stand-in for Tilt that notes what it is asked for: everything it names is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.chart.rendering import REPOSITORY, Object, need_helm, read_yaml

VENDORED = ("gateway.yaml", "prometheus.yaml", "training.yaml", "kserve.yaml", "self-signed-ca.sh")
NOTED = (
    "allow_k8s_contexts",
    "docker_build",
    "k8s_kind",
    "k8s_resource",
    "k8s_yaml",
    "local_resource",
    "watch_file",
)


class Tilt:
    """What a Tiltfile may call: each call is noted under its name, as positional and named arguments."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._settings = dict(settings)
        self._config = SimpleNamespace(define_string=self._note("define_string"), parse=lambda: self._settings)

    def run(self) -> None:
        known = {
            "os": SimpleNamespace(path=os.path),
            "config": self._config,
            "local": self._local,
            "blob": str,
            "fail": self._fail,
            "TRIGGER_MODE_MANUAL": "manual",
        }
        noted = {name: self._note(name) for name in NOTED}
        exec(compile((REPOSITORY / "Tiltfile").read_text(), "Tiltfile", "exec"), known | noted)  # noqa: S102

    def named(self, name: str) -> dict[str, dict[str, Any]]:
        """The noted calls by their first argument."""
        calls = self.calls[name]
        return {(words[0] if words else options["new_name"]): options for words, options in calls}

    def objects(self) -> list[Object]:
        return [each for (text,), _ in self.calls["k8s_yaml"] for each in read_yaml(text)]

    def _note(self, name: str) -> Any:
        return lambda *words, **options: self.calls.setdefault(name, []).append((words, options))

    def _local(self, command: str, quiet: bool = False) -> str:
        return subprocess.run(shlex.split(command), capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout

    def _fail(self, message: str) -> None:
        raise SystemExit(message)


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    for name in VENDORED:
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def tilt(vendor: Path, monkeypatch: pytest.MonkeyPatch) -> Tilt:
    need_helm()
    monkeypatch.chdir(REPOSITORY)
    tilt = Tilt({"vendor": str(vendor)})
    tilt.run()
    return tilt


def test_every_resource_names_objects_of_the_chart(tilt: Tilt) -> None:
    objects = {f"{each['metadata']['name']}:{each['kind'].lower()}" for each in tilt.objects()}
    workloads = {name.partition(":")[0] for name in objects if name.endswith((":deployment", ":statefulset"))}
    for name, options in tilt.named("k8s_resource").items():
        if "new_name" in options:
            assert set(options["objects"]) <= objects
        else:
            assert name in workloads
    assert workloads <= set(tilt.named("k8s_resource"))


def test_every_dependency_is_a_resource(tilt: Tilt) -> None:
    resources = {**tilt.named("k8s_resource"), **tilt.named("local_resource")}
    for options in resources.values():
        # Tilt's own name for the objects that nobody asked to see apart.
        assert set(options.get("resource_deps", [])) <= {*resources, "uncategorized"}
        assert options["labels"]


def test_every_image_is_a_target_of_the_dockerfile_and_used_by_the_chart(tilt: Tilt) -> None:
    text = yaml.safe_dump(tilt.objects())
    built = tilt.named("docker_build")
    assert set(built) == {f"tunegate/{name}" for name in ("operator", "predictor", "storage-initializer", "trainer")}
    for name, options in built.items():
        dockerfile = (REPOSITORY / options["dockerfile"]).read_text()
        assert re.search(rf"^FROM \S+ AS {options['target']}$", dockerfile, re.MULTILINE), name
        assert re.search(rf"(image|value): {name}:", text), name
        for argument in options.get("build_args", {}):
            assert re.search(rf"^ARG {argument}\b", dockerfile, re.MULTILINE), argument


def test_tilt_is_told_where_kserves_objects_name_their_images(tilt: Tilt) -> None:
    paths = {kind: options["image_json_path"] for kind, options in tilt.named("k8s_kind").items()}
    found = {each["kind"]: each["spec"] for each in tilt.objects() if each["kind"] in paths}
    assert paths == {
        "ClusterServingRuntime": "{.spec.containers[*].image}",
        "ClusterStorageContainer": "{.spec.container.image}",
    }
    assert found["ClusterServingRuntime"]["containers"][0]["image"].startswith("tunegate/")
    assert found["ClusterStorageContainer"]["container"]["image"].startswith("tunegate/")


def test_only_the_kind_cluster_is_touched(tilt: Tilt) -> None:
    name = yaml.safe_load((REPOSITORY / "kind.yaml").read_text())["name"]
    assert tilt.calls["allow_k8s_contexts"] == [((f"kind-{name}",), {})]


def test_every_file_that_is_watched_or_run_is_there(tilt: Tilt) -> None:
    for options in tilt.named("local_resource").values():
        program = options["cmd"].split()[0]
        assert shutil.which(program) or os.access(REPOSITORY / program, os.X_OK) or program == "kubectl"
        assert all(Path(REPOSITORY / path).exists() for path in options.get("deps", []))
    assert all((REPOSITORY / words[0]).exists() for words, _ in tilt.calls["watch_file"])


@pytest.mark.parametrize("name", VENDORED)
def test_a_missing_manifest_is_named_before_anything_happens(
    name: str, vendor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    (vendor / name).unlink()
    with pytest.raises(SystemExit, match=f"{name} is missing; hack/vendor/README.md says where it comes from"):
        Tilt({"vendor": str(vendor)}).run()
    assert f"`{name}`" in (REPOSITORY / "hack/vendor/README.md").read_text()


def test_the_development_cluster_has_what_the_chart_expects(tilt: Tilt) -> None:
    extra = {
        (each["kind"], each["metadata"]["name"])
        for each in read_yaml((REPOSITORY / "hack/dev-cluster.yaml").read_text())
    }
    assert ("Secret", "tunegate-feedback") in extra
    (policy,) = read_yaml((REPOSITORY / "pipelines/20-policy.yaml").read_text())
    assert ("Gateway", policy["spec"]["traffic"]["gateway"]["name"]) in extra
    # Made by the chart, it would change with every reading of the Tiltfile.
    assert ("Secret", "tunegate-feedback") not in {(each["kind"], each["metadata"]["name"]) for each in tilt.objects()}


@pytest.mark.skipif(shutil.which("awk") is None, reason="needs `awk`")
def test_kserve_is_installed_without_the_kinds_of_cert_manager(tmp_path: Path) -> None:
    documents = [
        "kind: One\napiVersion: v1",
        "apiVersion: cert-manager.io/v1\nkind: Issuer",
        "apiVersion: v1\nkind: Two",
    ]
    (tmp_path / "kserve.yaml").write_text("\n---\n".join(documents) + "\n")
    (tmp_path / "ca.sh").write_text('echo certificates >> "$LOG"\n')
    config = '{"data": {"ingress": "{\\"ingressDomain\\": \\"example.com\\"}"}}'
    stand_in = f"""#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
*"get configmap"*) echo '{config}' ;;
*apply*) cat >> "$LOG.applied"; test -e "$LOG.tried" || {{ touch "$LOG.tried"; exit 1; }} ;;
*patch*) cat >> "$LOG.patched" ;;
esac
"""
    (tmp_path / "kubectl").write_text(stand_in)
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    words = [str(REPOSITORY / "hack/install-kserve.sh"), str(tmp_path / "kserve.yaml"), str(tmp_path / "ca.sh")]
    subprocess.run(words, check=True, env=environment, capture_output=True)
    applied = [each["kind"] for each in read_yaml((tmp_path / "log.applied").read_text())]
    assert applied == ["One", "Two", "One", "Two"]  # the first time was refused
    assert "disableIngressCreation" in (tmp_path / "log.patched").read_text()
    said = log.read_text().splitlines()
    assert said.index("certificates") < said.index(
        "--namespace kserve rollout restart deployment kserve-controller-manager"
    )


def test_the_button_applies_pipelines_that_are_there_and_asks_the_model(tmp_path: Path) -> None:
    """With a kubectl and a curl that note what they are asked for."""
    script = REPOSITORY / "hack/train-promote-ask.sh"
    pipelines = re.findall(r"pipelines/\S+\.yaml", script.read_text())
    assert len(pipelines) == 3
    assert all((REPOSITORY / path).exists() for path in pipelines)
    answers = 'case "$*" in *"get promotions -o name"*) echo promotion/one ;; *services*) echo system envoy ;; esac'
    for program in ("kubectl", "curl"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho "{program} $*" >> "$LOG"\n{answers}\n')
        (tmp_path / program).chmod(0o755)
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    subprocess.run([str(script)], check=True, env=environment, capture_output=True, timeout=60)
    said = log.read_text().splitlines()
    applied = [re.search(r"pipelines/\S+", line) for line in said]
    assert [found.group() for found in applied if found] == pipelines
    (asked,) = [line for line in said if line.startswith("curl ")]
    assert asked.endswith("/v1/chat/completions")
