#!/bin/bash
# Shutdown script of a TPU VM: signals the agent, which makes the trainer save, and waits for it.
# A start-up script that has no agent yet is signalled too, so that it leaves its record.
set -u

home=${LLM_JAX_HOME:-/opt/llm-jax}
metadata_host=${GCE_METADATA_HOST:-metadata.google.internal}
grace='' # until the metadata server says it

ask_for_grace() { # The job's grace_seconds; asked for again each second until it is there.
  local answer
  answer=$(curl --silent --fail --noproxy '*' --max-time 2 --header 'Metadata-Flavor: Google' \
    "http://${metadata_host}/computeMetadata/v1/instance/attributes/llm-jax-grace") || return
  [[ $answer =~ ^[1-9][0-9]{0,5}$ ]] && grace=$answer
}

for file in agent.pid startup.pid; do
  [ -e "$home/$file" ] && process=$(cat "$home/$file") && kill -TERM "$process" && break
  process=''
done
[ -n "$process" ] || exit 0
SECONDS=0
while kill -0 "$process" 2> /dev/null && [ "$SECONDS" -lt "${grace:-120}" ]; do
  [ -n "$grace" ] || ask_for_grace
  sleep 1
done
