"""A small real program that owes the agent what `llm-jax train` owes it, without JAX.

Its processes keep step through process 0, as collectives would make them; a checkpoint is a JSON
file; the final state is a hash over all steps, so that a lost or repeated step shows.

Faults come in FAKE_FAULTS, such as `oom:1:5` (kind:process:step), each taken once unless it ends
in `!`.
"""

import faulthandler
import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

CHECKPOINT_EVERY = 5


def next_state(state: str, step: int) -> str:
    return hashlib.sha256(f"{state}{step}".encode()).hexdigest()


def write(path: Path, value) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


class Gang:
    """Process 0 hears from all before any goes on; any wish to stop becomes everyone's."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("JAX_NUM_PROCESSES", 1))
        self.rank = int(os.environ.get("JAX_PROCESS_ID", 0))
        self.links = []
        if self.count == 1:
            return
        host, port = os.environ["JAX_COORDINATOR_ADDRESS"].rsplit(":", 1)
        if self.rank == 0:
            with socket.create_server((host, int(port))) as server:
                self.links = [server.accept()[0] for _ in range(self.count - 1)]
            return
        while not self.links:
            try:
                self.links = [socket.create_connection((host, int(port)))]
            except ConnectionRefusedError:
                time.sleep(0.02)

    def agree(self, stop: bool) -> bool:
        own = b"s" if stop else b"g"
        if self.rank == 0:
            heard = [own] + [self.receive(link) for link in self.links]
            own = b"s" if b"s" in heard else b"g"
        for link in self.links:
            self.send(link, own)
        if self.rank:
            own = self.receive(self.links[0])
        return own == b"s"

    def receive(self, link: socket.socket) -> bytes:
        try:
            data = link.recv(1)
        except OSError:
            data = b""
        if not data:
            print("heartbeat timeout: the coordination service lost a task", flush=True)
            os._exit(76)
        return data

    def send(self, link: socket.socket, data: bytes) -> None:
        try:
            link.sendall(data)
        except OSError:
            print("Connection reset by peer", flush=True)
            os._exit(76)


def fault(rank: int, step: int, out: Path) -> None:
    for number, text in enumerate(filter(None, os.environ.get("FAKE_FAULTS", "").split(","))):
        kind, process, at = text.rstrip("!").split(":")
        marker = out / f"fault.{number}"
        if (rank, step) != (int(process), int(at)) or (marker.exists() and text[-1] != "!"):
            continue
        marker.write_text("taken")
        print(f"fault {kind} at step {step}", flush=True)
        if kind == "oom":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1234 bytes.")
        if kind == "raise":
            raise ValueError("the loss is not a number")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind == "hang":
            while True:
                time.sleep(1)
        if kind == "config":
            print("error: data.path is 'nowhere': there is no such folder.", flush=True)
            os._exit(78)
        if kind == "agent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if kind == "disk":
            raise OSError(28, "No space left on device")


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    run = json.loads(Path(sys.argv[-1]).read_text())
    out = Path(run["out"])
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    gang = Gang()

    def report(phase: str, step: int) -> None:
        status = {"phase": phase, "step": step, "time": time.time()}
        write(out / f"status.{gang.rank}.json", status)

    step, state = 0, ""
    held = out / "checkpoint.json"
    report("restore", 0)
    if held.exists():
        step, state = json.loads(held.read_text())
    print(f"process {gang.rank} begins at step {step}", flush=True)
    while step < run["steps"]:
        fault(gang.rank, step, out)
        stop = gang.agree(bool(told))
        if not stop:
            state = next_state(state, step)
            step += 1
            report("step", step)
            time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", 0.01)))
        if stop or step % CHECKPOINT_EVERY == 0 or step == run["steps"]:
            report("save", step)
            if gang.rank == 0:
                write(held, (step, state))
            gang.agree(False)  # nobody goes on before the checkpoint is there
        if stop:
            print("stopped for a preemption", flush=True)
            sys.exit(75)
    if gang.rank == 0:
        write(out / "final.json", state)
    print("done", flush=True)


if __name__ == "__main__":
    main()
