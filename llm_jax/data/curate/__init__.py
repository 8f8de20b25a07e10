"""Curation: a recipe of steps that filter, mask and deduplicate documents.

A step is a frozen dataclass whose fields are its thresholds (`steps/`); a recipe is a list of them
(`recipe.py`). Documents are cut into shards, each shard is a task in a process of its own
(`tasks.py`), and what the steps did is counted in a `Tally`. The result does not depend on the
number of processes.
"""
