#!/usr/bin/env bash
# From a few minutes on this machine to a Hugging Face model: the commands that a user would type,
# one after another. After an interruption, run it again to resume.
#
#   [MINUTES=3] bash launch/quickstart.sh OUT [CORPUS [flags of `data build` …]]
set -euo pipefail

out=$1
minutes=${MINUTES:-3}
laws=$(cd "$(dirname "$0")/../configs/laws" && pwd)
corpus=${2:-}
shift $(($# < 2 ? $# : 2))

# A text of your own takes a quarter of the minutes to move the law to it.
share=${corpus:+0.25}
read -r short rest hours < <(python3 -c 'import sys; minutes, share = map(float, sys.argv[1:])
rest = minutes * (1 - share)
print(minutes * share, rest, rest / 60)' "$minutes" "${share:-0}" 2>/dev/null) || {
    echo "MINUTES is '$minutes': give a number of minutes to train for." >&2
    exit 2
}

steps=0
step() {
    steps=$((steps + 1))
    say "$steps. $*"
}
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# What is printed can be pasted, also where a path has blanks.
run() {
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

sample=(--max-tokens 120 --temperature 0.8 --top-p 0.95)
if [ -n "$corpus" ]; then
    source=(--input "$corpus" "$@")
else
    source=(--stdlib)
    sample+=(--prompt 'def read')
fi

step "Text → tokenizer and dataset"
run llm-jax data build --vocab-size 4096 "${source[@]}" --out "$out/data"

if [ -n "$corpus" ]; then
    step "$short minutes on this machine → a scaling law of this text"
    law=$out/law/law.json
    if [ -e "$law" ]; then
        echo "$law is already there."
    else
        run llm-jax ladder --anchor "$laws/stdlib.json" --data "$out/data" --minutes "$short" \
            --remeasure --out "$out/law"
    fi
else
    law=$laws/stdlib.json
fi

step "$rest minutes on this machine → model, tokens, predicted loss"
if [ -e "$out/run.json" ]; then
    echo "$out/run.json is already there."
else
    run llm-jax plan --chip local --chips 1 --deadline-hours "$hours" --remeasure \
        --law "$law" --data "$out/data" --name quickstart --out "$out/run" \
        --write "$out/run.json" --report "$out/plan.html"
fi

step "Train"
run llm-jax train "$out/run.json"

step "Held-out bits per byte, compared with a 5-gram model"
run llm-jax eval "$out/run" --ngram 5 --keep

step "Samples"
run llm-jax generate "$out/run" "${sample[@]}" --keep

step "Hugging Face"
if [ -e "$out/hf/config.json" ]; then
    echo "$out/hf is already there."
else
    run llm-jax export "$out/run" --to hf "$out/hf"
fi

step "Predicted and measured"
run llm-jax report "$out/run"

say "Results"
shown=$(printf %q "$out") shown_law=$(printf %q "$law")
cat <<END
  $shown/data           the tokenised dataset, with its tokenizer and provenance
  $shown/plan.html      the reasons for this model, and its predicted loss
  $shown/run            checkpoints, metrics.jsonl, loss.png, tensorboard/, report.html
  $shown/hf             the model for transformers

Next:
  llm-jax plan --chip local --chips 1 --deadline-hours 0.5 --law $shown_law \\
      --data $shown/data --name longer --out $shown/longer --write $shown/longer.json
  llm-jax ladder --data $shown/data --minutes 15 --out $shown/ladder    # a scaling law for this text
  llm-jax generate $shown/run --max-tokens 400 --temperature 0.5
  llm-jax plan --usd 1000 --chip v5e
END
