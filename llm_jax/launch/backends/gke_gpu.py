"""The network between machines with eight GPUs on GKE: interfaces, a daemon, and NCCL's settings.

One machine alone needs none of it: its GPUs talk over NVLink.
"""

from __future__ import annotations

import json
from typing import Any

from llm_jax.config import require
from llm_jax.launch.gpu_machines import DEFAULT, MACHINES, GpuMachine, tcpx
from llm_jax.launch.spec import Gke, JobSpec

NVIDIA, ON_NODE = "/usr/local/nvidia", "/home/kubernetes/bin"
LIBRARIES, GIB = f"{NVIDIA}/lib64", "/usr/local/gib"
APERTURE, TCPX_SOCKETS = "/dev/aperture_devices", "/run/tcpx"
# Of GoogleCloudPlatform/cluster-toolkit, examples/gke-a3-highgpu and gke-a3-megagpu (2026-06).
TCPX_DAEMON = "us-docker.pkg.dev/gce-ai-infra/gpudirect-tcpx/tcpgpudmarxd-dev:v2.0.12"
TCPXO_DAEMON = "us-docker.pkg.dev/gce-ai-infra/gpudirect-tcpxo/tcpgpudmarxd-dev:v1.0.21"
DEVICES = [f"/dev/nvidia{n}" for n in range(8)] + ["/dev/nvidiactl", "/dev/nvidia-uvm"]
SHARED_MEMORY = "128Gi"
"""Of /dev/shm, where NCCL's processes meet; a container has 64 MiB by itself."""


def fabric_machine(spec: JobSpec) -> str:
    """The machine type whose network the job uses; empty if it has one machine, or no GPUs."""
    of = spec.slice_type
    whole = of.kind == "gpu" and of.chips_per_host == 8
    return (of.machine or DEFAULT.get(of.chip, "")) if whole and spec.slices > 1 else ""


def add_fabric(template: dict[str, Any], name: str, backend: Gke) -> None:
    """Adds to the template of a pod what its agents need to reach other machines' GPUs.

    Raises:
      ConfigError: `networks` does not name one for each interface.
    """
    machine, pod = MACHINES[name], template["spec"]
    template["metadata"]["annotations"] |= {
        "networking.gke.io/default-interface": "eth0",
        "networking.gke.io/interfaces": json.dumps(interfaces(machine, backend)),
    }
    (agent,) = pod["containers"]
    shared = {"emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
    volumes = {"dshm": shared, "nvidia": _host(f"{ON_NODE}/nvidia")}
    mounts = {"dshm": "/dev/shm", "nvidia": NVIDIA}
    env = {"LD_LIBRARY_PATH": LIBRARIES}
    if machine.fabric == "gib":
        volumes["gib"], mounts["gib"] = _host(f"{ON_NODE}/gib"), GIB
        env |= {"LD_LIBRARY_PATH": f"{GIB}/lib64:{LIBRARIES}", "NCCL_NET": "gIB"}
        agent["command"] = after_profile(f"{GIB}/scripts/set_nccl_env.sh", agent["command"])
    elif machine.fabric == "tcpxo":
        volumes["aperture"], mounts["aperture"] = _host(APERTURE), APERTURE
        env |= {"NCCL_LIB_DIR": LIBRARIES, "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": APERTURE}
        agent["command"] = after_profile(f"{LIBRARIES}/nccl-env-profile.sh", agent["command"])
    else:
        volumes["tcpx"], mounts["tcpx"] = _host(TCPX_SOCKETS), TCPX_SOCKETS
        env |= tcpx("eth0", tuple(machine.interfaces))
        env["NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX"] = TCPX_SOCKETS
    agent["env"] += [{"name": name, "value": value} for name, value in env.items()]
    agent["volumeMounts"] += [{"name": n, "mountPath": path} for n, path in mounts.items()]
    pod["volumes"] += [{"name": name} | source for name, source in volumes.items()]
    if machine.fabric != "gib":
        pod["volumes"] += [
            {"name": "sys"} | _host("/sys"),
            {"name": "proc-sys"} | _host("/proc/sys"),
        ]
        _add_daemon(template, machine)


def interfaces(machine: GpuMachine, backend: Gke) -> list[dict[str, str]]:
    """Interfaces of the pod, the cluster's default network first."""
    names = backend.networks.split(",") if backend.networks else [*machine.interfaces.values()]
    require(
        len(names) == len(machine.interfaces),
        f"job.backend.networks names {len(names)}, and the machine has {len(machine.interfaces)} "
        "interfaces for its GPUs: name one Network for each.",
    )
    pairs = zip(["eth0", *machine.interfaces], ["default", *names], strict=True)
    return [{"interfaceName": interface, "network": network} for interface, network in pairs]


def after_profile(profile: str, command: list[str]) -> list[str]:
    """`command` in an environment where the shell file `profile` was read."""
    return ["bash", "-c", f'. {profile} && exec "$@"', "agent", *command]


def _host(path: str) -> dict[str, Any]:
    return {"hostPath": {"path": path}}


def _add_daemon(template: dict[str, Any], machine: GpuMachine) -> None:
    """The process that moves the GPUs' data; as a side car it ends with the agent."""
    xo = machine.fabric == "tcpxo"
    name = f"{machine.fabric}-daemon"
    mounts = {"nvidia": NVIDIA, "sys": "/hostsysfs", "proc-sys": "/hostprocsysfs"}
    start = (
        "chmod 755 /fts/entrypoint_rxdm_container.sh && "
        "exec /fts/entrypoint_rxdm_container.sh --num_hops=2 --num_nics=8"
        if xo
        else "exec /tcpgpudmarxd/build/app/tcpgpudmarxd --gpu_nic_preset a3vm "
        f'--gpu_shmem_type fd --uds_path {TCPX_SOCKETS} --setup_param "--verbose 128 2 0"'
    )
    devices = [*DEVICES, *(["/dev/dmabuf_import_helper"] if xo else [])]
    template["metadata"]["annotations"][f"devices.gke.io/container.{name}"] = "".join(
        f"- path: {device}\n" for device in devices
    )
    if not xo:
        mounts["tcpx"] = TCPX_SOCKETS
    template["spec"]["initContainers"] = [
        {
            "name": name,
            "image": TCPXO_DAEMON if xo else TCPX_DAEMON,
            "restartPolicy": "Always",
            "command": ["/bin/sh", "-c", start],
            "env": [{"name": "LD_LIBRARY_PATH", "value": LIBRARIES}],
            "securityContext": {
                "capabilities": {"add": ["NET_ADMIN", *(["NET_BIND_SERVICE"] if xo else [])]}
            },
            "volumeMounts": [{"name": n, "mountPath": path} for n, path in mounts.items()],
        }
    ]
