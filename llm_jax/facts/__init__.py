"""Known without measuring: chips, this machine's accelerators, parameters and FLOPs."""
