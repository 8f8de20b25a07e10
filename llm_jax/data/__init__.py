"""From text to batches, on the host: sources, cleaning, tokenizer, dataset on disk, batches.

sources/ ─► clean.py ─► build.py (corpus.py, tokenizer.py, streams.py, token_records.py) ─► batches.py
"""
