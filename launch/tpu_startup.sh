#!/bin/bash
# Start-up script of a TPU VM: installs the code (or pulls an image) and runs the agent until the
# run ends. It reads all its settings from the VM's metadata. It has no secrets.
set -u

home=${LLM_JAX_HOME:-/opt/llm-jax}
mounts=${LLM_JAX_GCS_MOUNT:-/gcs}
metadata_host=${GCE_METADATA_HOST:-metadata.google.internal}

attribute() {
  curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://${metadata_host}/computeMetadata/v1/instance/attributes/$1"
}

say() { echo "llm-jax start-up: $*"; }

out=$(attribute llm-jax-out) || { say "no attribute llm-jax-out: not a VM of llm-jax"; exit 1; }
LLM_JAX_INCARNATION=$(attribute llm-jax-incarnation)
LLM_JAX_WORKER=$(attribute agent-worker-number)
# One line per variable, such as MEGASCALE_SLICE_ID: '1'. It is absent if there is only one slice.
LLM_JAX_SLICE=$(attribute tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: *'\{0,1\}\([0-9]*\).*/\1/p")
LLM_JAX_SLICE=${LLM_JAX_SLICE:-0}
export LLM_JAX_INCARNATION LLM_JAX_WORKER LLM_JAX_SLICE
image=$(attribute llm-jax-image) || image=

install_code() {
  mkdir -p "$home/code" || return
  gcloud storage cp "$out/launch/code.tar.gz" "$home/code.tar.gz" || return
  tar -xzf "$home/code.tar.gz" -C "$home/code" || return
  for python in python3.13 python3.12 python3.11; do
    if command -v "$python" > /dev/null && "$python" -m venv "$home/venv"; then
      "$home/venv/bin/python" -m pip install --quiet "$home/code[tpu,launch-gcp]"
      return
    fi
  done
  # The Python of the VM image is too old: uv installs a newer one.
  python3 -m pip install --quiet uv || return
  python3 -m uv venv --quiet --python 3.12 "$home/venv" || return
  python3 -m uv pip install --quiet --python "$home/venv/bin/python" "$home/code[tpu,launch-gcp]"
}

mount_buckets() {
  # Bucket b appears at /gcs/b. File names are not cached, because a host must see at once what
  # another host has written.
  mountpoint --quiet "$mounts" && return
  if ! command -v gcsfuse > /dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    packages=https://packages.cloud.google.com/apt
    curl --silent --fail --location --output "$key" "$packages/doc/apt-key.gpg" || return
    echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release --codename --short) main" \
      > /etc/apt/sources.list.d/gcsfuse.list || return
    apt-get -qq update && apt-get -qq install --yes gcsfuse || return
  fi
  mkdir -p "$mounts"
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$mounts"
}

run_agent() {
  if [ -n "$image" ]; then
    docker run --rm --name llm-jax --privileged --network host \
      --env LLM_JAX_INCARNATION --env LLM_JAX_WORKER --env LLM_JAX_SLICE \
      --volume "$mounts:$mounts:rslave" \
      "$image" python3 -m llm_jax.launch.agent "$out" &
  else
    "$home/venv/bin/python" -m llm_jax.launch.agent "$out" &
  fi
  echo "$!" > "$home/agent.pid"
  wait "$!"
}

give_back() {
  # Host 0 deletes the queued resource, so that a finished run costs nothing more, even without a
  # supervisor. If the service account may not delete it, the supervisor does.
  [ "$LLM_JAX_SLICE" = 0 ] && [ "$LLM_JAX_WORKER" = 0 ] || return 0
  sleep "${LLM_JAX_GIVE_BACK_SECONDS:-30}"
  zone=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://${metadata_host}/computeMetadata/v1/instance/zone")
  gcloud compute tpus queued-resources delete "$(attribute llm-jax-queued-resource)" \
    --zone "${zone##*/}" --force --async --quiet \
    || say "could not delete the queued resource: run llm-jax launch stop"
}

mkdir -p "$home"
if [ -n "$image" ]; then
  registry=${image%%/*}
  gcloud auth configure-docker "$registry" --quiet
  until docker pull "$image"; do say "could not pull $image, trying again"; sleep 30; done
else
  until install_code; do say "could not install the code, trying again"; sleep 30; done
fi
until mount_buckets; do say "could not mount the buckets, trying again"; sleep 30; done

while :; do
  run_agent
  code=$?
  say "the agent exited with code $code"
  case "$code" in
    0 | 78) give_back; break ;; # finished, or a retry cannot succeed
    75) break ;; # asked to stop
  esac
  sleep "${LLM_JAX_RESTART_SECONDS:-10}"
done
exit "$code"
