"""Objectives: what a batch holds, and the loss that training minimises."""
