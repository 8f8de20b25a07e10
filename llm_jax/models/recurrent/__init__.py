"""Recurrent networks: a state of fixed size goes from each position to the next."""
