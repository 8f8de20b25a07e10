"""Launch a run on one machine or many, and keep it going until it is finished.

Examples:
  llm-jax launch run tiny --name demo --out runs/demo --accelerator cpu-2 --slices 2 --steps 100
  llm-jax launch run tiny --name demo --out gs://bucket/demo --accelerator v5p-128 --backend tpu \\
      --project my-project --zone us-east5-a --code . --data.path gs://bucket/data --dry-run
  llm-jax launch run --spec job.json
  llm-jax launch run data curate --input /shared/crawl --recipe web-en --out /shared/clean \\
      --backend slurm --partition cpu --dry-run

CONFIG and the flags of its fields are those of `llm-jax train`; the hosts get the resolved run.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llm_jax.commands import begin
from llm_jax.commands.overrides import override
from llm_jax.config import (
    ConfigError,
    RunConfig,
    UserError,
    from_dict,
    read_json,
    require,
    to_dict,
)
from llm_jax.config.exits import PREEMPTED
from llm_jax.launch import spec as specs
from llm_jax.launch.spec import JobSpec

OVERRIDES = True
BACKENDS = {
    "local": specs.Local,
    "slurm": specs.Slurm,
    "tpu": specs.Tpu,
    "gke": specs.Gke,
    "skypilot": specs.SkyPilot,
}


class JobFailed(UserError):
    """The job was launched well and failed: neither a usage nor a configuration error."""

    exit_code = 1


class JobStopped(UserError):
    """The job was stopped before its end, with its state saved."""

    exit_code = PREEMPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print the actions, exactly, and do nothing")
    add("--manifest", action="store_true", help="with --dry-run: print YAML for kubectl apply")
    add("--detach", action="store_true", help="return once launched; continue in the background")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that make the job's specification."""
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="recipe, run.json, or folder of a run")
    add("--spec", metavar="FILE", help="job.json with these fields; flags override it")
    begin.add_other_run(parser)
    add("--name", help="name of the job and the run (default: that of the run)")
    add("--out", help="folder of the run, or gs://bucket/folder (default: that of the run)")
    add("--accelerator", help="v5p-128, h100-8, a3-megagpu-8g, cpu-2, … (default cpu-1)")
    add("--slices", type=int, help="TPU slices, or GPU and CPU machines (default 1)")
    add("--backend", choices=BACKENDS, help="where to run (default local)")
    add("--code", metavar="DIR", help="folder to send to the hosts and install there")
    add("--image", help="container image that holds llm_jax, by digest")
    add("--capacity", choices=("on-demand", "spot", "reserved", "flex-start"))
    add("--reservation", help="name of the reservation, with --capacity reserved")
    add("--retries", type=int, help="restarts without progress (default 3)")
    add("--grace-seconds", type=float, help="time to save when told to stop (default 120)")
    add("--env", action="append", metavar="NAME=VALUE", help="for the trainer; no secrets")
    for flag in sorted({f.name for b in BACKENDS.values() for f in fields(b)} - {"kind"}):
        owners = [name for name, b in BACKENDS.items() if flag in {f.name for f in fields(b)}]
        add(f"--{flag.replace('_', '-')}", help=f"back end {', '.join(owners)}")


def job_spec(args: argparse.Namespace) -> JobSpec:
    """The specification that the flags make, over that of `--spec`.

    Raises:
      UserError: no config named.
      ConfigError: a field is wrong or missing.
    """
    raw = read_json(args.spec) if args.spec else {}
    _require_object(raw, f"--spec {args.spec}")
    raw = raw.get("spec", raw)  # a job's own launch/job.json is accepted as well
    _require_object(raw, "job")
    for item in fields(JobSpec):
        value = getattr(args, item.name, None)
        if value is not None and item.name not in ("backend", "env"):
            raw[item.name] = value
    _require_object(raw.get("env", {}), "job.env")
    if args.env:
        raw["env"] = {**raw.get("env", {}), **dict(_variable(text) for text in args.env)}
    _set_other_run(raw)
    if "config" not in raw:
        raise UserError(
            "llm-jax launch run needs a CONFIG: a recipe's name, a run.json, or a --spec with one."
        )
    _set_backend(raw, args)
    _defaults_of_the_run(raw)
    return from_dict(raw, JobSpec, "job")


def _set_other_run(raw: dict[str, Any]) -> None:
    """Makes the path of the run to begin with absolute. Without a CONFIG, it is that run's."""
    from llm_jax.launch import parent

    for name in ("init", "branch"):
        if not isinstance(raw.get(name), str):
            continue
        raw[name] = parent.whole(raw[name])
        if "config" in raw:
            continue
        folder, _ = parent.split(raw[name])
        if folder.startswith("gs://"):
            raise UserError(
                f"--{name} {raw[name]} needs a CONFIG beside it, such as a copy of that run's own: "
                f"gcloud storage cp {folder}/run.json run.json"
            )
        begin.require_another_folder(raw.get("out"), folder)
        raw |= {"config": folder, "name": raw.get("name", _job_name(Path(raw["out"]).name))}


def _require_object(value: Any, where: str) -> None:
    require(
        isinstance(value, dict), f"{where} is {value!r}: it must be an object with named fields."
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    require(bool(equals), f"--env is {text!r}: write NAME=VALUE.")
    return name, value


def trained_run(spec: JobSpec, args: argparse.Namespace, verb: str = "launch run") -> RunConfig:
    """The run that `spec.config` names, with the flags of its fields applied, and what it keeps of
    the run that it begins with."""
    from llm_jax.launch import parent

    run = override(spec.config, args.overrides, verb=verb, own=args.flags)
    name = run.name
    if other := spec.init or spec.branch:
        theirs = parent.parent_config(other)
        run = begin.keeping(run, spec.config, other, theirs, args.overrides)
        if spec.config == parent.split(other)[0]:
            name = Path(spec.out).name  # as `train` names a run that has no CONFIG
    return replace(run, name=args.name or name, out=spec.out)


def _set_backend(raw: dict[str, Any], args: argparse.Namespace) -> None:
    """Puts the flags of the chosen back end into its part; others are refused."""
    held = raw.get("backend", {"kind": "local"})
    _require_object(held, "job.backend")
    kind = args.backend or held.get("kind")
    backend = held if held.get("kind") == kind else {"kind": kind}
    require(isinstance(kind, str), f"job.backend.kind is {kind!r}: it must be of type str.")
    known = {f.name for f in fields(BACKENDS[kind])} if kind in BACKENDS else set()
    for flag in {f.name for b in BACKENDS.values() for f in fields(b)} - {"kind"}:
        value = getattr(args, flag)
        if value is not None:
            require(
                flag in known,
                f"--{flag.replace('_', '-')} does not go with the {kind} back end.",
            )
            backend[flag] = _yes_no(flag, value) if flag in ("external_ips", "numa") else value
    raw["backend"] = backend


def _job_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _yes_no(flag: str, text: str) -> bool:
    shown = f"--{flag.replace('_', '-')}"
    require(text in ("true", "false"), f"{shown} is {text!r}: write true or false.")
    return text == "true"


def _defaults_of_the_run(raw: dict[str, Any]) -> None:
    if isinstance(raw.get("config"), str) and not ("name" in raw and "out" in raw):
        from llm_jax.config import load

        run = load(raw["config"])
        raw.setdefault("name", _job_name(run.name))
        raw.setdefault("out", run.out)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch import job, manifest
    from llm_jax.launch.backends import driver
    from llm_jax.launch.folder import open_folder
    from llm_jax.launch.pinned import pin
    from llm_jax.launch.records import load_job, read_json

    require(not args.manifest or args.dry_run, "--manifest goes with --dry-run: give both.")
    spec = job_spec(args)
    trained = trained_run(spec, args)
    if args.dry_run:
        job.check_given(spec, trained)
        if args.manifest:
            return {"job": spec.name, "manifest": manifest.text(spec, trained)}
        spec, lock = pin(spec, _say)
        planned = job.actions(spec, trained, first=0, lock=lock)
        return {"job": spec.name, "actions": [action.describe() for action in planned]}
    back = driver(spec)
    resolved, first = job.prepare(spec, back, _say, trained)
    folder = open_folder(spec.out)
    if back.resource().state in job.GOING:
        held, _ = load_job(folder)
        trains = read_json(folder, "launch/run.json")
        same = replace(held, sha256={}) == replace(spec, sha256={})
        require(
            same and trains == to_dict(resolved),
            f"The job {spec.name} is running with another specification: stop it first.",
        )
        _say("already running, with what it was launched with: supervising it from here")
    else:
        spec, lock = pin(spec, _say, folder)
        job.store(spec, resolved, first, lock)
    return _detached(spec) if args.detach else _attached(spec)


def _attached(spec: JobSpec) -> dict[str, Any]:
    """Supervises to the end. Ctrl-C or SIGTERM stops a local job and leaves others running."""
    from llm_jax.launch import job
    from llm_jax.launch.supervisor import supervise

    def terminate(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    again = "run `llm-jax launch run` with the same flags"
    try:
        outcome = supervise(spec.out, _say)
    except KeyboardInterrupt:
        if spec.backend.kind != "local":
            _say(f"the job continues without a supervisor: {again} to supervise it again")
            raise
        job.stop(spec.out, _say)
        raise JobStopped(f"The job {spec.name} was stopped: {again} to resume it.") from None
    if outcome.state == "stopped":
        raise JobStopped(f"The job {spec.name} was stopped: {again} to resume it.")
    result = job.status(spec.out)
    if outcome.state == "failed":
        hopeless = any(h["kind"] == "config" for a in result["attempts"][-1:] for h in a["hosts"])
        error = ConfigError if hopeless else JobFailed
        raise error(f"The job {spec.name} failed: {outcome.cause}.")
    return result


def _detached(spec: JobSpec) -> dict[str, Any]:
    from llm_jax.launch import job
    from llm_jax.launch.supervisor import supervise_in_background

    log = f"{spec.name}.launch.log"
    pid = supervise_in_background(spec.out, log)
    _say(f"supervised by process {pid} of this machine, which writes {log}")
    return job.status(spec.out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def text(result: dict[str, Any]) -> str:
    if "manifest" in result:
        return result["manifest"].rstrip("\n")
    if "actions" in result:
        return "\n".join(json.dumps(action, indent=1) for action in result["actions"])
    from llm_jax.commands.launch_status import text as status_text

    return status_text(result)
