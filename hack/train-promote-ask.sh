#!/usr/bin/env bash
# Applies pipelines/ in their order, waits until every promotion has ended, and asks the model through the gateway.
set -euo pipefail
cd "$(dirname "$0")/.."
namespace=tunegate

for pipeline in pipelines/[0-9]*.yaml; do
    kubectl --namespace "$namespace" apply -f "$pipeline"
done
until [ -n "$(kubectl --namespace "$namespace" get promotions -o name)" ]; do
    sleep 5
done
kubectl --namespace "$namespace" wait promotions --all --for=condition=Ready --timeout=2h
kubectl --namespace "$namespace" get promotions

policy=$(kubectl --namespace "$namespace" get promotionpolicies -o jsonpath='{.items[0].metadata.name}')
model=$(kubectl --namespace "$namespace" get promotionpolicy "$policy" -o jsonpath='{.spec.model}')
host=$(kubectl --namespace "$namespace" get promotionpolicy "$policy" -o jsonpath='{.spec.traffic.hostnames[0]}')
read -r where service < <(kubectl get services --all-namespaces \
    --selector gateway.envoyproxy.io/owning-gateway-name=tunegate \
    -o jsonpath='{.items[0].metadata.namespace} {.items[0].metadata.name}{"\n"}')
kubectl --namespace "$where" port-forward "service/$service" 8088:80 >/dev/null &
trap 'kill %1' EXIT
curl --fail --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 \
    --header "Host: ${host:-localhost}" --header 'Content-Type: application/json' \
    --data "{\"model\": \"$model\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello, what can you do for me?\"}]}" \
    http://127.0.0.1:8088/v1/chat/completions
echo
