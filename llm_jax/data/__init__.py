"""From text to batches, on the host: sources, cleaning, tokenizer, dataset on disk, pipeline.

text.py ─► clean.py ─► build.py (corpus.py, tokenizer.py, records.py) ─► pipeline.py
"""
