"""Slurm with eight GPUs a node: whole nodes, their types, and NCCL's settings."""

import subprocess

import pytest

from llm_jax.config import UserError
from llm_jax.launch import slurm_commands
from llm_jax.launch.backends import slurm
from llm_jax.launch.spec import Slurm


def lines_of(spec):
    return slurm.script(spec, 0).splitlines()


def options_of(spec):
    return {x.removeprefix("#SBATCH ") for x in lines_of(spec) if x.startswith("#SBATCH")}


def test_a_whole_node_brings_its_cores_and_memory(make_spec):
    whole = options_of(make_spec(accelerator="h200-8", slices=4, backend=Slurm(switches="1@60:00")))
    assert {"--gpus-per-node=8", "--exclusive", "--mem=0", "--ntasks-per-node=1"} <= whole
    assert "--switches=1@60:00" in whole
    part = options_of(make_spec(accelerator="h200-2", slices=1, backend=Slurm()))
    assert "--gpus-per-node=2" in part
    assert not {"--exclusive", "--mem=0"} & part
    (step,) = [x for x in lines_of(make_spec(backend=Slurm())) if x.startswith("srun")]
    assert "--cpu-bind=none" in step  # the one task of a node feeds all of its GPUs


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu:h100:8(S:0-1)", 8),
        ("gpu:nvidia_h100_80gb_hbm3:8", 8),
        ("gpu:8", 8),
        ("gpu:tesla:8", 8),
        ("gpu:a100:8", 0),
        ("gpu:a100:4,gpu:h100:4", 4),
        ("(null)", 0),
    ],
)
def test_generic_resources_are_read(gres, count):
    assert slurm.gpus(gres, "h100") == count


def test_too_few_nodes_with_such_gpus_is_one_sentence(make_spec, monkeypatch):
    shown = "n1 gpu:h100:8(S:0-1)\nn1 gpu:h100:8(S:0-1)\nn2 gpu:a100:8\nn3 (null)\n"
    monkeypatch.setattr(slurm_commands, "slurm_output", lambda *words, **options: shown)
    slurm.Driver(make_spec(accelerator="h100-8", slices=1, backend=Slurm())).check()
    slurm.Driver(make_spec(accelerator="cpu-1", slices=3, backend=Slurm())).check()
    with pytest.raises(UserError, match="needs 2 nodes with 8 h100 GPUs, and there are 1"):
        slurm.Driver(make_spec(accelerator="h100-8", slices=2, backend=Slurm())).check()


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        ("a3-highgpu-8g", {"NCCL_NET": "GPUDirectTCPX_v7", "NCCL_SOCKET_IFNAME": "enp0s12"}),
        ("a3-megagpu-8g", {"NCCL_FASTRAK_CTRL_DEV": "enp0s12", "NCCL_LIB_DIR": "LIB"}),
        ("a3-ultragpu-8g", {"NCCL_NET": "gIB", "NCCL_LIB_DIR": "LIB"}),
        ("a4-highgpu-8g", {"NCCL_NET": "gIB"}),
    ],
)
def test_nccl_is_set_up_as_the_machine_needs(make_spec, tmp_path, machine, wanted):
    """The lines are run by bash, with a profile in place of the machine's own."""
    lines = slurm.nccl_lines(machine)
    script = slurm.script(make_spec(accelerator=machine, slices=2, backend=Slurm()), 0)
    assert "\n".join(lines) in script
    profile = tmp_path / "profile.sh"
    profile.write_text("export FROM_PROFILE=$NCCL_LIB_DIR\n")
    text = "\n".join(lines)
    for word in text.split():
        if word.endswith(".sh"):
            text = text.replace(word, str(profile))
    done = subprocess.run(
        ["bash", "-c", text + "\nenv"],
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    env = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    for name, value in wanted.items():
        assert env[name] == value or (value == "LIB" and env[name].endswith("/lib64"))
    assert env["LD_LIBRARY_PATH"].split(":")[0].endswith("lib64")
    if machine == "a3-highgpu-8g":
        assert env["NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX"] == "/run/tcpx-7"
    else:
        assert env["FROM_PROFILE"] == env["NCCL_LIB_DIR"]


def test_a_missing_profile_ends_the_job_for_good():
    text = "\n".join(slurm.nccl_lines("a4-highgpu-8g"))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert done.returncode == 78
    assert done.stderr == (
        "error: a4-highgpu-8g needs /usr/local/gib/scripts/set_nccl_env.sh, which this node does "
        "not have\n"
    )


def test_one_node_and_other_clusters_get_no_settings(make_spec):
    assert slurm.nccl_lines("") == []
    one = make_spec(accelerator="a4-highgpu-8g", slices=1, backend=Slurm())
    other = make_spec(accelerator="h100-8", slices=4, backend=Slurm())
    assert not [x for spec in (one, other) for x in lines_of(spec) if "NCCL" in x]
