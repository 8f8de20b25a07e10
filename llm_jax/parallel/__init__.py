"""Where arrays live: the mesh and the one table from logical to mesh axes. Also what a sharding
alone cannot do: attention over split sequences, and pipelines."""
