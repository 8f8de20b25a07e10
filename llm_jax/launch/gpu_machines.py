"""Google Cloud's machine types with eight GPUs, and the networks between such machines.

What is set for NCCL is what Google publishes for each type: "Maximize GPU network bandwidth in
Standard mode clusters" (GKE), and the Slurm and GKE examples of GoogleCloudPlatform/cluster-toolkit
(read at commit 1047080, 2026-06).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fabric = Literal["tcpx", "tcpxo", "gib"]
"""Transport between machines: GPUDirect-TCPX, GPUDirect-TCPXO, or RDMA over Ethernet (gIB)."""


@dataclass(frozen=True)
class GpuMachine:
    """A machine type with eight GPUs."""

    chip: str
    label: str
    """Value of the node label `cloud.google.com/gke-accelerator`."""
    fabric: Fabric
    interfaces: dict[str, str]
    """Interface in a pod → the cluster's Network object, as Google's guides name them."""


VPC = {f"eth{n}": f"vpc{n}" for n in range(1, 9)}
RDMA = {f"eth{n + 2}": f"rdma-{n}" for n in range(8)}
MACHINES = {
    "a3-highgpu-8g": GpuMachine("h100", "nvidia-h100-80gb", "tcpx", dict(list(VPC.items())[:4])),
    "a3-megagpu-8g": GpuMachine("h100", "nvidia-h100-mega-80gb", "tcpxo", VPC),
    "a3-ultragpu-8g": GpuMachine("h200", "nvidia-h200-141gb", "gib", RDMA),
    "a4-highgpu-8g": GpuMachine("b200", "nvidia-b200", "gib", RDMA),
}
DEFAULT = {"h100": "a3-highgpu-8g", "h200": "a3-ultragpu-8g", "b200": "a4-highgpu-8g"}
"""The machine type of `h100-8` on GKE."""
TCPX = {
    "NCCL_NET": "GPUDirectTCPX_v7",
    "NCCL_CROSS_NIC": "0",
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "NCCL_NSOCKS_PERTHREAD": "4",
    "NCCL_SOCKET_NTHREADS": "1",
    "NCCL_DYNAMIC_CHUNK_SIZE": "524288",
    "NCCL_P2P_NET_CHUNKSIZE": "524288",
    "NCCL_P2P_PCI_CHUNKSIZE": "524288",
    "NCCL_P2P_NVL_CHUNKSIZE": "1048576",
    "NCCL_BUFFSIZE": "4194304",
    "NCCL_NET_GDR_LEVEL": "PIX",
    "NCCL_P2P_PXN_LEVEL": "0",
    "NCCL_GPUDIRECTTCPX_PROGRAM_FLOW_STEERING_WAIT_MICROS": "500000",
}
"""Of TCPX on any host; interfaces are added by `tcpx`."""


def tcpx(control: str, data: tuple[str, ...]) -> dict[str, str]:
    """NCCL's variables for TCPX.

    Args:
      control: the interface of the default network.
      data: the four interfaces of the GPUs; the first two are on NUMA node 0.
    """
    sent = ("8-21,112-125", "8-21,112-125", "60-73,164-177", "60-73,164-177")
    received = ("22-35,126-139", "22-35,126-139", "74-87,178-191", "74-87,178-191")
    return TCPX | {
        "NCCL_SOCKET_IFNAME": control,
        "NCCL_GPUDIRECTTCPX_CTRL_DEV": control,
        "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": ",".join(data),
        "NCCL_GPUDIRECTTCPX_TX_BINDINGS": _bound(data, sent),
        "NCCL_GPUDIRECTTCPX_RX_BINDINGS": _bound(data, received),
    }


def _bound(interfaces: tuple[str, ...], cores: tuple[str, ...]) -> str:
    pairs = zip(interfaces, cores, strict=True)
    return ";".join(f"{interface}:{core}" for interface, core in pairs)
