"""Tasks of EleutherAI's lm-evaluation-harness, on our models: theirs, ours, and those of others."""
