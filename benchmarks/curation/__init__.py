"""Parts of `benchmarks/curate.py`. Each `with_*.py` runs in an interpreter that has the library."""
