"""Small tasks in English and Japanese that need no download: seeded code makes them.

Each is a file of lm-eval's kind beside a builder, so that lm-eval's own models can be asked too:
`lm_eval --include_path …/llm_jax/evals/tasks/bundled --tasks copying_en`.
"""
