"""Checkpoints of 16 processes on slow storage that stalls and fails.

    python benchmarks/saving.py                          # 51 faults in 17 starts
    python benchmarks/saving.py --processes 4 --faults 6 --seed 7

The trainer is the real one, in processes of one CPU device each. `slow_storage.c` stands between
it and the C library: it gives each process a bandwidth and a latency, stalls it, and makes single
operations fail. There are two runs: one on fast storage without faults, and one in which each start
meets three faults. The final parameters, moments and losses of both are compared bit for bit. After
each start, all checkpoints in the run's folder must be whole.

Printed for each start: the fault, how its processes ended, and where it resumed from. The last line
is one JSON object. It needs a C compiler and about 0.2 GB of memory per process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import math
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from errno import EIO, ENOSPC
from pathlib import Path

import chaos

HERE = Path(__file__).resolve()
EVERY, STEPS_PER_START, REACH = 3, 9, 4
"""Steps between checkpoints; steps of the run for each start; a start is stopped after so many."""
GRACE, DEADLINE = 15.0, 30
"""Seconds after SIGTERM at which a process is killed; shortest deadline of a save."""
PATIENCE = 300.0
RATE, LATENCY = 2e6, 0.002
"""Of each process's storage: bytes a second, and seconds that an operation takes."""
STATE_BYTES, SLOW_SECONDS = 2.9e6, 8.0
"""Of the state; seconds in which a process writes its part of it where that takes too long."""
BAD_OPERATIONS = 150
"""A process writes or reads that often in a short start; one of these operations fails."""


@dataclass
class Storage:
    """Arguments of `slow_storage` but the folder; see there."""

    write_rate: float = RATE
    read_rate: float = RATE
    latency: float = LATENCY
    stall: float = 0.0
    chance: float = 0.0
    seed: int = 0
    bad_write: int = 0
    bad_read: int = 0
    error: int = 0


@dataclass
class Start:
    """One start of all processes."""

    config: str
    out: str
    port: int
    log: str
    storage: list[Storage] = field(default_factory=list)


def nursery() -> None:
    """Imports everything once, then forks all processes of each start that a line of standard input
    describes. Answers with their ids, then with their exit codes."""
    import matplotlib.pyplot
    import tensorstore

    from llm_jax.train import loop, save_speed

    del matplotlib, tensorstore
    chaos.cache_programs_of_all()
    save_speed.SHORTEST = DEADLINE
    loop.peak_flops = lambda config, mesh: (None, "peak not measured")
    for line in sys.stdin:
        asked = json.loads(line)
        storage = [Storage(**one) for one in asked.pop("storage")]
        start = Start(**asked, storage=storage)
        pids = [_fork(start, process) for process in range(len(storage))]
        print(json.dumps(pids), flush=True)
        codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
        print(json.dumps([codes[pid] for pid in pids]), flush=True)


def _fork(start: Start, process: int) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        log = os.open(f"{start.log}.{process}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{start.port}",
            "JAX_NUM_PROCESSES": str(len(start.storage)),
            "JAX_PROCESS_ID": str(process),
        }
        _set_storage(start.out, start.storage[process])
        code = _train(start.config)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _set_storage(out: str, storage: Storage) -> None:
    kinds = [ctypes.c_double] * 5 + [ctypes.c_uint64] * 3 + [ctypes.c_int]
    values = [kind(value) for kind, value in zip(kinds, asdict(storage).values(), strict=True)]
    ctypes.CDLL(os.environ["LD_PRELOAD"]).slow_storage(out.encode(), *values)


def _train(config: str) -> int:
    from llm_jax.config import RunConfig, read_config
    from llm_jax.train import distributed
    from llm_jax.train.loop import train

    result = train(read_config(Path(config), RunConfig))
    with distributed.leaving_at_once():
        distributed.leave(result["exit_code"])
    return result["exit_code"]


class Run:
    """A run whose starts meet faults."""

    def __init__(
        self, folder: Path, name: str, steps: int, processes: int, local: Path | None
    ) -> None:
        from llm_jax import config as c

        self.folder, self.name, self.processes = folder, name, processes
        self.out, self.config, self.local = folder / name, folder / f"{name}.json", local
        self.starts = 0
        made = chaos.run_config(self.out, folder / "data", steps, local)
        fields = {
            "model": {"d_model": 128, "d_ff": 256},
            "data": {"batch_size": processes},
            "parallel": {"data": 1, "fsdp": processes},
            "checkpoint": {"every": EVERY, "local_every": 2 if local else None},
            "eval": {"every": 1000},
        }
        held = c.to_dict(made)
        for name, changes in fields.items():
            held[name] |= changes
        self.config.write_text(c.to_json(c.from_dict(held, c.RunConfig)))
        libraries = {"LD_PRELOAD": str(folder / "slow_storage.so")}
        self.nursery = subprocess.Popen(
            [sys.executable, str(HERE), "--nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | libraries | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
        )
        assert self.nursery.stdin and self.nursery.stdout
        self._asks, self._answers = self.nursery.stdin, self.nursery.stdout

    def begin(self, storage: list[Storage]) -> list[int]:
        """Starts all processes; returns their ids."""
        self.starts += 1
        self.log = self.folder / "logs" / f"{self.name}.{self.starts}"
        self.log.parent.mkdir(exist_ok=True)
        self.began = time.time()
        start = Start(str(self.config), str(self.out), free_port(), str(self.log), storage)
        self._asks.write(json.dumps(asdict(start)) + "\n")
        self._asks.flush()
        return json.loads(self._answers.readline())

    def ended(self, seconds: float = 0.0) -> bool:
        return bool(select.select([self._answers], [], [], seconds)[0])

    def end(self, pids: list[int], seconds: float) -> list[int]:
        """Exit codes of the processes, which are killed after `seconds`."""
        if not self.ended(seconds):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return json.loads(self._answers.readline())

    def step(self) -> int:
        """The last step that process 0 of this start has reported."""
        with contextlib.suppress(OSError, ValueError):
            status = json.loads((self.out / "status.0.json").read_text())
            return status["step"] if status["time"] > self.began else -1
        return -1

    def saved(self) -> int:
        from llm_jax.train.damage import saved_steps

        folder = self.out / "checkpoints"
        return max(saved_steps(folder), default=0) if folder.is_dir() else 0

    def resumed(self) -> str:
        """What process 0 said about the checkpoint that it used."""
        words = Path(f"{self.log}.0").read_text(errors="replace").splitlines()
        told = [line for line in words if line.startswith(("Beginning", "Resuming"))]
        return told[0].partition(":")[0].split(" ", 2)[2] if told else "not yet"

    def said(self, words: str) -> int:
        """How many processes of this start said it."""
        logs = self.log.parent.glob(f"{self.log.name}.*")
        return sum(words in log.read_text(errors="replace") for log in logs)

    def close(self) -> None:
        self._asks.close()
        self.nursery.wait()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Faults:
    """Three faults for each start: one that it finds, stalls, and one that ends it.

    In all of them, one in 200 operations of every process takes a second more.
    """

    found = ("damaged", "read_error")
    ends = ("hangs", "write_error", "full_disk", "killed", "preempted", "preempted_slow")

    def __init__(self, run: Run, dice: random.Random) -> None:
        self.run, self.dice = run, dice

    def storage(self, found: str, end: str) -> list[Storage]:
        """The storage of each process. What the start will find is damaged here."""
        made = [
            Storage(stall=1.0, chance=0.005, seed=self.dice.randrange(2**31))
            for _ in range(self.run.processes)
        ]
        first, second = self.dice.sample(range(self.run.processes), 2)
        if found == "damaged":
            self._damage()
        elif found == "read_error":
            made[first].bad_read, made[first].error = self._number(3), EIO
        if end == "hangs":  # one write takes longer than a save may
            made[second] = Storage(stall=3.0 * DEADLINE, bad_write=self._number())
        elif end in ("write_error", "full_disk"):
            made[second].bad_write = self._number()
            made[second].error = EIO if end == "write_error" else ENOSPC
        elif end == "preempted_slow":  # a save takes longer than the grace
            for one in made:
                one.write_rate = STATE_BYTES / self.run.processes / SLOW_SECONDS
        return made

    def _damage(self) -> None:
        """Changes a byte of the newest checkpoint, and takes the hosts' own disks away."""
        assert self.run.local
        shutil.rmtree(self.run.local, ignore_errors=True)
        newest = self.run.out / "checkpoints" / str(self.run.saved())
        victim = self.dice.choice(
            [
                path
                for path in sorted(newest.glob("*/**/*"))
                if path.is_file() and path.stat().st_size
            ]
        )
        data = bytearray(victim.read_bytes())
        data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
        victim.write_bytes(data)

    def _number(self, part: int = 1) -> int:
        return 1 + self.dice.randrange(BAD_OPERATIONS // part)


def meet(run: Run, faults: Faults, found: str, end: str) -> dict:
    """One start that meets faults, to its end."""
    before = run.saved()
    found = found if before else "read_error"  # there is nothing yet that could be damaged
    pids = run.begin(faults.storage(found, end))
    stop, first = time.monotonic() + PATIENCE, -1
    while not run.ended(0.05) and time.monotonic() < stop:
        first = run.step() if first < 0 else first
        if end == "preempted_slow" and run.saved() > before:
            break
        if end != "preempted_slow" and 0 <= first <= run.step() - REACH:
            break
    else:
        if not run.ended():
            raise SystemExit(f"{found}, {end}: nothing happens, see {run.log}.*")
    at, begun = run.step(), time.monotonic()
    if run.ended():
        codes = run.end(pids, 0.0)
    elif end == "killed":
        time.sleep(faults.dice.random())
        os.kill(faults.dice.choice(pids), signal.SIGKILL)
        codes = run.end(pids, PATIENCE)
    else:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        codes = run.end(pids, GRACE)
    check_whole(run.out / "checkpoints")
    met = {
        "faults": [found, "stalls", end],
        "saved_before": before,
        "resumed": run.resumed(),
        "saved_after": run.saved(),
        "codes": {str(code): count for code, count in sorted(Counter(codes).items())},
        "seconds_to_end": round(time.monotonic() - begun, 1),
        "steps_to_end": run.step() - at,
        "near_first": bool(run.said("own disks first")),
        "timed_out": bool(run.said("timed out")),
        "moved_aside": bool(run.said("is damaged (")),
    }
    print(json.dumps(met), file=sys.stderr, flush=True)
    return met


def check_whole(folder: Path) -> None:
    """Ends the program if a checkpoint in `folder` is not whole."""
    from llm_jax.train.damage import saved_steps
    from llm_jax.train.manifest import MANIFEST, damage_sentence, first_damage

    for step in saved_steps(folder) if folder.is_dir() else ():
        checkpoint = folder / str(step)
        place = first_damage(checkpoint)
        if place is not None or not (checkpoint / MANIFEST).is_file():
            raise SystemExit(
                f"{checkpoint} is not whole: {damage_sentence(checkpoint, place or 0)}"
            )


def finish(run: Run) -> None:
    codes = run.end(run.begin([Storage() for _ in range(run.processes)]), 10 * PATIENCE)
    if set(codes) != {0}:
        raise SystemExit(f"the run did not finish ({codes}), see {run.log}.*")


def schedule(starts: int, dice: random.Random) -> list[tuple[str, str]]:
    """What each start finds, and what ends it: all kinds equally often, in random order."""
    drawn = []
    for kinds in (Faults.found, Faults.ends):
        some = list(itertools.islice(itertools.cycle(kinds), starts))
        dice.shuffle(some)
        drawn.append(some)
    return list(zip(*drawn, strict=True))


def prepare(folder: Path) -> None:
    """Compiles the library, builds the dataset, and sets what all starts share."""
    os.environ |= {
        "PYTHONPATH": str(HERE.parents[1]),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "LLM_JAX_GRACE_SECONDS": str(GRACE),
    }
    folder.mkdir(parents=True, exist_ok=True)
    library, source = folder / "slow_storage.so", HERE.with_name("slow_storage.c")
    build = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl", "-lpthread"]
    subprocess.run(build, check=True)
    chaos.dataset(folder / "data")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--faults", type=int, default=51)
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--folder", type=Path, help="new folder for the runs, which is kept")
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.nursery:
        nursery()
        return
    dice = random.Random(args.seed)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.absolute()
        prepare(folder)
        starts = math.ceil(args.faults / 3)
        steps = STEPS_PER_START * (starts + 1)
        started = time.monotonic()
        calm = Run(folder, "calm", steps, args.processes, None)
        stack.callback(calm.close)
        finish(calm)
        middle = time.monotonic()
        run = Run(folder, "disturbed", steps, args.processes, folder / "local")
        stack.callback(run.close)
        faults = Faults(run, dice)
        met = [meet(run, faults, *kinds) for kinds in schedule(starts, dice)]
        finish(run)
        chaos.compare(calm.out, run.out)
        report(run, met, middle - started, time.monotonic() - middle)


def report(run: Run, met: list[dict], calm: float, disturbed: float) -> None:
    from llm_jax.train.metrics import read_metrics

    saves = [r for r in read_metrics(run.out / "metrics.jsonl") if r["split"] == "save"]
    stops = [one for one in met if one["faults"][2].startswith("preempted")]
    print(
        json.dumps(
            {
                "processes": run.processes,
                "faults": sum(len(one["faults"]) for one in met),
                "bitwise_equal": True,
                "starts": run.starts,
                "ends": Counter(code for one in met for code in one["codes"]),
                "timed_out": sum(one["timed_out"] for one in met),
                "moved_aside": sum(one["moved_aside"] for one in met),
                "near_first": sum(one["near_first"] for one in met),
                "seconds_to_end_a_preempted_start": sorted(one["seconds_to_end"] for one in stops),
                "steps_after_the_request": sorted(one["steps_to_end"] for one in stops),
                "median_hold_seconds": round(
                    statistics.median(r["save_hold_seconds"] for r in saves), 3
                ),
                "seconds_without_faults": round(calm, 1),
                "seconds_with_faults": round(disturbed, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
