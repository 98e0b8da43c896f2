#!/usr/bin/env bash
# Installs KServe without cert-manager: install-kserve.sh KSERVE.YAML SELF-SIGNED-CA.SH
set -euo pipefail
manifests=$1
certificates=$2

# Everything but cert-manager's kinds, which this cluster does not know.
install() {
    awk 'BEGIN { RS = "\n---\n"; ORS = "\n---\n" } !/(^|\n)apiVersion: cert-manager\.io\//' "$manifests" |
        kubectl apply --server-side --force-conflicts -f -
}

# The first time, the objects of kinds that the same file brings are refused.
install || { sleep 5 && install; }
# Applying put the webhooks' certificates back to nothing.
bash "$certificates"
# Versions are reached through a route of their own, so KServe makes none.
kubectl --namespace kserve get configmap inferenceservice-config -o json |
    python3 -c '
import json, sys
config = json.load(sys.stdin)
ingress = json.loads(config["data"]["ingress"]) | {"disableIngressCreation": True}
json.dump({"data": {"ingress": json.dumps(ingress)}}, sys.stdout)' |
    kubectl --namespace kserve patch configmap inferenceservice-config --type merge --patch-file /dev/stdin
kubectl --namespace kserve rollout restart deployment kserve-controller-manager
kubectl --namespace kserve rollout status deployment kserve-controller-manager
