"""Exit codes of `train`, and of everything that supervises it."""

FINISHED = 0
FAILED = 1
USAGE = 2
"""A mistake on the command line."""
PREEMPTED = 75
"""Stopped with the state saved; another start resumes it (EX_TEMPFAIL of sysexits.h)."""
PEER_LOST = 76
"""Another process of the run was lost."""
CONFIG = 78
"""A configuration that can never run: never retry it (EX_CONFIG of sysexits.h)."""
INTERRUPTED = 130
"""Ctrl-C, as a shell says it: 128 + SIGINT."""
