"""The Tiltfile, evaluated by Tilt's own rules; what it runs, with the programs it calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.apiserver import ApiServer, new_api_server
from tests.chart.rendering import REPOSITORY, Object, need_helm, read_yaml
from tests.chart.tilt import TAG, Tilt, TiltError

VENDORED = ("gateway.yaml", "prometheus.yaml", "training.yaml", "kserve.yaml", "self-signed-ca.sh")
TILTFILE = REPOSITORY / "Tiltfile"
CORES = 4  # of the node that docs/install-kind.md asks for
OTHERS = 1.5  # requested there by Kubernetes itself, KServe, the gateway, the training operator and Prometheus


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    for name in VENDORED:
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def tilt(vendor: Path, monkeypatch: pytest.MonkeyPatch) -> Tilt:
    need_helm()
    monkeypatch.chdir(REPOSITORY)
    return Tilt({"vendor": str(vendor)}).run(TILTFILE)


def test_what_others_wait_for_gets_ready(tilt: Tilt) -> None:
    awaited = {name for resource in tilt.resources.values() for name in resource.deps} - {"uncategorized"}
    assert awaited
    assert {name for name in awaited if not tilt.resources[name].gets_ready} == set()
    assert all(resource.options["labels"] for resource in tilt.resources.values())


def test_nothing_that_needs_a_kind_of_prometheus_is_applied_without_waiting_for_it(tilt: Tilt) -> None:
    assert {obj["kind"] for obj in tilt.uncategorized if obj["apiVersion"].startswith("monitoring.coreos.com")} == set()
    assert tilt.resources["monitoring"].deps == ["prometheus"]


def test_a_change_of_a_source_file_leaves_the_store_alone(tilt: Tilt) -> None:
    assert tilt.resources["tunegate-storage"].options["trigger_mode"] == "manual"


def test_an_object_of_a_kind_with_an_image_is_no_other_resources_object(vendor: Path, tmp_path: Path) -> None:
    """What the check is for: Tilt takes such an object for a workload, and ends."""
    need_helm()
    grouped = "k8s_resource(new_name='serving', objects=['tunegate:clusterstoragecontainer'])\n"
    changed = TILTFILE.read_text().replace("# --- the loop", grouped + "# --- the loop")
    (tmp_path / "Tiltfile").write_text(changed)
    with pytest.raises(TiltError, match="No object identified by the fragment 'tunegate:clusterstoragecontainer'"):
        Tilt({"vendor": str(vendor)}).run(tmp_path / "Tiltfile")


def test_every_image_is_a_target_of_the_dockerfile_and_used_by_the_chart(tilt: Tilt) -> None:
    text = yaml.safe_dump(tilt.applied())
    built = tilt.named("docker_build")
    assert set(built) == {f"tunegate/{name}" for name in ("operator", "predictor", "storage-initializer", "trainer")}
    for name, options in built.items():
        dockerfile = (REPOSITORY / options["dockerfile"]).read_text()
        assert re.search(rf"^FROM \S+ AS {options['target']}$", dockerfile, re.MULTILINE), name
        assert re.search(rf"(image|value): {name}:{TAG}$", text, re.MULTILINE), name
        assert not re.search(rf"(image|value): {name}:(?!{TAG})", text), name
        for argument in options.get("build_args", {}):
            assert re.search(rf"^ARG {argument}\b", dockerfile, re.MULTILINE), argument


def test_only_the_kind_cluster_is_touched(vendor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tilt itself would take any local cluster."""
    monkeypatch.chdir(REPOSITORY)
    name = yaml.safe_load((REPOSITORY / "kind.yaml").read_text())["name"]
    assert f"'kind-{name}'" in TILTFILE.read_text()
    for context in ("kind-other", "minikube", "production"):
        with pytest.raises(
            TiltError, match=f"the current context is {context}; .*kubectl config use-context kind-{name}"
        ):
            Tilt({"vendor": str(vendor)}, context).run(TILTFILE)


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
    with pytest.raises(TiltError, match=f"{name} is missing; hack/vendor/README.md says where it comes from"):
        Tilt({"vendor": str(vendor)}).run(TILTFILE)
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
    assert ("Secret", "tunegate-feedback") not in {(each["kind"], each["metadata"]["name"]) for each in tilt.applied()}


RELEASE = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: clusterstoragecontainers.kserve.test}
spec:
  group: kserve.test
  names: {kind: ClusterStorageContainer, plural: clusterstoragecontainers}
  scope: Cluster
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
---
apiVersion: v1
data:
  ingress: '{"ingressDomain": "example.com", "disableIngressCreation": false}'
kind: ConfigMap
metadata:
  name: inferenceservice-config
  namespace: kserve
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: kserve-controller-manager
  namespace: kserve
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: manager, image: kserve}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: llmisvc-controller-manager
  namespace: kserve
spec:
  selector: {matchLabels: {a: c}}
  template: {metadata: {labels: {a: c}}, spec: {containers: [{name: manager, image: llmisvc}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: kserve-localmodelnode-agent
  namespace: kserve
spec:
  selector: {matchLabels: {a: d}}
  template: {metadata: {labels: {a: d}}, spec: {containers: [{name: manager, image: localmodel}]}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: serving-cert
  namespace: kserve
---
apiVersion: kserve.test/v1
kind: ClusterStorageContainer
metadata:
  name: default
"""
WEBHOOK = """---
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}
metadata:
  name: {name}.serving.kserve.io
webhooks:
  - name: {name}.kserve.test
    clientConfig: {{service: {{name: {service}-webhook-server-service, namespace: kserve}}}}
    sideEffects: None
    admissionReviewVersions: [v1]
"""
RELEASE += "".join(
    WEBHOOK.format(kind=f"{kind}WebhookConfiguration", name=name, service=service)
    for kind, name, service in (
        ("Mutating", "inferenceservice", "kserve"),
        ("Validating", "inferencegraph", "kserve"),
        ("Validating", "llminferenceservice", "llmisvc"),
    )
)
# As KServe's script: it ends at the first webhook that it does not find, or when no pod of the controller is there.
CERTIFICATES = """
set -o errexit -o pipefail
names=""
while [ $# -gt 0 ]; do names="$names $2"; shift 2; done
openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=kserve -keyout "$0.key" -out "$0.crt" 2>/dev/null
kubectl create secret generic kserve-webhook-server-cert --from-file=tls.key="$0.key" --from-file=tls.crt="$0.crt" \
    --dry-run=client -o yaml | kubectl -n kserve apply -f -
pod=$(kubectl get pods -n kserve | grep kserve-controller-manager | awk '{print $1;}')
patch() { kubectl patch $1 $2 --type=json -p="[{\\"op\\": \\"replace\\",
    \\"path\\": \\"/webhooks/0/clientConfig/caBundle\\", \\"value\\": \\"$(openssl enc -a -A < "$0.crt")\\"}]"; }
patch mutatingwebhookconfiguration inferenceservice.serving.kserve.io
for name in ${names:-inferencegraph.serving.kserve.io localmodelcache.serving.kserve.io}; do
    patch validatingwebhookconfiguration $name
done
echo $names >> "$0.ran"
"""


@pytest.fixture(scope="module")
def empty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with new_api_server(tmp_path_factory.mktemp("kserve-api"), []) as server:
        yield server


@pytest.mark.skipif(not (shutil.which("awk") and shutil.which("openssl")), reason="needs `awk` and `openssl`")
def test_kserve_is_installed_into_an_empty_cluster(empty_cluster: ApiServer, tmp_path: Path) -> None:
    """A release's manifest as its parts are, on a real API server; only the rollout needs controllers."""
    (tmp_path / "kserve.yaml").write_text(RELEASE.strip() + "\n")
    (tmp_path / "ca.sh").write_text(CERTIFICATES)
    kubectl = shutil.which("kubectl")
    spec = {"containers": [{"name": "manager", "image": "kserve"}]}
    made = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve-controller-manager-1"}, "spec": spec},
    ]
    pod = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    stand_in = f"""#!/bin/sh
case "$*" in
*"rollout"*) ;;
*"get pods -o name"*)  # what controllers of Kubernetes make
    echo '{pod}' | {kubectl} -n kserve apply -f - >/dev/null; exec {kubectl} "$@" ;;
*) exec {kubectl} "$@" ;;
esac
"""
    _program(tmp_path / "kubectl", stand_in)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(empty_cluster.kubeconfig)}
    words = [str(REPOSITORY / "hack/install-kserve.sh"), str(tmp_path / "kserve.yaml"), str(tmp_path / "ca.sh")]
    for _ in range(2):
        done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "The certificate of KServe's webhooks: notAfter=" in done.stdout
    ran = (tmp_path / "ca.sh.ran").read_text().splitlines()
    assert ran == ["inferencegraph.serving.kserve.io"], "once, and only for the webhooks of what is installed"

    def names(kind: str) -> list[str]:
        done = empty_cluster.kubectl("-n", "kserve", "get", kind, "-o", "jsonpath={.items[*].metadata.name}")
        return done.stdout.split()

    assert names("deployments") == ["kserve-controller-manager"]
    assert names("daemonsets") == []
    assert names("clusterstoragecontainers.kserve.test") == ["default"]
    assert names("validatingwebhookconfigurations") == ["inferencegraph.serving.kserve.io"]
    get = ("-n", "kserve", "get", "configmap", "inferenceservice-config", "-o", "jsonpath={.data.ingress}")
    assert json.loads(empty_cluster.kubectl(*get).stdout) == {
        "ingressDomain": "example.com",
        "disableIngressCreation": True,
        "disableIstioVirtualHost": True,
    }


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_loop_fits_a_node_of_four_cores(tilt: Tilt) -> None:
    """A base and a candidate serve, all suites of two checkpoints are measured, and a run trains, all at once."""

    def cpus(pod: Object) -> float:
        texts = [container["resources"]["requests"]["cpu"] for container in pod["containers"]]
        return sum(float(text[:-1]) / 1000 if text.endswith("m") else float(text) for text in texts)

    (policy,) = read_yaml((REPOSITORY / "pipelines/20-policy.yaml").read_text())
    (job,) = read_yaml((REPOSITORY / "pipelines/10-train.yaml").read_text())
    spec = policy["spec"]
    training = cpus(job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"])
    serving, evaluation = (cpus({"containers": [spec[part]]}) for part in ("serving", "evaluation"))
    chart = sum(
        cpus(obj["spec"]["template"]["spec"]) for obj in tilt.applied() if obj["kind"] in ("Deployment", "StatefulSet")
    )
    asked = chart + 2 * serving + 2 * len(spec["suites"]) * evaluation + training
    assert asked + OTHERS <= CORES
    assert f"{CORES} cores" in (REPOSITORY / "docs/install-kind.md").read_text()
    assert f"{CORES} cores" in (REPOSITORY / "pipelines/README.md").read_text()


BUILT = f"tunegate/trainer:{TAG}"
DIGEST = "sha256:" + "ab" * 32


def _press(
    tmp_path: Path, decision: str, answered: str = DIGEST, training: str = "", deadline: str = "60"
) -> tuple[int, str, list[str]]:
    """Run the button's script with programs that note what they are asked for; returns status, words and notes."""
    answers = f"""#!/bin/sh
echo "kubectl $*" >> "$LOG"
case "$*" in
*EVALUATION_IMAGE*) echo {BUILT} ;;
*"apply -f -"*) cat >> "$LOG.applied"; echo --- >> "$LOG.applied" ;;
*"get promotionpolicy"*) echo shop.example.com ;;
*"get services"*) echo system envoy ;;
*"get pytorchjob"*) printf '%s' '{training}' ;;
*"get promotions -o jsonpath"*) echo '{decision}' ;;
*port-forward*) exec sleep 60 ;;
esac
"""
    _program(tmp_path / "kubectl", answers)
    _program(
        tmp_path / "curl",
        f"""#!/bin/sh
echo "curl $*" >> "$LOG"
while [ $# -gt 0 ]; do [ "$1" = --dump-header ] && printf 'X-Tunegate-Version: {answered}\\r\\n' > "$2"; shift; done
echo '{{"choices": []}}'
""",
    )
    _program(tmp_path / "python3", '#!/bin/sh\necho "python3 $*" >> "$LOG"\nexec sleep 60\n')
    log = tmp_path / "log"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "PAUSE_SECONDS": "0"}
    environment["DEADLINE_SECONDS"] = deadline
    done = subprocess.run(
        [str(REPOSITORY / "hack/train-promote-ask.sh")], env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr, log.read_text().splitlines()


def test_the_button_applies_pipelines_with_the_images_of_the_cluster_and_asks_the_promoted_version(
    tmp_path: Path,
) -> None:
    status, words, log = _press(tmp_path, f"shop/run-1/checkpoint-120|{DIGEST}|Promoted|Baked|it is liked")
    assert status == 0, words
    applied = read_yaml((tmp_path / "log.applied").read_text())
    files = ("05-base-model", "20-policy", "10-train")
    shipped = [obj for name in files for obj in read_yaml((REPOSITORY / f"pipelines/{name}.yaml").read_text())]
    assert [json.dumps(obj).replace(BUILT, "tunegate/trainer:0.1.0") for obj in applied] == list(
        map(json.dumps, shipped)
    )
    assert "tunegate/trainer:0.1.0" not in json.dumps(applied)
    assert "python3 hack/play_users.py http://127.0.0.1:8088 shop.example.com" in log
    (asked,) = [line for line in log if line.startswith("curl ")]
    assert asked.endswith("/v1/chat/completions")


@pytest.mark.parametrize(
    ("decision", "changes", "words"),
    [
        pytest.param("Rejected|GateFailed|score is 0.00", {}, "Rejected, GateFailed: score is 0.00", id="rejected"),
        pytest.param("RolledBack|FeedbackWorse|5 of 5", {}, "RolledBack, FeedbackWorse: 5 of 5", id="rolled back"),
        pytest.param("Failed|CanaryNotReady|no pod", {}, "Failed, CanaryNotReady: no pod", id="failed"),
        pytest.param("Aborted|Aborted|enough", {}, "Aborted, Aborted: enough", id="aborted"),
        pytest.param("Superseded|NewerVersion|2 is newer", {}, "Superseded, NewerVersion: 2 is newer", id="superseded"),
        pytest.param("||", {"deadline": "0"}, "no decision in ", id="undecided"),
        pytest.param(
            "Promoted|Baked|liked", {"answered": "sha256:base"}, "and sha256:base answered", id="the base answers"
        ),
        pytest.param(
            "||", {"training": "it reached the limit"}, "training job failed: it reached", id="training failed"
        ),
    ],
)
def test_the_button_ends_with_an_error_and_the_words_of_any_other_outcome(
    tmp_path: Path, decision: str, changes: dict[str, str], words: str
) -> None:
    status, said, _ = _press(tmp_path, f"shop/run-1/checkpoint-120|{DIGEST}|{decision}", **changes)
    assert status == 1
    assert words in said
