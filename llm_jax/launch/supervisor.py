"""The supervisor: keeps a job's hosts allocated until the run is finished or hopeless.

The agents restart trainers by themselves as long as all hosts live. What they cannot do is replace
hosts: that is done here, by giving the allocation back and making a new one. Training resumes from
the last good checkpoint since the trainer resumes what it finds in the output folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.launch.backends import Driver, Resource, driver
from llm_jax.launch.cause import Decision, decide, root_cause, sentence
from llm_jax.launch.folder import Folder, open_folder
from llm_jax.launch.history import (
    close,
    closed_attempts,
    history,
    next_incarnation,
    read_closed,
    unclosed,
)
from llm_jax.launch.lease import Lease, LeaseLost
from llm_jax.launch.records import (
    ExitRecord,
    Kind,
    attempt_name,
    load_job,
    outside_record,
    stop_requested,
    trainer_statuses,
)
from llm_jax.launch.spec import JobSpec

BLIND_SECONDS = 3600.0  # without any answer; then the supervisor gives up, saying why


@dataclass(frozen=True)
class Outcome:
    state: Literal["finished", "failed", "stopped", "handed over"]
    cause: str


class Supervisor:
    def __init__(
        self,
        spec: JobSpec,
        first: int,
        back: Driver,
        folder: Folder,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        poll: float = 1.0,
    ) -> None:
        self.spec, self.first, self.back, self.folder = spec, first, back, folder
        self.say, self.sleep, self.poll = say, sleep, poll
        self.incarnation = first
        self.refusals = 0
        """Allocations in a row that failed before any host started."""
        self.told: set[str] = set()
        """Attempts whose end was said."""

    def run(self) -> Outcome:
        """Supervises until the end. Raises `UserError` if another supervisor is alive."""
        lease = Lease(self.folder)
        try:
            return self._run(lease)
        except LeaseLost:
            return Outcome("handed over", "another supervisor has taken the job over")
        finally:
            lease.release()

    def _run(self, lease: Lease) -> Outcome:
        last, blind = "", 0.0
        while True:
            lease.check()
            try:
                if stop_requested(self.folder):
                    return Outcome("stopped", "on request")
                resource = self.back.resource()
                self._tell()
                if resource.state == "running" and self._over():
                    resource = Resource("ended")
            except (UserError, OSError) as error:
                # Networks fail: what runs continues without being watched.
                blind += self.poll
                if last == "" or blind > BLIND_SECONDS:
                    raise
                self.say(f"cannot look at the job: {error}")
                self.sleep(self.poll)
                continue
            blind = 0.0
            words = {"absent": "starting", "ended": "all hosts have left"}
            seen = words.get(resource.state, resource.state)
            seen += f": {resource.detail}" if resource.detail else ""
            if seen != last:
                self.say(seen)
                last = seen
            if resource.state in ("waiting", "running"):
                self.sleep(self.poll)
                continue
            outcome = self._replace(resource, lease)
            if outcome:
                return outcome

    def _tell(self) -> None:
        """Closes attempts that have ended everywhere, and says how those ended that the agents
        start again by themselves."""
        for name, seen in unclosed(self.folder, self.first).items():
            if len(seen.ended) == self.spec.hosts:
                close(self.folder, self.spec.hosts, self.first, name)
        for name in closed_attempts(self.folder):
            if name < attempt_name(self.first, 0) or name in self.told:
                continue
            self.told.add(name)
            held = read_closed(self.folder, name)
            if held and held[-1].recorded == self.spec.hosts:
                cause = root_cause(held[-1])
                self.say(f"attempt {name}: {sentence(cause) if cause else 'finished'}")

    def _over(self) -> bool:
        """Whether all agents have left although their hosts still run, as TPU VMs do."""
        here = attempt_name(self.incarnation, 0)
        names = [*closed_attempts(self.folder), *unclosed(self.folder, self.first)]
        if max(names, default="") < here or max(names) not in self.told:
            return False
        past = history(self.folder, self.spec.hosts, self.first)
        if past[-1].recorded < self.spec.hosts:
            return False
        return decide(past, self.spec.retries, self.spec.backoff_seconds).action != "retry"

    def _replace(self, resource: Resource, lease: Lease) -> Outcome | None:
        """The allocation is over: ends the job, or makes the next allocation."""
        self._close_last(resource)
        if resource.state != "absent":
            self.back.remove()
        decision = self._decide(resource)
        if decision.action == "finished":
            return Outcome("finished", "")
        if decision.action == "stop":
            return Outcome("failed", decision.cause)
        if decision.cause:
            self.say(f"{decision.cause}; starting again in {decision.wait:.0f} s")
        self._rest(decision.wait)
        if stop_requested(self.folder):
            return Outcome("stopped", "on request")
        lease.check()
        self.incarnation = max(self.first, next_incarnation(self.folder))
        for action in self.back.render(self.incarnation):
            self.back.apply(action)
        return None

    def _decide(self, resource: Resource) -> Decision:
        past = history(self.folder, self.spec.hosts, self.first)
        since = attempt_name(self.incarnation, 0)
        if resource.state == "absent" or any(a.ended and a.name >= since for a in past):
            self.refusals = 0
            return decide(past, self.spec.retries, self.spec.backoff_seconds)
        # Nothing was trained: no capacity, or agents that cannot start at all.
        cause = resource.detail or "the agents ended before they could write a record"
        self.refusals += resource.state != "preempted"
        if self.refusals > self.spec.retries:
            return Decision("stop", f"{cause} ({counted(self.refusals, 'time')} in a row)")
        wait = min(300.0, self.spec.backoff_seconds * 2 ** max(0, self.refusals - 1))
        return Decision("retry", cause, wait)

    def _rest(self, seconds: float) -> None:
        while seconds > 0 and not stop_requested(self.folder):
            self.sleep(min(5.0, seconds))
            seconds -= 5.0

    def _close_last(self, resource: Resource) -> None:
        """Closes the last attempt of the allocation that is over, with records for hosts that were
        taken away before they could leave their own."""
        found = unclosed(self.folder, self.first)
        if not found or resource.state == "absent":
            return
        last, seen = max(found.items())
        lost: list[ExitRecord] = []
        if resource.state in ("failed", "preempted"):
            taken = range(self.spec.hosts) if resource.state == "preempted" else resource.lost
            kind: Kind = "preempted" if resource.state == "preempted" else "lost"
            missing = sorted(set(taken) - seen.ended)
            reports = trainer_statuses(self.folder, missing)
            lost = [outside_record(p, kind, resource.detail, reports[p]) for p in missing]
        close(self.folder, self.spec.hosts, self.first, last, more=lost)


def supervise(out: str, say: Callable[[str], None]) -> Outcome:
    """Supervises the job in the folder `out` from this process."""
    folder = open_folder(out)
    spec, first = load_job(folder)
    back = driver(spec)
    poll = 0.2 if spec.backend.kind == "local" else 15.0
    return Supervisor(spec, first, back, folder, say, poll=poll).run()


def supervise_in_background(out: str, log: str) -> int:
    """Starts a supervisor that outlives this process, and waits until it has taken the job.

    Returns:
      Its process number.

    Raises:
      UserError: it ended at once; the sentence is the last line it wrote.
    """
    folder = open_folder(out)
    before = folder.names("launch/leases").keys()
    with Path(log).open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "llm_jax.launch.supervisor", out],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while child.poll() is None and folder.names("launch/leases").keys() == before:
        time.sleep(0.1)
    if child.poll():
        last = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        words = "".join(last).removeprefix("error: ")
        raise UserError(f"The supervisor ended at once: {words}")
    return child.pid


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m llm_jax.launch.supervisor OUT", file=sys.stderr)
        return 2

    def say(text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S ") + text, flush=True)

    try:
        outcome = supervise(sys.argv[1], say)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    say(f"{outcome.state} {outcome.cause}".strip())
    return 0 if outcome.state in ("finished", "stopped", "handed over") else 1


if __name__ == "__main__":
    sys.exit(main())
