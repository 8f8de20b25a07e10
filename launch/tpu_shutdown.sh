#!/bin/bash
# Shutdown script of a TPU VM: signals the agent, which makes the trainer save, and waits for it.
set -u

home=${LLM_JAX_HOME:-/opt/llm-jax}
metadata_host=${GCE_METADATA_HOST:-metadata.google.internal}
grace=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
  "http://${metadata_host}/computeMetadata/v1/instance/attributes/llm-jax-grace") || grace=120

[ -e "$home/agent.pid" ] || exit 0
agent=$(cat "$home/agent.pid")
kill -TERM "$agent" || exit 0
for ((second = 0; second < grace; second++)); do
  kill -0 "$agent" 2> /dev/null || break
  sleep 1
done
