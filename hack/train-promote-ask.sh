#!/usr/bin/env bash
# Takes pipelines/ through the loop: a base model, a policy, a training run, its promotion, and an answer through the
# gateway. Nobody judges answers here, so the policy asks for no verdicts and takes one step.
set -euo pipefail
cd "$(dirname "$0")/.."
kube() { kubectl --namespace shop "$@"; }

kube apply -f pipelines/05-base-model.yaml
kube wait --for=condition=Complete job/base-model --timeout=20m
kube patch --local -f pipelines/20-policy.yaml --type merge -o yaml \
    -p '{"spec": {"steps": [{"weight": 100}], "bakingSeconds": 10}}' | kubectl apply -f -
kube wait --for=condition=Ready promotionpolicy/shop --timeout=30m
kube apply -f pipelines/10-train-lora.yaml
echo "training; the promotion begins with the last checkpoint"
until [ -n "$(kube get promotions -o name)" ]; do
    sleep 5
done
kube wait promotions --all --for=condition=Ready --timeout=2h
kube get promotions

host=$(kube get promotionpolicy shop -o jsonpath='{.spec.traffic.hostnames[0]}')
read -r where service < <(kubectl get services --all-namespaces \
    --selector gateway.envoyproxy.io/owning-gateway-name=public \
    -o jsonpath='{.items[0].metadata.namespace} {.items[0].metadata.name}{"\n"}')
kubectl --namespace "$where" port-forward "service/$service" 8088:80 >/dev/null &
trap 'kill %1' EXIT
curl --fail --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 \
    --header "Host: $host" --header 'Content-Type: application/json' \
    --data '{"model": "shop", "messages": [{"role": "user", "content": "Which shoes do you have for rain?"}]}' \
    http://127.0.0.1:8088/v1/chat/completions
echo
