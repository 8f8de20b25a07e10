#!/bin/bash
# Start-up script of a TPU VM: installs the code (or pulls an image) and runs the agent until the
# run ends. It reads all its settings from the VM's metadata. It has no secrets.
#
# A VM that does not know for certain which host of the job it is never starts the agent. However
# the script ends, it leaves a record: in $home/exit.json and in OUT/startup/HOSTNAME.json.
# shellcheck disable=SC2329 # functions that a trap or keep_trying calls
set -u

home=${LLM_JAX_HOME:-/opt/llm-jax}
mounts=${LLM_JAX_GCS_MOUNT:-/gcs}
metadata_host=${GCE_METADATA_HOST:-metadata.google.internal}
patience=${LLM_JAX_PATIENCE_SECONDS:-1800} # for each thing that may come right by itself
step=${LLM_JAX_STEP_SECONDS:-900}          # for one command that may hang
late=${LLM_JAX_LATE_SECONDS:-300}          # for what the platform sets after the VM has started
longest=${LLM_JAX_PAUSE_SECONDS:-30}       # between two tries
# Google's key of packages.cloud.google.com (Artifact Registry Repository Signer).
apt_key=${LLM_JAX_APT_KEY:-35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3}
apt=${LLM_JAX_APT_FOLDER:-/etc/apt}

out='' stage=metadata why='the script was stopped' child=''
LLM_JAX_INCARNATION='' LLM_JAX_WORKER='' LLM_JAX_SLICE=''

say() { echo "llm-jax start-up: $*" >&2; }

leave() { # leave CODE SENTENCE
  why=${2//[\"\\]/}
  say "$why"
  exit "$1"
}

stopped() { # An agent is left the time to save.
  if [ -n "$child" ]; then
    kill "$child" 2> /dev/null
    while [ "$stage" = agent ] && kill -0 "$child" 2> /dev/null; do wait "$child"; done
  fi
  exit 143
}

attend() { # Waits for what runs in the background: only then does the shell hear a signal.
  child=$!
  wait "$child"
  local code=$?
  child=''
  return "$code"
}

in_time() { # in_time COMMAND...: for at most $step s
  timeout "$step" "$@" &
  attend
}

pause() { # Up to twice the last pause, with jitter: 2,000 hosts must not ask in step.
  sleep "$((wait_for / 2)).$((RANDOM % 900 + 100))" &
  attend
  wait_for=$((wait_for * 2 > longest ? longest : wait_for * 2))
}

keep_trying() { # keep_trying WHAT COMMAND...: until it succeeds or patience is over
  local what=$1 until=$((SECONDS + patience)) wait_for=1
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || leave 1 "could not $what for $patience s"
    say "could not $what, trying again"
    pause
  done
}

metadata() { # Prints a value. Returns 1 if the server says that there is none, 2 if it says nothing.
  local answer until=$((SECONDS + patience)) wait_for=1
  while :; do
    if answer=$(curl --silent --noproxy '*' --max-time 10 --write-out '\n%{http_code}' \
      --header 'Metadata-Flavor: Google' \
      "http://${metadata_host}/computeMetadata/v1/instance/$1" | tr -d '\0'
      exit "${PIPESTATUS[0]}"); then
      case "${answer##*$'\n'}" in
        200) printf '%s' "${answer%$'\n'*}"; return 0 ;;
        404) return 1 ;;
      esac
    fi
    [ "$SECONDS" -lt "$until" ] || return 2
    pause
  done
}

attribute() { metadata "attributes/$1"; }

wait_for_attribute() { # wait_for_attribute NAME: for the platform to set it, for $late s
  local until=$((SECONDS + late)) wait_for=1
  until attribute "$1" > /dev/null; do
    [ $? -eq 1 ] || leave 1 "the metadata server gave no answer for $1 in $patience s"
    [ "$SECONDS" -lt "$until" ] || return
    say "$1 is not there yet"
    pause
  done
}

number() { # number NAME: an attribute that must be there and must be a number
  local value
  value=$(attribute "$1")
  case $? in
    1) leave 1 "the VM has no attribute $1: which host it is, is not certain" ;;
    2) leave 1 "the metadata server gave no answer for $1 in $patience s" ;;
  esac
  [[ $value =~ ^(0|[1-9][0-9]{0,8})$ ]] || leave 1 "the attribute $1 is not a number"
  found=$value
}

slice_number() {
  # One line per variable, such as MEGASCALE_SLICE_ID: '1'. It is absent if there is only one slice.
  local env lines
  LLM_JAX_SLICE=0
  [ "$slices" -gt 1 ] || return 0
  wait_for_attribute tpu-env
  env=$(attribute tpu-env) || leave 1 "tpu-env is missing, so the slice's number is not certain"
  lines=$(sed -En "s/^MEGASCALE_SLICE_ID: *('([0-9]+)'|([0-9]+)) *$/\2\3/p" <<< "$env")
  [[ $lines =~ ^(0|[1-9][0-9]{0,8})$ ]] \
    || leave 1 "tpu-env has not one MEGASCALE_SLICE_ID, so the slice's number is not certain"
  LLM_JAX_SLICE=$lines
}

read_identity() {
  number llm-jax-slices; slices=$found
  number llm-jax-workers; workers=$found
  number llm-jax-incarnation; LLM_JAX_INCARNATION=$found
  wait_for_attribute agent-worker-number
  number agent-worker-number; LLM_JAX_WORKER=$found
  slice_number
  [ "$LLM_JAX_WORKER" -lt "$workers" ] \
    || leave 1 "agent-worker-number is $LLM_JAX_WORKER, but a slice has $workers hosts"
  [ "$LLM_JAX_SLICE" -lt "$slices" ] \
    || leave 1 "MEGASCALE_SLICE_ID is $LLM_JAX_SLICE, but the job has $slices slices"
  export LLM_JAX_INCARNATION LLM_JAX_WORKER LLM_JAX_SLICE
  installer='' digests=''
  image=$(attribute llm-jax-image)
  [ $? -ne 2 ] || leave 1 "the metadata server gave no answer for llm-jax-image in $patience s"
  [ -n "$image" ] && return
  installer=$(attribute llm-jax-install) && digests=$(attribute llm-jax-sha256)
  [ $? -ne 2 ] || leave 1 "the metadata server gave no answer for llm-jax-sha256 in $patience s"
  [ -n "$digests" ] || leave 1 "the VM is not told what to install: launch the job again"
}

record() {
  local code=$? try
  trap '' TERM INT
  local identity='"host": "%s", "slice": "%s", "worker": "%s", "incarnation": "%s"'
  printf "{$identity, "'"stage": "%s", "code": %d, "sentence": "%s", "time": %d}\n' \
    "$HOSTNAME" "$LLM_JAX_SLICE" "$LLM_JAX_WORKER" "$LLM_JAX_INCARNATION" "$stage" "$code" \
    "$why" "$(date +%s)" > "$home/exit.json"
  [ -n "$out" ] || return
  for try in 1 2 3; do
    timeout 60 gcloud storage cp "$home/exit.json" "$out/startup/$HOSTNAME.json" && return
    sleep "$((longest < try ? longest : try))"
  done
  say "could not write $out/startup/$HOSTNAME.json"
}

fetch() { # The code and the lock, which must be what was launched.
  local name sum is
  mkdir -p "$home/launch" || return
  while read -r sum name; do
    in_time gcloud storage cp "$out/launch/$name" "$home/launch/$name" || return
  done <<< "$digests"
  while read -r sum name; do
    is=$(sha256sum < "$home/launch/$name")
    [ "$sum" = "${is%% *}" ] \
      || leave 1 "launch/$name is not what was launched: its SHA-256 is ${is%% *}, not $sum"
  done <<< "$digests"
}

install_code() {
  fetch || return
  printf '%s\n' "$installer" > "$home/install.sh" && in_time bash "$home/install.sh" "$home/launch"
}

install_gcsfuse() {
  local ring=$home/google.gpg packages=https://packages.cloud.google.com/apt
  # Only the pinned key may sign, whatever else the file holds.
  export GNUPGHOME=$home/gnupg
  rm -rf "$GNUPGHOME" "$ring" && mkdir -m 700 "$GNUPGHOME" || return
  in_time curl --silent --fail --location --output "$home/google.asc" "$packages/doc/apt-key.gpg" \
    || return
  in_time gpg --batch --quiet --import "$home/google.asc" || return
  in_time gpg --batch --quiet --output "$ring" --export "$apt_key"
  [ -s "$ring" ] || leave 1 "the key of $packages is not $apt_key: gcsfuse is not installed"
  echo "deb [signed-by=$ring] $packages gcsfuse-$(lsb_release --codename --short) main" \
    > "$apt/sources.list.d/gcsfuse.list" || return
  in_time apt-get -qq update || return
  in_time apt-get -qq install --yes gcsfuse
}

mount_buckets() {
  # Bucket b appears at /gcs/b. File names are not cached, because a host must see at once what
  # another host has written.
  mountpoint --quiet "$mounts" && return
  if ! command -v gcsfuse > /dev/null; then
    install_gcsfuse || return
  fi
  mkdir -p "$mounts"
  in_time gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$mounts"
}

run_agent() {
  if [ -n "$image" ]; then
    docker run --rm --name llm-jax --privileged --network host \
      --env LLM_JAX_INCARNATION --env LLM_JAX_WORKER --env LLM_JAX_SLICE \
      --volume "$mounts:$mounts:rslave" \
      "$image" python3 -m llm_jax.launch.agent "$out" &
  else
    "$home/launch/venv/bin/python" -m llm_jax.launch.agent "$out" &
  fi
  echo "$!" > "$home/agent.pid"
  attend
}

give_back() {
  # Host 0 deletes the queued resource, so that a finished run costs nothing more, even without a
  # supervisor. If the service account may not delete it, the supervisor does.
  [ "$LLM_JAX_SLICE" = 0 ] && [ "$LLM_JAX_WORKER" = 0 ] || return 0
  in_time sleep "${LLM_JAX_GIVE_BACK_SECONDS:-30}"
  local zone name
  if ! zone=$(metadata zone) || ! name=$(attribute llm-jax-queued-resource); then
    say "could not learn the queued resource's name: run llm-jax launch stop"
    return
  fi
  in_time gcloud compute tpus queued-resources delete "$name" \
    --zone "${zone##*/}" --force --async --quiet \
    || say "could not delete the queued resource: run llm-jax launch stop"
}

mkdir -p "$home"
trap record EXIT
trap stopped TERM INT
rm -f "$home/agent.pid" # of an earlier start of the machine
echo "$$" > "$home/startup.pid"

given=$(attribute llm-jax-out)
case $? in
  1) leave 1 "no attribute llm-jax-out: not a VM of llm-jax" ;;
  2) leave 1 "the metadata server gave no answer for llm-jax-out in $patience s" ;;
esac
[[ $given =~ ^gs://[^[:cntrl:]\<\>]+$ ]] || leave 1 "llm-jax-out is not the address of a folder"
out=$given
read_identity

stage=install
if [ -n "$image" ]; then
  registry=${image%%/*}
  keep_trying "sign in to $registry" in_time gcloud auth configure-docker "$registry" --quiet
  keep_trying "pull $image" in_time docker pull "$image"
else
  keep_trying "install the code" install_code
fi
stage=mount
keep_trying "mount the buckets" mount_buckets

stage=agent
while :; do
  run_agent
  code=$?
  why="the agent exited with code $code"
  say "$why"
  case "$code" in
    0 | 78) give_back; break ;; # finished, or a retry cannot succeed
    75) break ;; # asked to stop
  esac
  in_time sleep "${LLM_JAX_RESTART_SECONDS:-10}"
done
exit "$code"
