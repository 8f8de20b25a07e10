"""Faults at random times in a run on two hosts. The run must end as if there had been no faults.

    python benchmarks/chaos.py                       # 30 faults
    python benchmarks/chaos.py --faults 9 --seed 7

The trainer is the real one, on the local back end: 2 hosts x 2 CPU devices, gloo. There are two
runs, without and with faults. Their final parameters, moments and losses are compared bit for bit.
A few batches of both runs are poisoned: their gradients are NaN. The run with faults also keeps
checkpoints on its hosts' own disks, between those in its folder.

Printed for each fault: the step, the cause that the job reports, the seconds until an exit record
appears (detected), and the seconds until training passes the step of the fault (recovered). The
last line is one JSON object. The full disk is a small tmpfs, which needs root; without root, this
kind of fault is left out, and that is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HOSTS, STEPS_PER_FAULT, FIRST_FAULT = 2, 16, 6
CHECKPOINT_EVERY, LOCAL_EVERY = 6, 2
POISONED = (3, 9, 18, 19)
"""Steps whose batches are poisoned, in both runs."""
DISK_MEGABYTES = 64
PATIENCE = 600.0


def trainer(path: str) -> None:
    """`llm-jax train PATH`, with poisoned batches."""
    import jax.numpy as jnp

    from llm_jax.cli import main
    from llm_jax.data.batches import Batches
    from llm_jax.train import step

    mark, run, loss_fn = 1_000_000, Batches.run, step.loss_fn

    def marked(self, first, count):
        batches = run(self, first, count)
        for number, batch in enumerate(batches, first):
            if number in POISONED and self.seed is not None:
                batch["positions"] = batch["positions"] + mark
        return batches

    def poisoned(params, batch, weight, config):
        bad = jnp.max(batch["positions"]) >= mark
        batch = batch | {"positions": batch["positions"] % mark}
        return loss_fn(params, batch, weight * jnp.where(bad, jnp.nan, 1.0), config)

    cache_programs_of_all()
    Batches.run, step.loss_fn = marked, poisoned  # type: ignore[method-assign]
    main(["train", path])


def cache_programs_of_all() -> None:
    """Caches the programs of every process. JAX caches only those of process 0, which on a CPU
    other processes cannot use."""
    from jax._src import compiler

    def kept(*arguments):
        gang = compiler.distributed.global_state
        number, gang.process_id = gang.process_id, 0
        write(*arguments)
        gang.process_id = number

    write, compiler._cache_write = compiler._cache_write, kept


def dataset(folder: Path) -> Path:
    from llm_jax.data.build import BuildSpec, VocabSpec, build
    from llm_jax.data.sources import FileSource

    source = FileSource(Path(sysconfig.get_path("stdlib")) / "json", licence="PSF-2.0")
    spec = BuildSpec(
        sources=(source,), tokenizer=VocabSpec(vocab_size=512), validation_fraction=0.1
    )
    build(spec, folder, lambda phase, done, total: None)
    return folder


def run_config(out: Path, data: Path, steps: int, disk: Path | None):
    from llm_jax import config as c

    return c.RunConfig(
        name="chaos",
        out=str(out),
        steps=steps,
        log_every=1,
        model=c.ModelConfig(
            vocab_size=512, num_layers=1, d_model=32, num_heads=4, num_kv_heads=2, head_dim=8,
            d_ff=64, max_seq_len=32,
        ),
        compute=c.ComputeConfig(dtype="float32", remat="none"),
        data=c.DataConfig(path=str(data), seq_len=32, batch_size=8),
        optim=c.OptimConfig(warmup_steps=2),
        checkpoint=c.CheckpointConfig(
            every=CHECKPOINT_EVERY,
            local=str(disk) if disk else None,
            local_every=LOCAL_EVERY if disk else None,
        ),
        eval=c.EvalConfig(every=20, batches=2),
    )  # fmt: skip


class Job:
    """A job of the local back end, supervised by a thread."""

    def __init__(
        self, folder: Path, out: Path, data: Path, steps: int, disk: Path | None = None
    ) -> None:
        from llm_jax import config
        from llm_jax.launch.spec import JobSpec, Limits

        self.out, self.steps = out, steps
        path = folder / "run.json"
        path.write_text(config.to_json(run_config(out, data, steps, disk)))
        self.spec = JobSpec(
            name="chaos",
            config=str(path),
            out=str(out),
            accelerator="cpu-2",
            slices=HOSTS,
            trainer=[sys.executable, str(Path(__file__).resolve()), "--trainer"],
            retries=5,
            backoff_seconds=0.1,
            grace_seconds=30,
            limits=Limits(step=20, save=60, heartbeat=60),
            env={
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
                "--xla_backend_optimization_level=0",
                "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            },
        )
        self.outcomes: list = []
        self.thread: threading.Thread | None = None

    def launch(self) -> None:
        from llm_jax.launch import job
        from llm_jax.launch.backends import driver
        from llm_jax.launch.supervisor import supervise

        run, first = job.prepare(self.spec, driver(self.spec))
        job.store(self.spec, run, first)
        say = lambda text: None  # noqa: E731
        self.thread = threading.Thread(
            target=lambda: self.outcomes.append(supervise(self.spec.out, say))
        )
        self.thread.start()

    @property
    def ended(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()

    def finish(self) -> None:
        assert self.thread is not None
        self.thread.join()
        if self.outcomes[-1].state != "finished":
            raise SystemExit(f"the job did not finish: {self.outcomes[-1]}")

    def step(self, host: int = 0, since: float = 0.0) -> int:
        """The last step that a host has reported after the time `since`, -1 if there is none."""
        with contextlib.suppress(OSError, ValueError):
            status = json.loads((self.out / f"status.{host}.json").read_text())
            return status["step"] if status["time"] > since else -1
        return -1

    def reached(self, step: int) -> bool:
        return self.step() >= step

    def exits(self) -> set[str]:
        found = (self.out / "launch/attempts").glob("*/*.exit.json")
        return {path.relative_to(self.out).as_posix() for path in found}

    def agent(self, host: int) -> int:
        return json.loads((self.out / "launch/local.json").read_text())["pids"][str(host)]

    def trainer(self, host: int) -> int:
        """The id of the trainer's process; waits until there is one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                agent = self.agent(host)
                children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
                if children:
                    return int(children[0])
            time.sleep(0.02)
        raise SystemExit(f"host {host} has no trainer")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {PATIENCE:.0f} s: {what}")
        time.sleep(0.02)


class Faults:
    """The faults. Each method causes one in a job, and returns the cause if it knows it."""

    def __init__(self, job: Job, data: Path, disk: Path, dice: random.Random) -> None:
        self.job, self.data, self.disk, self.dice = job, data, disk, dice

    def kill_worker(self) -> None:
        os.kill(self.job.trainer(1), signal.SIGKILL)

    def kill_coordinator(self) -> None:
        os.kill(self.job.trainer(0), signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.job.trainer(1), signal.SIGSTOP)

    def terminate_one(self) -> None:
        os.kill(self.job.trainer(self.dice.randrange(HOSTS)), signal.SIGTERM)

    def terminate_all(self) -> None:
        for host in range(HOSTS):
            os.kill(self.job.trainer(host), signal.SIGTERM)

    def kill_agent(self) -> None:
        os.kill(self.job.agent(self.dice.randrange(HOSTS)), signal.SIGKILL)

    def corrupt(self) -> None:
        """Deletes the files on host 1's own disk and damages the newest checkpoint in the folder.
        The restart must read that checkpoint."""
        for lost in self.disk.glob("*/1"):
            shutil.rmtree(lost, ignore_errors=True)
        steps = self.job.out / "checkpoints"
        newest = max((p for p in steps.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        files = sorted(p for p in newest.glob("params/**/*") if p.is_file() and p.stat().st_size)
        victim = self.dice.choice(files)
        with contextlib.suppress(FileNotFoundError), victim.open("r+b") as file:
            place = self.dice.randrange(victim.stat().st_size)
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0xFF]))
        self.kill_worker()

    def fill_disk(self) -> None:
        filler = self.job.out / "launch" / "filler"
        before = self.job.exits()
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        processes = [self.job.trainer(host) for host in range(HOSTS)]
        gone = lambda: not any(map(running, processes)) or self.job.exits() != before  # noqa: E731
        until(gone, "the trainers continue with a full disk")
        filler.unlink()

    def corrupt_local(self) -> None:
        """Damages the checkpoints on host 1's own disk. All hosts must resume from a step that
        every host has."""
        for file in self.disk.glob("*/1/*/shards/*"):
            with contextlib.suppress(OSError):
                file.write_bytes(file.read_bytes()[:-1])
        self.kill_worker()

    def lose_shard(self) -> str:
        """Removes a file of the dataset. The run must end and name the file. Then the file is put
        back, and the run is started again."""
        (shard,) = self.data.glob("tokens/*/*train*array_record*")
        aside = shard.with_name("aside")
        shard.rename(aside)
        self.kill_worker()
        until(lambda: self.job.ended, "the job continues without its data")
        aside.rename(shard)
        outcome = self.job.outcomes[-1]
        if shard.name not in outcome.cause:
            raise SystemExit(f"{shard.name} is missing, but the job reported: {outcome}")
        self.job.launch()
        return outcome.cause


def running(process: int) -> bool:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def schedule(count: int, dice: random.Random, kinds: list[str]) -> list[tuple[str, int, float]]:
    """(kind, step, seconds after it) of each fault: all kinds equally often, in random order."""
    drawn = list(itertools.islice(itertools.cycle(kinds), count))
    dice.shuffle(drawn)
    steps = [FIRST_FAULT + i * STEPS_PER_FAULT for i in range(count)]
    early = STEPS_PER_FAULT // 2
    return [
        (kind, step + dice.randrange(early), dice.random() / 2)
        for kind, step in zip(drawn, steps, strict=True)
    ]


def disturb(job: Job, faults: Faults, plan: list[tuple[str, int, float]]) -> list[dict]:
    done = []
    for kind, step, delay in plan:
        until(functools.partial(job.reached, step), f"step {step} is not reached")
        time.sleep(delay)
        before, at, start = job.exits(), job.step(), time.monotonic()
        if job.ended or at >= job.steps:
            raise SystemExit(f"the run was over before fault {kind!r} at step {step}")
        known = getattr(faults, kind)()
        detected, told = 0.0, 0.0
        deadline = start + PATIENCE
        while not (told and all(job.step(host, since=told) > at for host in range(HOSTS))):
            if not told and job.exits() != before:
                detected, told = time.monotonic() - start, time.time()
            if job.ended or time.monotonic() > deadline:
                raise SystemExit(f"no recovery from {kind!r} at step {at}: {job.outcomes}")
            time.sleep(0.02)
        recovered = time.monotonic() - start
        done.append(
            {
                "fault": kind,
                "step": at,
                "detected": detected,
                "recovered": recovered,
                "cause": known or cause(job, before),
            }
        )
        print(
            f"{kind:16} step {at:4}  detected {detected:5.1f} s  recovered {recovered:5.1f} s  "
            f"{done[-1]['cause']}",
            file=sys.stderr,
            flush=True,
        )
    return done


def cause(job: Job, before: set[str]) -> str:
    """The reported cause of the attempt that the fault ended."""
    from llm_jax.launch import job as jobs

    new = sorted(name.split("/")[2] for name in job.exits() - before)
    attempts = {a["attempt"]: a["cause"] for a in jobs.status(job.spec.out)["attempts"]}
    return next((attempts[name] for name in new if name in attempts), "")


def outcome(out: Path) -> tuple[dict, dict[int, float], list[int]]:
    """Parameters, moments and guard of the last checkpoint; losses; skipped steps."""
    import jax

    from llm_jax.train.damage import saved_steps
    from llm_jax.train.metrics import read_metrics

    step = out.absolute() / "checkpoints" / str(saved_steps(out / "checkpoints")[0])
    saved = {name: arrays(step / name) for name in ("params", "opt", "guard")}
    leaves = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(saved)}
    records = list(read_metrics(out / "metrics.jsonl"))
    losses = {r["step"]: r["loss"] for r in records if r["split"] == "train"}
    return leaves, losses, [r["step"] for r in records if r["split"] == "skipped"]  # fmt: skip


def arrays(item: Path):
    """An item of a checkpoint as NumPy arrays, because its devices do not exist here."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    tree = reader.metadata(item).item_metadata.tree
    wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return reader.restore(item, args=ocp.args.PyTreeRestore(restore_args=wanted))


def compare(calm: Path, disturbed: Path) -> tuple[int, list[int]]:
    """Ends the program unless both runs are equal, bit for bit. Returns their last step, and the
    steps that were skipped."""
    import numpy as np

    (a, losses_a, skipped_a), (b, losses_b, skipped_b) = outcome(calm), outcome(disturbed)
    different = [
        name for name in a if np.asarray(a[name]).tobytes() != np.asarray(b[name]).tobytes()
    ]
    if different or a.keys() != b.keys():
        raise SystemExit(f"the final state differs in {different}")
    if losses_a != losses_b or skipped_a != skipped_b:
        raise SystemExit("losses or skipped steps differ")
    return max(losses_a), skipped_a


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a tmpfs at `folder`; yields whether that was possible."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--folder", type=Path, help="new folder for the runs, which is kept")
    parser.add_argument("--trainer", metavar="RUN_JSON", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trainer:
        trainer(args.trainer)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    os.environ["JAX_PLATFORMS"] = "cpu"
    dice = random.Random(args.seed)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        mounted = stack.enter_context(small_disk(folder / "disk"))
        kinds = [name for name in vars(Faults) if not name.startswith("_")]
        if not mounted:
            print("left out: fill_disk (mounting a small disk needs root)", file=sys.stderr)
            kinds.remove("fill_disk")
        data = dataset(folder / "data")
        steps = FIRST_FAULT + args.faults * STEPS_PER_FAULT + STEPS_PER_FAULT
        started = time.monotonic()
        calm = Job(folder, folder / "calm", data, steps)
        calm.launch()
        calm.finish()
        middle = time.monotonic()
        disk = folder / "local"
        job = Job(folder, folder / "disk" / "run", data, steps, disk)
        job.launch()
        done = disturb(job, Faults(job, data, disk, dice), schedule(args.faults, dice, kinds))
        job.finish()
        last, skipped = compare(calm.out, job.out)
        if not set(skipped) >= {step + 1 for step in POISONED if step < last}:
            raise SystemExit(f"poisoned steps were not skipped: {skipped}")
        report(done, job, middle - started, time.monotonic() - middle)


def report(done: list[dict], job: Job, calm: float, disturbed: float) -> None:
    from llm_jax.runs.starts import accounted, goodput, read_starts

    starts = read_starts(job.out)
    logs = (job.out / "launch/logs").glob("*/host.0.log")
    near = sum("on the hosts' own disks is used" in path.read_text() for path in logs)
    by_kind = {
        kind: {
            name: round(statistics.median(d[name] for d in done if d["fault"] == kind), 2)
            for name in ("detected", "recovered")
        }
        for kind in sorted({d["fault"] for d in done})
    }
    print(
        json.dumps(
            {
                "faults": len(done),
                "steps": job.steps,
                "bitwise_equal": True,
                "starts": len(starts),
                "starts_from_own_disks": near,
                "goodput": round(goodput(starts), 3),
                "seconds": {name: round(value, 1) for name, value in accounted(starts).items()},
                "seconds_without_faults": round(calm, 1),
                "seconds_with_faults": round(disturbed, 1),
                "median_seconds": by_kind,
                "causes": [d["cause"] for d in done],
            }
        )
    )


if __name__ == "__main__":
    main()
