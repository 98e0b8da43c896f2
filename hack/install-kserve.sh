#!/usr/bin/env bash
# Installs KServe without cert-manager: install-kserve.sh KSERVE.YAML SELF-SIGNED-CA.SH
# KSERVE.YAML is kserve-crds.yaml and kserve.yaml of a release. Its certificates last 365 days; run again, this renews
# them in their last 30, and then KServe refuses writes for some seconds.
set -euo pipefail
manifests=$1
certificates=$2

# Everything but cert-manager's kinds, which this cluster does not know, and the controllers of other kinds than
# InferenceService, whose pods would wait for certificates that only cert-manager makes.
install() {
    awk 'BEGIN { RS = "\n---\n"; ORS = "\n---\n" }
        /(^|\n)apiVersion: cert-manager\.io\// { next }
        !/(^|\n)kind: CustomResourceDefinition/ && /\n  name: [^\n]*(llmisvc|llminferenceservice|localmodel)/ { next }
        { print }' "$manifests" |
        kubectl apply --server-side --force-conflicts -f -
}
certificate() {
    kubectl --namespace kserve get secret kserve-webhook-server-cert -o 'jsonpath={.data.tls\.crt}' 2>/dev/null |
        openssl base64 -d -A | openssl x509 -noout "$@" 2>/dev/null
}
trusted() {
    [ -n "$(kubectl get mutatingwebhookconfiguration inferenceservice.serving.kserve.io \
        -o 'jsonpath={.webhooks[0].clientConfig.caBundle}')" ]
}

# A release's manifests leave the namespace to whoever installs them.
kubectl create namespace kserve --dry-run=client -o yaml | kubectl apply --server-side -f -
# The first time, the objects of kinds that the same file brings are refused.
install || { sleep 5 && install; }
if ! trusted || ! certificate -checkend $((30 * 24 * 3600)) >/dev/null; then
    # The script ends the controller's pod, which has to be there.
    until kubectl --namespace kserve get pods -o name | grep -q kserve-controller-manager; do sleep 1; done
    ours='@.webhooks[0].clientConfig.service.name=="kserve-webhook-server-service"'
    hooks=$(kubectl get validatingwebhookconfigurations -o "jsonpath={.items[?($ours)].metadata.name}")
    # shellcheck disable=SC2046,SC2086 # two words for each
    bash "$certificates" $(printf -- '--validatingWebhookName %s ' $hooks)
fi
# Versions are reached through a route of their own, so KServe makes none, and looks for no Istio that is not there.
kubectl --namespace kserve get configmap inferenceservice-config -o json |
    python3 -c '
import json, sys
config = json.load(sys.stdin)
ours = {"disableIngressCreation": True, "disableIstioVirtualHost": True}
ingress = json.loads(config["data"]["ingress"]) | ours
json.dump({"data": {"ingress": json.dumps(ingress)}}, sys.stdout)' |
    kubectl --namespace kserve patch configmap inferenceservice-config --type merge --patch-file /dev/stdin
kubectl --namespace kserve rollout restart deployment kserve-controller-manager
kubectl --namespace kserve rollout status deployment kserve-controller-manager
echo "The certificate of KServe's webhooks: $(certificate -enddate). From then on KServe refuses every write and every" \
    "pod of a server; run this again in its last 30 days."
