#!/usr/bin/env bash
# Write the requirement files of the images again: every package at the version in constraints.txt, with its hashes.
# Needs uv and PyPI. Says nothing when nothing changed; look at what changed with git diff.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
  local to=$1
  shift
  uv pip compile --quiet --no-config --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command images/freeze.sh --output-file "images/$to" "$@"
}

freeze() {
  compile "$@" --constraints constraints.txt --excludes <(printf '%s\n' tunegate torch)
}

freeze build.txt images/build.in
freeze storage-initializer/requirements.txt pyproject.toml
freeze operator/requirements.txt pyproject.toml operators/promotion/pyproject.toml
serve=(--extra serve --extra prompts --extra knowledge)
# It serves, too: a release with prompts or knowledge is evaluated as it is served.
freeze trainer/requirements.txt pyproject.toml --extra train --extra evaluate --extra experience "${serve[@]}" \
  images/torch.in images/trainer/more.in
freeze predictor/requirements.txt pyproject.toml "${serve[@]}" images/torch.in
# vLLM brings its own torch, and an older transformers than ours; it gets an environment of its own.
compile predictor/vllm.txt images/predictor/vllm.in
