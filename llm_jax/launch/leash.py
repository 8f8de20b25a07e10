"""Becomes another program that the kernel kills when its parent dies.

    python leash.py PARENT COMMAND [ARGUMENT …]

A trainer whose agent was killed would otherwise keep running and hold the accelerator. This is a
separate program, because code between fork and exec (`preexec_fn`) can deadlock where threads run.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept over exec

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died first")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"error: job.trainer names {sys.argv[2]!r}, which cannot be run: {error.strerror}")
