"""One task of a build, in a process of its own.

A task that has been done is not done again, so it may be run twice:

    python -m llm_jax.data.building.task WORK read SHARD
    python -m llm_jax.data.building.task WORK encode SHARD
"""

from __future__ import annotations

import sys
from pathlib import Path

from llm_jax.data.building.work import PassName, Work
from llm_jax.data.tasks.program import exit_code


def run_task(folder: Path, pass_: PassName, shard: int, threads: int | None = None) -> None:
    """Does a task in this process.

    Args:
      threads: that encode texts; None: one for each core.
    """
    work = Work.open(folder)
    if pass_ == "read":
        from llm_jax.data.building.read import read_shard

        read_shard(work, shard)
    else:
        from llm_jax.data.building.encode import encode_shard

        encode_shard(work, shard, threads)


def main(argv: list[str]) -> int:
    folder, shard = Path(argv[0]), int(argv[2])
    pass_: PassName = "read" if argv[1] == "read" else "encode"
    return exit_code(
        lambda: run_task(folder, pass_, shard, threads=1),
        lambda: Work.open(folder).is_done(pass_, shard),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
