#!/usr/bin/env bash
# Takes pipelines/, applied as they are, through the loop: a base model, a policy, a training run, its promotion by the
# votes of users that hack/play_users.py plays, and an answer of the promoted version. Any other outcome is an error, with
# the decision's words. It takes about a quarter of an hour on a node of 4 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
kube() { kubectl --namespace shop "$@"; }
fail() { echo "train-promote-ask: $*" >&2; exit 1; }

# Images in the cluster may have other tags than in the files: Tilt knows those it built by its own.
image=$(kubectl --namespace tunegate get deployment tunegate-operator \
    -o jsonpath='{.spec.template.spec.containers[0].env[?(@.name=="EVALUATION_IMAGE")].value}')
[ -n "$image" ] || fail "the operator's Deployment names no EVALUATION_IMAGE; is the chart installed in namespace tunegate?"
apply() { sed "s|tunegate/trainer:[^ ]*|$image|" "$1" | kubectl apply -f -; }

apply pipelines/05-base-model.yaml
kube wait --for=condition=Complete job/base-model --timeout=20m
apply pipelines/20-policy.yaml
kube wait --for=condition=Ready promotionpolicy/shop --timeout=30m
apply pipelines/10-train.yaml

host=$(kube get promotionpolicy shop -o jsonpath='{.spec.traffic.hostnames[0]}')
read -r where service < <(kubectl get services --all-namespaces \
    --selector gateway.envoyproxy.io/owning-gateway-name=public \
    -o jsonpath='{.items[0].metadata.namespace} {.items[0].metadata.name}{"\n"}')
trap 'kill $(jobs -p)' EXIT
kubectl --namespace "$where" port-forward "service/$service" 8088:80 >/dev/null &
python3 hack/play_users.py http://127.0.0.1:8088 "$host" 2>/dev/null &

echo "training; the promotion begins with the last checkpoint, and users ask and vote"
decision() {
    kube get promotions -o jsonpath='{range .items[*]}{.status.candidate.name}{"|"}{.status.candidate.digest}{"|"}{.status.decision.outcome}{"|"}{.status.decision.reason}{"|"}{.status.decision.message}{"\n"}{end}' |
        grep '^shop/run-1/' || true
}
outcome=""
until [ -n "$outcome" ]; do
    [ "$SECONDS" -lt "${DEADLINE_SECONDS:-7200}" ] || fail "no decision in $SECONDS s; see: kubectl -n shop describe promotionpolicy shop"
    training=$(kube get pytorchjob run-1 -o jsonpath='{.status.conditions[?(@.type=="Failed")].message}')
    [ -z "$training" ] || fail "the training job failed: $training"
    sleep "${PAUSE_SECONDS:-5}"
    IFS='|' read -r candidate digest outcome reason message <<<"$(decision)"
done
kube get promotions
[ "$outcome" = Promoted ] || fail "$candidate was not promoted: $outcome, $reason: $message"

headers=$(mktemp)
answer=$(curl --fail --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 --dump-header "$headers" \
    --header "Host: $host" --header 'Content-Type: application/json' \
    --data '{"model": "shop", "messages": [{"role": "user", "content": "Which shoes do you have for rain?"}]}' \
    http://127.0.0.1:8088/v1/chat/completions)
answered=$(tr -d '\r' <"$headers" | awk 'tolower($1) == "x-tunegate-version:" { print $2 }')
rm -f "$headers"
[ "$answered" = "$digest" ] || fail "$candidate ($digest) was promoted, and ${answered:-somebody else} answered"
echo "$candidate was promoted, and answers:"
echo "$answer"
