"""Proof before the launch: the very train step, compiled for TPUs that are not attached."""
