"""The agent: one on each host, the same on every back end, parent of that host's trainer.

    python -m llm_jax.launch.agent OUT

It meets the other hosts in the output folder, starts the trainer once all are there, forwards
signals, streams the log, watches for progress, and writes how it ended. When all have, the attempt
is closed (history.py), and all agents reach the same decision from it: start again, or leave.

Exit codes: 0 the run is finished; 75 it was told to stop; 76 a host is lost, and the back end must
replace it; 78 the records say that starting again would not help.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.exits import CONFIG, FINISHED, PEER_LOST, PREEMPTED
from llm_jax.config.grace import GRACE
from llm_jax.config.secrets import redact, secret_values
from llm_jax.launch import checks, mount, parent
from llm_jax.launch.budget import pace
from llm_jax.launch.cause import classify, decide, sentence
from llm_jax.launch.checks import Refused
from llm_jax.launch.folder import Folder, open_folder
from llm_jax.launch.history import next_attempt
from llm_jax.launch.manifest import VARIABLE, put_files
from llm_jax.launch.news import Gang
from llm_jax.launch.records import (
    Attempt,
    ExitRecord,
    Kind,
    load_job,
    read_json,
    record_exit,
    stop_requested,
    trainer_status,
)
from llm_jax.launch.settle import past_attempts, settle
from llm_jax.launch.spec import JobSpec
from llm_jax.launch.trainer import Trainer, kernel_kills
from llm_jax.launch.watch import Watch, store_output
from llm_jax.runs.claim import ATTEMPT, JOB
from llm_jax.runs.plan_file import PLAN, plan_file


class Agent:
    def __init__(self, folder: Folder, spec: JobSpec, first: int, env: Mapping[str, str]) -> None:
        self.folder, self.spec, self.first, self.env = folder, spec, first, env
        self.process = checks.this_process(spec, env)
        self.incarnation = int(env.get("LLM_JAX_INCARNATION", first))
        self.incarnation += int(env.get("LLM_JAX_RESTARTS", 0))
        self.pace = pace(spec, bucket=folder.address.startswith("gs://"))
        self.terminated = False
        self.wake = threading.Event()
        """Set when there is something to look at before the next look is due."""
        self.secrets = secret_values(env)
        self.dice = random.Random()

    def run(self) -> int:
        """Runs attempts until the job is over for this host; returns the exit code."""
        self.spread()
        past = past_attempts(self)
        while True:
            decision = decide(past, self.spec.retries, self.spec.backoff_seconds)
            if decision.action == "finished":
                return FINISHED
            if decision.action == "stop":
                self.say(f"not starting again: {decision.cause}")
                return CONFIG
            if decision.cause:
                self.say(f"{decision.cause}; starting again in {decision.wait:.0f} s")
            self.rest(decision.wait)
            if self.leaving():
                return PREEMPTED
            attempt = next_attempt(past, self.incarnation)
            gang = Gang(self.folder, attempt, self.spec, self.process, self.pace, self.say)
            record = self.attempt(attempt, gang)
            record_exit(self.folder, attempt, record)
            gang.end(record.kind)
            self.say(f"attempt {attempt}: {sentence(record)}")
            past = settle(self, attempt, gang)
            if any(a.name == attempt and _lost_a_host(a) for a in past):
                return PEER_LOST

    def say(self, text: str) -> None:
        print(f"[agent {self.process}] {text}", flush=True)

    def without_secrets(self, output: bytes) -> bytes:
        """What a trainer wrote, with known secrets hidden, those of this environment among them."""
        text = redact(output.decode(errors="surrogateescape"), self.secrets)
        return text.encode(errors="surrogateescape")

    def leaving(self, gang: Gang | None = None) -> bool:
        """Whether the job is to stop here; within an attempt the gang hears of it."""
        if self.terminated:
            return True
        return stop_requested(self.folder) if gang is None else gang.known.stop

    def pause(self, seconds: float) -> None:
        """Waits, but not on after a signal or the trainer's end."""
        self.wake.wait(max(0.0, seconds))
        self.wake.clear()

    def spread(self) -> None:
        """Waits for a moment of this host's own."""
        if self.pace.spread:
            self.pause(self.dice.uniform(0, self.pace.spread))

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.leaving():
            self.pause(min(self.pace.news, left))

    def attempt(self, attempt: str, gang: Gang) -> ExitRecord:
        """One attempt from the checks to the trainer's end."""
        try:
            if self.spec.slice_type.kind == "tpu":
                checks.check_devices()
            address = checks.own_address(self.spec)
            presence: dict[str, Any] = {
                "hostname": socket.gethostname(),
                "address": address,
                "port": checks.free_port(address) if self.process == 0 else None,
                "pid": os.getpid(),
            }
            checks.announce(self.folder, attempt, self.process, presence)
        except Refused as error:
            return self.record("refused", str(error), None, None)

        try:
            lead = self.meet(gang)
        except Refused as error:
            return self.record("missing", str(error), None, None)
        if lead is None:
            if self.leaving(gang):
                return self.record("preempted", "stopped before the start", None, None)
            self.spread()
            return self.record("peer", "lost a peer before the start", None, None)
        return self.train(attempt, gang, presence, lead)

    def meet(self, gang: Gang) -> dict[str, Any] | None:
        """Waits until every host of the gang has announced itself.

        Returns:
          What host 0 announced (its address and port), or None if a host has ended already or the
          job is to stop.

        Raises:
          Refused: hosts are missing after `spec.rendezvous_seconds`; the sentence names them.
        """
        deadline = time.monotonic() + self.spec.rendezvous_seconds
        while True:
            news = gang.look(started=False)  # nobody is silent before the start
            if self.leaving(gang) or news.ended:
                return None
            if news.lead is not None:
                return news.lead
            # Readers look who is missing, and from them the others hear that the attempt has ended.
            if time.monotonic() > deadline and gang.turn is not None:
                missing = gang.missing_hosts() or [0]  # all came, but none heard host 0's address
                raise Refused(
                    checks.missing_sentence(missing, self.spec)
                    + checks.why_missing(self.folder, gang.attempt, self.spec, missing)
                )
            self.pause(gang.due - time.monotonic())

    def train(self, attempt: str, gang: Gang, presence: dict, lead: dict) -> ExitRecord:
        self.folder.delete(f"status.{self.process}.json")
        run = read_json(self.folder, "launch/run.json")
        if run is None:
            return self.record("config", "launch/run.json is missing", None, None)
        root, begin = mount.mount_root(self.env), parent.words(self.spec)
        try:
            mount.check_mounts([run, begin], self.folder, root)
        except Refused as error:
            return self.record("refused", str(error), None, None)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "run.json"
            path.write_text(json.dumps(mount.as_files(run, root)), encoding="utf-8")
            if plan := self.folder.read(f"launch/{PLAN}"):
                plan_file(path).write_bytes(plan)
            train = self.spec.trainer or [sys.executable, "-m", "llm_jax", "train"]
            kills = kernel_kills()
            trainer = Trainer(
                [*train, str(path), *mount.as_files(begin, root)],
                self.trainer_environment(attempt, lead),
                self.wake,
            )
            try:
                watch = Watch(self, attempt, gang, presence, trainer)
                told = watch.until_end()
            finally:
                trainer.finish()
        code = trainer.code()
        assert code is not None
        if told is None and code == -signal.SIGKILL and kernel_kills() > kills:
            told = ("memory", "killed by the kernel for lack of memory")
        if told is None and code == -signal.SIGTERM and watch.asked is not None:
            told = ("preempted", "stopped before it could save")
        kind, words = told or classify(
            code, self.without_secrets(trainer.tail).decode(errors="replace")
        )
        if kind in ("peer", "finished"):  # so do the others, at the same moment
            self.spread()
        store_output(self, attempt, trainer)
        return self.record(kind, words, code, trainer_status(self.folder, self.process))

    def trainer_environment(self, attempt: str, lead: dict) -> dict[str, str]:
        """The trainer's environment; `lead` is what host 0 announced."""
        spec, env = self.spec, dict(self.env)
        env |= {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        env |= {JOB: self.folder.address, ATTEMPT: attempt, GRACE: str(spec.grace_seconds)}
        if spec.slice_type.kind == "cpu":
            count = f"--xla_force_host_platform_device_count={spec.slice_type.chips_per_host}"
            env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {count}".strip()
            env |= {"JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
        if spec.hosts > 1:
            coordinator = f"{lead['address']}:{lead['port']}"
            env |= {
                "JAX_COORDINATOR_ADDRESS": coordinator,
                # Not on all interfaces, as is the default.
                "JAX_COORDINATOR_BIND_ADDRESS": coordinator,
                "JAX_NUM_PROCESSES": str(spec.hosts),
                "JAX_PROCESS_ID": str(self.process),
            }
        return env | spec.env

    def record(self, kind: Kind, words: str, code: int | None, status: dict | None) -> ExitRecord:
        status = status or {"step": -1, "phase": "startup"}
        return ExitRecord(
            process=self.process,
            hostname=socket.gethostname(),
            kind=kind,
            sentence=words,
            code=code,
            step=status["step"],
            phase=status["phase"],
            time=time.time(),
        )


def _lost_a_host(attempt: Attempt) -> bool:
    return any(end.kind in ("lost", "missing") for end in attempt.exits)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m llm_jax.launch.agent OUT", file=sys.stderr)
        return 2
    try:
        folder = open_folder(sys.argv[1])
        if VARIABLE in os.environ:
            put_files(folder, Path(os.environ[VARIABLE]))
        spec, first = load_job(folder)
        agent = Agent(folder, spec, first, os.environ)
    except (UserError, Refused) as error:
        print(f"error: {error}", file=sys.stderr)
        return CONFIG
    except OSError as error:
        return unanswered(sys.argv[1], error)

    def terminate(number: int, frame: Any) -> None:
        agent.terminated = True
        agent.wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    try:
        return agent.run()
    except OSError as error:
        return unanswered(folder.address, error)


def unanswered(address: str, error: OSError) -> int:
    """The exit code of an agent whose output folder fails, which is said."""
    print(f"error: the output folder {address} does not answer: {error}", file=sys.stderr)
    return PEER_LOST


if __name__ == "__main__":
    sys.exit(main())
