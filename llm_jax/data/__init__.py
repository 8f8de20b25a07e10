"""From text to batches, on the host: sources, cleaning, tokenizer, dataset on disk, batches.

sources/ ─► clean.py ─► build.py (corpus, tokenizer, streams, token_records)
         ─► dataset.py (record_files) ─► batches.py (order) ─► prefetch.py
"""
