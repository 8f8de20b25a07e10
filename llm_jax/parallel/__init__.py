"""Where arrays live: the mesh, and the one table from logical to mesh axes."""
