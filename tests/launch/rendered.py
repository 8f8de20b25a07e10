"""Readers of what the back ends render: bash, sbatch, YAML, the kubelet and its schemas."""

import json
import os
import re
import subprocess

import pytest

from llm_jax.launch.backends import gke, skypilot, slurm, tpu
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.forms import shell_word
from llm_jax.launch.spec import Gke, Tpu


def sbatch_words(script):
    """Options of the batch script as the reader of Slurm 22.05 takes them (sbatch/opt.c)."""
    found = []
    for line in script.split("\n"):
        if line and not line.startswith("#"):
            break
        rest = line.removeprefix("#SBATCH").lstrip() if line.startswith("#SBATCH") else ""
        while rest:
            word, rest = next_word(rest)
            found.append(word)
            rest = rest.lstrip()
    return found


def next_word(line):
    made, quote, at = "", "", 0
    while at < len(line) and (quote or not line[at].isspace()):
        char = line[at]
        if char == "\\":
            at += 1
            if at == len(line) or (not quote and line[at].isspace()):
                break
            made += line[at]
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and char == "#":
            return made, ""
        else:
            made += char
        at += 1
    return made, line[at:]


def check_batch_script(spec):
    backend, out = spec.backend, LocalFolder(spec.out).address
    (action,) = slurm.render(spec, 0)
    wanted = [
        f"--job-name={spec.name}", f"--comment=llm-jax:{out}", "--nodes=1", "--ntasks-per-node=1",
        f"--output={out.replace('%', '%%')}/launch/slurm.log", "--open-mode=append", "--requeue",
        "--signal=B:TERM@180", f"--partition={backend.partition}", f"--account={backend.account}",
        f"--time={backend.time_limit}",
        *([f"--switches={backend.switches}"] if backend.switches is not None else []),
    ]  # fmt: skip
    assert sbatch_words(action.script) == wanted
    return action.script


def check_documents(spec):
    """What is sent is what was meant, also after a way through JSON and YAML."""
    if isinstance(spec.backend, Gke):
        yaml = pytest.importorskip("yaml")
        made = gke.manifest(spec, spec.backend, 0)
        assert yaml_round_trip(yaml, made) == made == json.loads(json.dumps(made))
        check_names(made)
    elif isinstance(spec.backend, Tpu):
        (request,) = tpu.render(spec, 0)
        metadata = request.queued_resource["tpu"]["node_spec"][0]["node"]["metadata"]
        assert metadata["llm-jax-out"] == spec.out
        assert request.parent.count("/") == 3
    else:
        yaml = pytest.importorskip("yaml")
        task = skypilot.task(spec, 0)
        assert yaml_round_trip(yaml, task) == task


def yaml_round_trip(yaml, made):
    text = yaml.dump(made, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
SUBDOMAIN = r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
ANNOTATIONS = 256 << 10  # bytes of all together


def check_names(made):
    """What an API server asks of names, labels and annotations, and no schema says
    (apimachinery's validation package)."""
    (slices,) = made["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]
    name, namespace = made["metadata"]["name"], made["metadata"]["namespace"]
    assert re.fullmatch(SUBDOMAIN, name) and len(f"{name}-slice-9999-9999") <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace)
    assert re.fullmatch(SUBDOMAIN, pod["spec"].get("serviceAccountName", "default"))
    labels = [*made["metadata"]["labels"].items(), *pod["metadata"]["labels"].items()]
    for key, value in [*labels, *pod["spec"].get("nodeSelector", {}).items()]:
        assert re.fullmatch(LABEL_VALUE, value, re.ASCII), (key, value)
    assert sum(len(f"{k}{v}".encode()) for k, v in made["metadata"]["annotations"].items()) <= (
        ANNOTATIONS
    )
    (container,) = pod["spec"]["containers"]
    assert container["image"] and not re.search(r"\s", container["image"])


def check_schema(made):
    """The JobSet obeys the model of its type, and its Job the schema of Kubernetes."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    # Unknown fields vanish in the models, so the way there and back must change nothing.
    assert models.JobsetV1alpha2JobSet.from_dict(made).to_dict() == made
    validate = pytest.importorskip("kubernetes_validate")
    (slices,) = made["spec"]["replicatedJobs"]
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": made["metadata"]}
    whole |= slices["template"]
    validate.validate(whole, validate.latest_version(), strict=True)
    (container,) = slices["template"]["spec"]["template"]["spec"]["containers"]
    # The kubelet: `$$` is `$`, and `$(NAME)` a variable.
    word = re.sub(
        r"\$\$|\$\((\w+)\)", lambda m: "$" if m[0] == "$$" else "X", container["command"][-1]
    )
    assert word == made["metadata"]["annotations"]["llm-jax/out"]


def check_words(words, folder):
    """bash makes of `shell_word` what went in, and runs nothing."""
    line = "printf '%s\\0' " + " ".join(shell_word(word) for word in words)
    done = subprocess.run(
        ["bash"], input=line.encode(), capture_output=True, cwd=folder, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == words
    assert list(folder.iterdir()) == []


def run_script(script, folder, out):
    """Runs a batch script with stand-ins for Slurm's commands; what the agent was given."""
    bin_, work = folder / "bin", folder / "work"
    bin_.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    (bin_ / "srun").write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > {folder}/argv\n')
    (bin_ / "srun").chmod(0o755)
    environment = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-n"], input=script.encode(), check=True, capture_output=True)
    subprocess.run(["bash"], input=script.encode(), cwd=work, env=environment, check=True)
    argv = (folder / "argv").read_text().split("\0")[:-1]
    assert argv[3:] == ["python3", "-m", "llm_jax.launch.agent", out]
    assert list(work.iterdir()) == []


def real_sbatch(script, folder):
    """`--comment` and `--output` as sbatch shows them before it finds no controller."""
    (folder / "slurm.conf").write_text(
        "ClusterName=t\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n"
        "AuthType=auth/none\nCredType=cred/none\nNodeName=n1\nPartitionName=p Nodes=n1\n"
    )
    shown = subprocess.run(
        ["sbatch", "-vv", "--test-only"],
        input=script.encode(),
        capture_output=True,
        env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")},
        timeout=60,
    ).stderr.decode()
    named = dict(re.findall(r"^sbatch: (comment|output) +: (.*)$", shown, re.MULTILINE))
    return named.get("comment"), named.get("output")
