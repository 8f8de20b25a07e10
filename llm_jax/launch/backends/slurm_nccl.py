"""NCCL on Slurm clusters of Google Cloud's GPU machines, as their images have it installed.

Of GoogleCloudPlatform/cluster-toolkit, examples/machine-learning/*/nccl-tests (2026-06). NCCL finds
the network of other clusters by itself, or by what `--setup` sets.
"""

from __future__ import annotations

from llm_jax.launch.forms import shell_word
from llm_jax.launch.gpu_machines import MACHINES, tcpx


def nccl_lines(machine: str) -> list[str]:
    """Shell lines that set NCCL up for Google Cloud's machine type `machine`, if it is one."""
    if machine not in MACHINES:
        return []
    fabric = MACHINES[machine].fabric
    if fabric == "tcpx":
        env = tcpx("enp0s12", ("enp6s0", "enp12s0", "enp134s0", "enp140s0"))
        return [
            *(f"export {name}={shell_word(value)}" for name, value in env.items()),
            'export NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX="/run/tcpx-$SLURM_JOB_ID"',
            'export LD_LIBRARY_PATH="/var/lib/tcpx/lib64:$LD_LIBRARY_PATH"',
        ]
    folder = "/usr/local/gib" if fabric == "gib" else "/var/lib/tcpxo"
    profile = f"{folder}/scripts/set_nccl_env.sh"
    env = {"NCCL_NET": "gIB"}
    if fabric == "tcpxo":
        profile = f"{folder}/lib64/nccl-env-profile.sh"
        env = {
            "NCCL_FASTRAK_CTRL_DEV": "enp0s12",
            "NCCL_FASTRAK_IFNAME": "enp6s0,enp7s0,enp13s0,enp14s0,"
            "enp134s0,enp135s0,enp141s0,enp142s0",
            "NCCL_SOCKET_IFNAME": "enp0s12",
            "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": "/dev/aperture_devices",
        }
    missing = f"{machine} needs {profile}, which this node does not have"
    return [
        f'[ -r {profile} ] || {{ echo "error: {missing}" >&2; exit 78; }}',
        f"export NCCL_LIB_DIR={folder}/lib64",
        f". {profile}",
        *(f"export {name}={value}" for name, value in env.items()),
        f'export LD_LIBRARY_PATH="{folder}/lib64:$LD_LIBRARY_PATH"',
    ]
