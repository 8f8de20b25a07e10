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

hours=$(python3 -c 'import sys; print(float(sys.argv[1]) / 60)' "$minutes" 2>/dev/null) || {
    echo "MINUTES is '$minutes': give a number of minutes to train for." >&2
    exit 2
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

say "1. Text → tokenizer and dataset"
run llm-jax data build --vocab-size 4096 "${source[@]}" --out "$out/data"

say "2. $minutes minutes on this machine → model, tokens, predicted loss"
if [ -e "$out/run.json" ]; then
    echo "$out/run.json is already there."
else
    run llm-jax plan --chip local --chips 1 --deadline-hours "$hours" --remeasure \
        --law "$laws/stdlib.json" --data "$out/data" --name quickstart --out "$out/run" \
        --write "$out/run.json" --report "$out/plan.html"
fi

say "3. Train"
run llm-jax train "$out/run.json"

say "4. Held-out bits per byte, compared with a 5-gram model"
run llm-jax eval "$out/run" --ngram 5 --keep

say "5. Samples"
run llm-jax generate "$out/run" "${sample[@]}" --keep

say "6. Hugging Face"
if [ -e "$out/hf/config.json" ]; then
    echo "$out/hf is already there."
else
    run llm-jax export "$out/run" --to hf "$out/hf"
fi

say "7. Predicted and measured"
run llm-jax report "$out/run"

say "Results"
shown=$(printf %q "$out") shown_laws=$(printf %q "$laws")
cat <<END
  $shown/data           the tokenised dataset, with its tokenizer and provenance
  $shown/plan.html      the reasons for this model, and its predicted loss
  $shown/run            checkpoints, metrics.jsonl, loss.png, tensorboard/, report.html
  $shown/hf             the model for transformers

Next:
  llm-jax plan --chip local --chips 1 --deadline-hours 0.5 --law $shown_laws/stdlib.json \\
      --data $shown/data --name longer --out $shown/longer --write $shown/longer.json
  llm-jax ladder --data $shown/data --minutes 15 --out $shown/ladder    # a scaling law for this text
  llm-jax generate $shown/run --max-tokens 400 --temperature 0.5
  llm-jax plan --usd 1000 --chip v5e
END
