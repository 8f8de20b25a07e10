"""What `test_slurm.py` has done inside the cluster; prints what it saw as one JSON object."""

import json
import subprocess
import sys
import time
from pathlib import Path

from llm_jax import config
from llm_jax.config import UserError
from llm_jax.launch import job
from llm_jax.launch.backends import slurm
from llm_jax.launch.spec import JobSpec, Limits, Slurm

FOLDER = Path(sys.argv[1])
TRAINER = [sys.executable, str(Path(__file__).with_name("fake_trainer.py"))]
ROOT = Path(__file__).parents[2]


def make_spec(name: str, faults: str = "", **changes) -> JobSpec:
    setup = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT}"
    fields = {
        "name": name,
        "config": str(FOLDER / "run.json"),
        "out": str(FOLDER / name),
        "slices": 2,
        "trainer": TRAINER,
        "grace_seconds": 5,
        "backoff_seconds": 0.1,
        "limits": Limits(heartbeat=15),
        "env": {"FAKE_FAULTS": faults, "FAKE_STEP_SECONDS": "0.05"},
        "backend": Slurm(setup=setup),
    }
    return JobSpec(**fields | changes)


def submit(spec: JobSpec) -> slurm.Driver:
    back = slurm.Driver(spec)
    run, first = job.prepare(spec, back)
    job.store(spec, run, first)
    for action in back.render(first):
        back.apply(action)
    return back


def until(spec: JobSpec, states: tuple[str, ...], seconds: float) -> dict:
    """Polls until the job is in one of the states; requeued jobs need not wait for BeginTime."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = job.status(spec.out)
        if status["state"] in states:
            break
        if "BeginTime" in status["detail"]:
            number = str(slurm.Driver(spec)._id())
            subprocess.run(["scontrol", "update", f"jobid={number}", "StartTime=now"])
        time.sleep(0.5)
    return job.status(spec.out)


def refusal(spec: JobSpec) -> str:
    try:
        submit(spec)
    except UserError as error:
        return str(error)
    return "not refused"


def scenario(spec: JobSpec, seconds: float = 120) -> dict:
    submit(spec)
    seen = until(spec, ("finished", "failed", "stopped"), seconds)
    final = Path(spec.out) / "final.json"
    seen["final"] = json.loads(final.read_text()) if final.exists() else None
    return seen


def stopped() -> dict:
    spec = make_spec("stopped", env={"FAKE_STEP_SECONDS": "0.3"})
    submit(spec)
    end = time.monotonic() + 60
    while job.status(spec.out)["step"] < 3 and time.monotonic() < end:
        time.sleep(0.2)
    listed = slurm.listing()
    result = job.stop(spec.out, lambda text: None)
    checkpoint = json.loads((Path(spec.out) / "checkpoint.json").read_text())
    return {"listed": listed, "result": result, "step": checkpoint[0]}


def main() -> None:
    run = config.RunConfig(
        name="fake",
        out="unused",
        steps=40,
        optim=config.OptimConfig(warmup_steps=10),
        model=config.ModelConfig(
            vocab_size=64, num_layers=1, d_model=8, num_heads=1, num_kv_heads=1, head_dim=8,
            d_ff=16, max_seq_len=1024,
        ),
    )  # fmt: skip
    (FOLDER / "run.json").write_text(config.to_json(run))
    seen = {
        "too many": refusal(make_spec("many", slices=3)),
        "no partition": refusal(make_spec("part", backend=Slurm(partition="gpu"))),
        "trainer killed": scenario(make_spec("trainer", "kill:1:7")),
        "agent killed": scenario(make_spec("agent", "agent:1:12")),
        "hopeless": scenario(make_spec("hopeless", "config:0:0!")),
        "stopped": stopped(),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
