#!/usr/bin/env bash
# From text to a Hugging Face model: the verbs that a user would type, one after the other.
# Interrupted and started again, each step goes on where it was.
#
#   bash launch/quickstart.sh OUT [CORPUS [flags of `data build` …]]
set -euo pipefail

out=$1
corpus=${2:-}
shift $(($# < 2 ? $# : 2))

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}

if [ -n "$corpus" ]; then
    source=(--input "$corpus" "$@")
else
    source=(--stdlib)
fi

say "1. Text → tokenizer and dataset"
run llm-jax data build "${source[@]}" --vocab-size 4096 --out "$out/data"

say "2. Train"
run llm-jax train quickstart --data.path "$out/data" --out "$out/run"

say "3. Held-out bits per byte, and what a 5-gram model makes of the same text"
run llm-jax eval "$out/run" --ngram 5

say "4. Samples"
if [ -n "$corpus" ]; then
    run llm-jax generate "$out/run" --max-tokens 120 --temperature 0.8 --top-p 0.95
else
    run llm-jax generate "$out/run" --prompt 'def read' --max-tokens 120 --temperature 0.8 --top-p 0.95
fi

say "5. Hugging Face"
if [ -e "$out/hf/config.json" ]; then
    echo "$out/hf is already there."
else
    run llm-jax export "$out/run" --to hf "$out/hf"
fi

say "Made"
cat <<END
  $out/data           the tokenised dataset, with its tokenizer and provenance
  $out/run            checkpoints, metrics.jsonl, loss.png, tensorboard/
  $out/hf             the model for transformers, vLLM, llama.cpp

Next:
  llm-jax train quickstart --data.path $out/data --out $out/longer --steps 5000
  llm-jax generate $out/run --prompt 'class'
  llm-jax plan --usd 1000 --chip v5e
END
