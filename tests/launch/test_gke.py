"""JobSets: manifests against the schemas, and the verbs against a local API server."""

import json
import os
import re
import signal
import sys

import pytest

pytest.importorskip("kubernetes")

from fake_kubernetes import JOBSETS, KUEUE, cluster_queue
from launch_samples import IMAGE, wait_for

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.launch.backends import gke, gke_api
from llm_jax.launch.folder import open_folder
from llm_jax.launch.manifest import put_files
from llm_jax.launch.records import attempt_folder, load_job, outside_record, read_json, record_exit
from llm_jax.launch.spec import Gke


@pytest.fixture
def gke_spec(make_spec):
    def make(**changes):
        fields = {
            "out": "gs://b/run",
            "accelerator": "v5p-128",
            "backend": Gke(namespace="research", queue="team"),
            "image": IMAGE,
        }
        return make_spec(**fields | changes)

    return make


CASES = {
    "tpu": {},
    "tpu spot": {"capacity": "spot", "slices": 4, "accelerator": "v6e-256"},
    "tpu7x reserved": {"accelerator": "tpu7x-256", "capacity": "reserved", "reservation": "r"},
    "flex": {"accelerator": "v5e-8", "capacity": "flex-start"},
    "one gpu": {"accelerator": "h100-1"},
    "tcpx": {"accelerator": "h100-8", "slices": 2},
    "tcpxo": {"accelerator": "a3-megagpu-8g", "slices": 4},
    "h200": {"accelerator": "a3-ultragpu-8g", "slices": 2, "capacity": "flex-start"},
    "b200": {"accelerator": "b200-8", "slices": 2, "capacity": "spot"},
    "cpu": {"accelerator": "cpu-4"},
    "account": {"backend": Gke(namespace="research", service_account="trainer")},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_manifests_obey_the_schemas(gke_spec, changes):
    validate = pytest.importorskip("kubernetes_validate")
    models = pytest.importorskip("kubeflow_trainer_api.models")
    (action,) = gke.render(gke_spec(**changes), 3)
    made = action.manifest
    # Unknown fields vanish in the models, so the way there and back must change nothing.
    assert models.JobsetV1alpha2JobSet.from_dict(made).to_dict() == made
    (replicated,) = made["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    validate.validate(job | replicated["template"], validate.latest_version(), strict=True)


def test_a_manifest_for_kubectl_is_complete(run_json, tmp_path, capsys):
    yaml = pytest.importorskip("yaml")
    validate = pytest.importorskip("kubernetes_validate")
    models = pytest.importorskip("kubeflow_trainer_api.models")
    words = ["launch", "run", run_json, "--name", "demo", "--out", "gs://b/demo", "--steps", "30"]
    words += ["--backend", "gke", "--namespace", "research", "--image", IMAGE]
    words += ["--accelerator", "v5p-128", "--data.path", "gs://b/text", "--dry-run", "--manifest"]
    with pytest.raises(SystemExit) as left:
        main(words)
    printed = capsys.readouterr()
    assert (left.value.code, printed.err) == (0, "")
    assert re.search('\n +"steps": 30,\n', printed.out), "the run can be read"
    config_map, job_set = yaml.safe_load_all(printed.out)

    version = validate.latest_version()
    validate.validate(config_map, version, strict=True)
    assert models.JobsetV1alpha2JobSet.from_dict(job_set).to_dict() == job_set
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    validate.validate(job | replicated["template"], version, strict=True)
    assert config_map["metadata"]["namespace"] == job_set["metadata"]["namespace"] == "research"
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert {"name": "launch", "configMap": {"name": "demo-launch"}} in pod["volumes"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts[env["LLM_JAX_FILES"]] == "launch"

    files, folder = tmp_path / "files", open_folder(str(tmp_path / "out"))
    files.mkdir()
    for name, text in config_map["data"].items():
        (files / name).write_text(text)
    put_files(folder, files)
    folder.create = None  # thousands of agents find what the first has put there, and only read
    put_files(folder, files)
    held, first = load_job(folder)
    assert (held.name, held.image, first) == ("demo", IMAGE, 0)
    run = read_json(folder, "launch/run.json")
    assert (run["steps"], run["out"], run["data"]["path"]) == (30, "gs://b/demo", "gs://b/text")
    (files / "run.json").write_text(config_map["data"]["run.json"].replace("30", "31"))
    with pytest.raises(UserError, match=r"holds another launch/run\.json than the manifest"):
        put_files(folder, files)


def test_a_misspelt_field_would_not_pass(gke_spec):
    validate = pytest.importorskip("kubernetes_validate")
    (action,) = gke.render(gke_spec(), 0)
    job = action.manifest["spec"]["replicatedJobs"][0]["template"]
    job["spec"]["template"]["spec"]["hostnetwork"] = True
    with pytest.raises(validate.ValidationError):
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}} | job
        validate.validate(whole, validate.latest_version(), strict=True)


def test_a_multislice_manifest_says_what_gke_needs(gke_spec):
    (action,) = gke.render(gke_spec(slices=2, accelerator="v5p-128"), 3)
    metadata, spec = action.manifest["metadata"], action.manifest["spec"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    exclusive = metadata["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    assert exclusive == "cloud.google.com/gke-nodepool"
    (replicated,) = spec["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert replicated["replicas"] == 2
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (16, 16, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
    }
    assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": "4"}}
    assert pod["hostNetwork"] and pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["terminationGracePeriodSeconds"] == 40
    volume, local = pod["volumes"]
    assert local == {"name": "local", "emptyDir": {}}
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "_"
    assert volume["csi"]["volumeAttributes"]["hostNetworkPodKSA"] == "true"
    assert pod["containers"][0]["volumeMounts"] == [
        {"name": "gcs", "mountPath": "/gcs"},
        {"name": "local", "mountPath": "/local"},
    ]
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["values"] == [78]


def call(capsys, *words):
    """Exit code and JSON of a verb."""
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    printed = capsys.readouterr()
    return left.value.code, json.loads(printed.out) if printed.out else printed.err


def test_the_verbs(cluster, bucket, gke_spec, tmp_path, capsys, monkeypatch):
    from llm_jax.config import to_json

    monkeypatch.chdir(tmp_path)
    cluster.objects[f"{KUEUE}/clusterqueues/cluster"] = cluster_queue(8, "cpu")
    spec = gke_spec(out=bucket + "/run", accelerator="cpu-1", slices=1)
    (tmp_path / "spec.json").write_text(to_json(spec))
    code, planned = call(capsys, "launch", "run", "--spec", "spec.json", "--dry-run")
    assert code == 0 and cluster.jobsets == {}

    with pytest.raises(SystemExit) as left:
        main(["launch", "run", "--spec", "spec.json", "--detach"])
    assert left.value.code == 0
    supervisor = int(re.search(r"process (\d+) of this machine", capsys.readouterr().err).group(1))
    wait_for(lambda: cluster.jobsets, 60)
    assert cluster.jobsets["fake"] == planned["actions"][-1]["manifest"]
    assert call(capsys, "launch", "status", spec.out)[1]["state"] == "waiting"

    cluster.jobsets["fake"]["status"] = {"replicatedJobsStatus": [{"name": "slice", "ready": 1}]}
    cluster.pods["p"] = {"metadata": {"name": "fake-slice-0-0"}, "status": {"phase": "Running"}}
    folder = open_folder(spec.out)
    folder.write(f"{attempt_folder('0000.0000')}/host.0.json", b"{}")
    folder.append(f"{attempt_folder('0000.0000')}/host.0.log", b"step 1\nstep 2\n")
    assert call(capsys, "launch", "status", spec.out)[1]["state"] == "running"
    lines = call(capsys, "launch", "logs", spec.out)[1]["lines"]
    assert [line["text"] for line in lines] == ["step 1", "step 2"]

    record_exit(folder, "0000.0000", outside_record(0, "preempted", "saved", {"step": 2}))
    code, stopped = call(capsys, "launch", "stop", spec.out)
    assert (code, stopped["state"], stopped["billable"]) == (0, "stopped", [])
    assert cluster.jobsets == {}
    assert call(capsys, "launch", "stop", spec.out)[1] == stopped
    os.kill(supervisor, signal.SIGTERM)  # it would look again in 15 s only


def test_list_shows_our_jobs_only(cluster, gke_spec, capsys):
    gke.Driver(gke_spec()).apply(*gke.render(gke_spec(), 0))
    cluster.jobsets["other"] = {"metadata": {"name": "other", "labels": {}}}
    words = ("launch", "list", "--backend", "gke", "--namespace", "research")
    code, result = call(capsys, *words)
    assert code == 0
    assert result["jobs"] == [{"job": "fake", "state": "waiting", "out": "gs://b/run"}]
    cluster.jobsets["fake"]["status"] = {"replicatedJobsStatus": [{"name": "slice", "ready": 2}]}
    code, result = call(capsys, *words)
    assert result["jobs"] == [{"job": "fake", "state": "running", "out": "gs://b/run"}]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "waiting"),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, "waiting"),
        ({"replicatedJobsStatus": [{"name": "slice", "ready": 2}]}, "running"),
        ({"conditions": [{"type": "Completed", "status": "True"}]}, "ended"),
        ({"conditions": [{"type": "Failed", "status": "True", "message": "why"}]}, "failed"),
    ],
)
def test_conditions(cluster, gke_spec, status, state):
    back = gke.Driver(gke_spec())
    back.apply(*back.render(0))
    cluster.jobsets["fake"]["status"] = status
    assert back.resource().state == state


def test_mistakes_are_one_sentence(cluster, gke_spec):
    gke.Driver(gke_spec()).apply(*gke.render(gke_spec(), 0))
    with pytest.raises(UserError, match="exists already in namespace research"):
        gke.Driver(gke_spec(out="gs://b/other")).check()
    with pytest.raises(UserError, match="found no cluster"):
        gke.Driver(gke_spec(backend=Gke(context="nowhere"))).check()
    with pytest.raises(UserError, match="The cluster has no JobSets"):
        gke.Driver(gke_spec(backend=Gke(namespace="elsewhere"))).check()
    cluster.refuse = (403, "user may not")
    with pytest.raises(UserError, match="The cluster refused: 403 user may not"):
        gke.Driver(gke_spec()).check()
    assert [r for r in cluster.requests if r.startswith("POST")] == [f"POST {JOBSETS}"]
    cluster.refuse = None
    spec = gke_spec(backend=Gke(namespace="elsewhere"))
    with pytest.raises(UserError, match="has no namespace 'elsewhere'"):
        gke.Driver(spec).apply(*gke.render(spec, 0))


def test_a_missing_client_names_the_extra(gke_spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(UserError, match=r"pip install 'llm-jax\[launch-gke\]'"):
        gke_api.make_client(None)


@pytest.mark.parametrize("content", ["a: [", "just text", "[]", '{"clusters": 5}', "\0"])
def test_a_damaged_kubeconfig_is_one_sentence(tmp_path, monkeypatch, content):
    (tmp_path / "config").write_text(content)
    place = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, str(tmp_path / "config"))
    with pytest.raises(UserError, match=r"cannot read the kubeconfig .*repair the file"):
        gke_api.make_client(None)
