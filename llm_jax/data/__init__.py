"""From text to batches, on the host: sources, cleaning, tokenizer, dataset on disk, batches.

sources/ ─► clean.py ─► build.py (corpus, tokenizer, streams, token_records) ─► batches.py
"""
