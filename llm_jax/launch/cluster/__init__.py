"""Looks at a GKE cluster, and at the project around it, before a job is created there."""
