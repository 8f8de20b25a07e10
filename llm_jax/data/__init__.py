"""From text to batches, on the host: sources, cleaning, tokenizer, dataset on disk, pipeline.

sources/ ─► clean.py ─► build.py (corpus.py, tokenizer.py, streams.py, records.py) ─► pipeline.py
"""
