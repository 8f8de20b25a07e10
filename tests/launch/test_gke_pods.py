"""What a JobSet says of capacity, side car, NUMA nodes and the GPUs' network."""

import json
import subprocess

import pytest
from launch_samples import IMAGE

from llm_jax.config import ConfigError, from_dict, to_dict
from llm_jax.launch.backends.gke_jobset import manifest
from llm_jax.launch.checks import Refused, this_process
from llm_jax.launch.spec import Gke, JobSpec

QUEUE = "kueue.x-k8s.io/queue-name"
RUN_TIME = "provreq.kueue.x-k8s.io/maxRunDurationSeconds"


@pytest.fixture
def made(make_spec):
    """The JobSet, its one Job, the pod's metadata, and the pod."""

    def make(backend=None, **changes):
        fields = {"out": "gs://b/run", "accelerator": "v5p-128", "image": IMAGE}
        spec = make_spec(**fields | changes, backend=backend or Gke(namespace="research"))
        whole = manifest(spec, spec.backend, 0)
        job = whole["spec"]["replicatedJobs"][0]["template"]["spec"]
        return whole, job, job["template"]["metadata"], job["template"]["spec"]

    return make


def test_the_side_car_has_room_and_the_job_set_an_end(made):
    whole, _, metadata, pod = made(backend=Gke(priority="high", placement_policy="tpu7x-policy"))
    assert metadata["annotations"] == {
        "gke-gcsfuse/volumes": "true",
        "gke-gcsfuse/cpu-limit": "0",
        "gke-gcsfuse/memory-limit": "0",
        "gke-gcsfuse/ephemeral-storage-limit": "0",
        "gke-gcsfuse/cpu-request": "4",
        "gke-gcsfuse/memory-request": "8Gi",
    }
    assert whole["spec"]["ttlSecondsAfterFinished"] == 43_200
    assert pod["priorityClassName"] == "high"
    assert pod["nodeSelector"]["cloud.google.com/placement-policy-name"] == "tpu7x-policy"
    _, _, metadata, _ = made(accelerator="cpu-1")
    assert "gke-gcsfuse/cpu-request" not in metadata["annotations"]


@pytest.mark.parametrize(
    ("backend", "changes", "label", "seconds"),
    [
        (Gke(), {"capacity": "spot"}, "gke-spot", None),
        (Gke(), {"capacity": "flex-start"}, "gke-flex-start", None),
        (Gke(queue="dws"), {"capacity": "flex-start"}, "gke-queued", "604800"),
        (Gke(queue="dws", time_limit="1-12"), {"capacity": "flex-start"}, "gke-queued", "129600"),
        (Gke(queue="q"), {}, None, None),
    ],
)
def test_capacity_is_a_label_a_toleration_and_a_time(made, backend, changes, label, seconds):
    whole, _, _, pod = made(backend=backend, **changes)
    keys = {t["key"] for t in pod["tolerations"]}
    wanted = {f"cloud.google.com/{label}"} if label else set()
    assert keys == {"google.com/tpu"} | wanted
    assert {k for k in pod["nodeSelector"] if "gke-tpu" not in k} == wanted
    assert whole["metadata"]["annotations"].get(RUN_TIME) == seconds
    assert whole["metadata"]["labels"].get(QUEUE) == backend.queue


def test_a_reservation_is_a_label(made):
    *_, pod = made(capacity="reserved", reservation="spring")
    assert pod["nodeSelector"]["cloud.google.com/reservation-name"] == "spring"


@pytest.mark.parametrize(
    ("limit", "words"),
    [("8-00", "at most seven days"), ("0", "at most seven days"), ("soon", "DAYS-HH:MM:SS")],
)
def test_a_wrong_time_limit_is_refused(make_spec, limit, words):
    with pytest.raises(ConfigError, match=words):
        Gke(time_limit=limit)
    with pytest.raises(ConfigError, match="goes with capacity 'flex-start' alone"):
        make_spec(out="gs://b/r", accelerator="v5p-8", image=IMAGE, backend=Gke(time_limit="10"))
    flex = {"image": IMAGE, "capacity": "flex-start", "backend": Gke(time_limit="10")}
    with pytest.raises(ConfigError, match="--queue"):  # nobody else would read it
        make_spec(out="gs://b/r", accelerator="v5p-8", **flex)


def test_a_tpu7x_machine_runs_an_agent_on_each_numa_node(make_spec, made):
    _, job, _, pod = made(accelerator="tpu7x-256", slices=2)
    assert (job["parallelism"], job["completions"]) == (32, 32)
    assert [c["name"] for c in pod["containers"]] == ["agent", "agent-1"]
    for container in pod["containers"]:
        assert container["resources"] == {"limits": {"google.com/tpu": "2"}}
    rules = [r["onExitCodes"]["containerName"] for r in job["podFailurePolicy"]["rules"]]
    assert rules == ["agent", "agent-1"]

    spec = make_spec(out="gs://b/r", accelerator="tpu7x-256", slices=2, image=IMAGE, backend=Gke())
    assert (spec.hosts, spec.slice_type.devices) == (128, 256)
    env = {e["name"]: e["value"] for e in pod["containers"][1]["env"] if "value" in e}
    told = {"LLM_JAX_SLICE": "1", "LLM_JAX_WORKER": "3", "TPU_WORKER_ID": "7"}
    assert this_process(spec, env | told) == 64 + 7
    with pytest.raises(Refused, match="TPU_WORKER_ID does not tell"):
        this_process(spec, env | told | {"TPU_WORKER_ID": ""})
    assert from_dict(to_dict(spec), JobSpec, "job") == spec


def test_numa_nodes_can_be_left_together(make_spec, made):
    backend = Gke(numa=False)
    _, job, _, pod = made(accelerator="tpu7x-256", backend=backend)
    (container,) = pod["containers"]
    assert job["parallelism"] == 32
    assert container["resources"] == {"limits": {"google.com/tpu": "4"}}
    spec = make_spec(out="gs://b/r", accelerator="tpu7x-256", image=IMAGE, backend=backend)
    told = {"LLM_JAX_SLICE": "0", "LLM_JAX_WORKER": "3", "TPU_WORKER_ID": "7"}
    assert this_process(spec, told) == 3


FABRICS = [
    ("h100-8", "nvidia-h100-80gb", 4, "vpc1", "tcpx-daemon"),
    ("a3-megagpu-8g", "nvidia-h100-mega-80gb", 8, "vpc1", "tcpxo-daemon"),
    ("a3-ultragpu-8g", "nvidia-h200-141gb", 8, "rdma-0", None),
    ("b200-8", "nvidia-b200", 8, "rdma-0", None),
]


@pytest.mark.parametrize(("name", "label", "count", "first", "daemon"), FABRICS)
def test_machines_with_eight_gpus_reach_each_other(made, name, label, count, first, daemon):
    _, job, metadata, pod = made(accelerator=name, slices=2)
    assert job["parallelism"] == 1
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": label}
    assert "hostNetwork" not in pod  # Network objects are for pods with their own
    interfaces = json.loads(metadata["annotations"]["networking.gke.io/interfaces"])
    assert interfaces[0] == {"interfaceName": "eth0", "network": "default"}
    assert interfaces[1]["network"] == first
    assert len({i["interfaceName"] for i in interfaces}) == count + 1
    assert [c["name"] for c in pod.get("initContainers", [])] == ([daemon] if daemon else [])
    if daemon:
        devices = metadata["annotations"][f"devices.gke.io/container.{daemon}"].split()
        assert devices.count("/dev/nvidia7") == 1
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    volumes = {v["name"] for v in pod["volumes"]}
    used = [
        m["name"] for c in [container, *pod.get("initContainers", [])] for m in c["volumeMounts"]
    ]
    assert set(used) == volumes
    env = {e["name"]: e.get("value", "") for e in container["env"]}
    assert "/usr/local/nvidia/lib64" in env["LD_LIBRARY_PATH"]
    assert container["command"][-1] == "gs://b/run"


def test_tcpx_binds_each_interface_to_cores_of_its_numa_node(made):
    *_, pod = made(accelerator="a3-highgpu-8g", slices=2)
    env = {e["name"]: e.get("value", "") for e in pod["containers"][0]["env"]}
    assert env["NCCL_GPUDIRECTTCPX_SOCKET_IFNAME"] == "eth1,eth2,eth3,eth4"
    assert env["NCCL_GPUDIRECTTCPX_TX_BINDINGS"] == (
        "eth1:8-21,112-125;eth2:8-21,112-125;eth3:60-73,164-177;eth4:60-73,164-177"
    )


def test_a_cluster_can_name_its_networks_otherwise(made):
    names = ",".join(f"gpu-{n}" for n in range(8))
    _, _, metadata, _ = made(accelerator="b200-8", slices=2, backend=Gke(networks=names))
    interfaces = json.loads(metadata["annotations"]["networking.gke.io/interfaces"])
    assert interfaces[8] == {"interfaceName": "eth9", "network": "gpu-7"}
    with pytest.raises(ConfigError, match="networks names 2, and the machine has 8"):
        made(accelerator="b200-8", slices=2, backend=Gke(networks="a,b"))


def test_one_machine_needs_no_network(made):
    _, _, metadata, pod = made(accelerator="h100-8", slices=1)
    assert "networking.gke.io/interfaces" not in metadata["annotations"]
    assert "initContainers" not in pod
    assert len(pod["volumes"]) == 2


def test_the_shell_around_the_agent_hands_it_its_words(made, tmp_path):
    """The profile's settings reach the agent, and the folder's name reaches it as one word."""
    *_, pod = made(accelerator="b200-8", slices=2, out="gs://b/a b;'c")
    command = pod["containers"][0]["command"]
    profile = tmp_path / "set_nccl_env.sh"
    profile.write_text("export NCCL_MADE_UP=7\n")
    shown = [
        word.replace("/usr/local/gib/scripts/set_nccl_env.sh", str(profile)) for word in command
    ]
    at = shown.index("python3")
    script = 'printf "%s|" "$NCCL_MADE_UP" "$@"'
    done = subprocess.run(
        [*shown[:at], "bash", "-c", script, "x", *shown[at:]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "7|python3|-m|llm_jax.launch.agent|gs://b/a b;'c|"
