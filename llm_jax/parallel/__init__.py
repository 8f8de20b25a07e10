"""Where arrays live: the mesh, the one table from logical to mesh axes, and what is more than a
sharding: attention over split sequences, and pipelines."""
