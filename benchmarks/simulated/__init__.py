"""A job of thousands of hosts in virtual time; `benchmarks/scale.py` runs it."""
