"""`launch preflight`: each thing that a cluster or project can lack is one sentence."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("kubernetes")

from cluster_world import ACCOUNT, POOL, V5P
from fake_bucket import Bucket
from fake_google import CLUSTER, pool
from fake_kubernetes import JOBSETS, KUEUE, SPACE, cluster_queue, image, node
from launch_samples import IMAGE

from llm_jax import config
from llm_jax.cli import main
from llm_jax.config import UserError, to_json
from llm_jax.launch import job
from llm_jax.launch.backends import gke
from llm_jax.launch.cluster.google import Google, google_of
from llm_jax.launch.cluster.versions import parsed
from llm_jax.launch.spec import Gke


def test_a_cluster_on_which_nothing_is_missing(look):
    found = look()
    assert (found["error"], found["warning"]) == ([], [])
    assert "Nodes of 2 slices are ready." in found["ok"]
    assert "The ClusterQueue cluster has 4,096 google.com/tpu." in found["ok"]
    assert "The bucket gs://b is in us-east5, as the cluster." in found["ok"]
    assert "gs://b lets trainer in." in found["ok"]


def drop(path):
    return lambda cluster, google: cluster.objects.pop(path)


def put(path, value):
    return lambda cluster, google: cluster.objects.__setitem__(path, value)


def having(**attributes):
    return lambda cluster, google: cluster.__dict__.update(attributes)


def project(**attributes):
    return lambda cluster, google: google.__dict__.update(attributes)


CSI = "/apis/storage.k8s.io/v1/csidrivers/gcsfuse.csi.storage.gke.io"
CONTROLLER = "/apis/apps/v1/namespaces/jobset-system/deployments/jobset-controller-manager"
LOCAL, BEHIND = f"{KUEUE}/namespaces/research/localqueues/team", f"{KUEUE}/clusterqueues/cluster"
STOPPED = {"conditions": [{"type": "Active", "status": "False", "message": "It is stopped."}]}
HELD = {"metadata": {"name": "team"}, "spec": {"clusterQueue": "cluster", "stopPolicy": "Hold"}}
ERRORS = {
    "old cluster": (having(version="v1.32.9-gke.1108000"), {}, "needs 1.33.3-gke.1226000"),
    "old for tpu7x": (having(version="v1.33.9-gke.1108000"), {"accelerator": "tpu7x-128"},
                      "tpu7x needs 1.34.0-gke.2201000"),
    "no JobSets": (having(groups={"apps": "v1", "kueue.x-k8s.io": "v1beta1"}), {},
                   "has no JobSets: install"),
    "old JobSets": (put(CONTROLLER, image("v0.5.2")), {}, "controller is 0.5.2, and the job needs"),
    "no driver": (drop(CSI), {}, "no Cloud Storage FUSE driver"),
    "no namespace": (drop(SPACE), {}, "has no namespace 'research'"),
    "no account": (drop(f"{SPACE}/serviceaccounts/trainer"), {}, "no service account 'trainer'"),
    "no right": (having(allowed=False), {}, "You may not create JobSets"),
    "no priority": (having(), {"backend": {"priority": "top"}},
                    "no PriorityClass 'top': it has high"),
    "no Kueue": (having(groups={"apps": "v1", "jobset.x-k8s.io": "v1alpha2"}), {},
                 "the cluster has no Kueue"),
    "no queue": (having(), {"backend": {"queue": "tem"}}, "has no queue 'tem': it has team"),
    "stopped queue": (put(LOCAL, HELD | {"status": STOPPED}), {}, "lets no job in: It is stopped."),
    "held queue": (put(LOCAL, HELD), {}, "lets no job in: its stopPolicy is Hold"),
    "no cluster queue": (drop(BEHIND), {}, "a ClusterQueue cluster, which is missing"),
    "other resource": (put(BEHIND, cluster_queue(8, "nvidia.com/gpu")), {},
                       "no quota for google.com/tpu"),
    "small queue": (put(BEHIND, cluster_queue(64)), {},
                    "needs 128 google.com/tpu, and the ClusterQueue cluster has a quota of 64"),
    "no admission check": (having(), {"capacity": "flex-start"}, "has no admission check"),
    "too few nodes": (having(), {"slices": 3}, "3 v5p-128 slices, and the cluster has those of 2"),
    "no such nodes": (having(), {"accelerator": "v6e-256"}, "and the cluster has none"),
    "not ready": (having(nodes=[node("pool-0", ready=i > 0, **V5P) for i in range(16)]), {},
                  "and the cluster has none"),
    "spot nodes alone": (
        having(nodes=[node(f"p{i % 2}", gke_spot="true", **V5P) for i in range(32)]), {},
        "and the cluster has none",
    ),
    "no spot nodes": (having(), {"capacity": "spot"}, "gke-spot=true"),
    "no identity": (project(cluster={}), {}, "has no Workload Identity"),
    "blind nodes": (project(pools=[pool(*POOL, metadata="GCE_METADATA")]), {},
                    "The nodes of a do not give pods their own identity"),
    "no workload policy": (project(pools=[pool("a", "tpu7x-standard-4t")]),
                           {"accelerator": "tpu7x-128"}, "have no workload policy"),
    "no reservation": (having(), {"capacity": "reserved", "reservation": "spring"},
                       "has no reservation 'spring' in us-east5"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "job", "sentence"), ERRORS.values(), ids=ERRORS.keys())
def test_what_is_missing_is_one_sentence(look, world, google, change, job, sentence):
    change(world, google)
    errors = look(**job)["error"]
    matching = [one for one in errors if sentence in one]
    assert len(matching) == 1, errors
    assert matching[0].count("\n") == 0
    assert matching[0].endswith(".")


def test_gpus_need_networks_and_the_plug_in(look, world, google):
    world.nodes = [node("g", gke_accelerator="nvidia-b200") for _ in range(2)]
    world.objects[BEHIND] = cluster_queue(16, "nvidia.com/gpu")
    errors = look(of="gpu network", accelerator="b200-8")["error"]
    assert "no Network rdma-0, rdma-1" in errors[0] and "it has none" in errors[0]
    assert "no DaemonSet nccl-rdma-installer" in errors[1]
    for n in range(8):
        path = f"/apis/networking.gke.io/v1/networks/rdma-{n}"
        world.objects[path] = {"metadata": {"name": f"rdma-{n}"}}
    installer = "/apis/apps/v1/namespaces/kube-system/daemonsets/nccl-rdma-installer"
    world.objects[installer] = {"metadata": {}}
    assert look(accelerator="b200-8")["error"] == []


@pytest.mark.parametrize(
    ("location", "level"),
    [("US-EAST5", "ok"), ("US", "warning"), ("EU", "error"), ("NAM4", "error"),
     ("US-CENTRAL1", "error")],
)  # fmt: skip
def test_the_bucket_is_where_the_cluster_is(look, monkeypatch, location, level):
    monkeypatch.setattr(Bucket, "location", location)
    found = look(of="bucket region")
    assert [len(found[one]) for one in ("ok", "warning", "error")].count(0) == 2
    assert len(found[level]) == 1


def test_a_flat_bucket_and_a_strange_policy(look, monkeypatch):
    monkeypatch.setattr(Bucket, "hierarchical", False)
    monkeypatch.setattr(Bucket, "members", ["user:someone@example.com"])
    found = look()
    assert len(found["error"]) == 1 and "no hierarchical namespace" in found["error"][0]
    assert "--member=principal://iam.googleapis.com/projects/NUMBER" in found["warning"][0]


def test_an_account_of_google_is_looked_for_by_its_address(look, world, monkeypatch):
    mail = "trainer@my-project.iam.gserviceaccount.com"
    world.objects[f"{SPACE}/serviceaccounts/trainer"] = {
        "metadata": {"annotations": {"iam.gke.io/gcp-service-account": mail}}
    }
    monkeypatch.setattr(Bucket, "members", [ACCOUNT])
    assert f"--member=serviceAccount:{mail}" in look(of="bucket access")["warning"][0]
    monkeypatch.setattr(Bucket, "members", [f"serviceAccount:{mail}"])
    assert look(of="bucket access")["warning"] == []


def test_spot_pods_have_fifteen_seconds(look, world):
    world.nodes = [node(f"p{p}", gke_spot="true", **V5P) for p in (0, 1) for _ in range(16)]
    found = look(capacity="spot")
    assert found["error"] == []
    (grace,) = found["warning"]
    assert "15 s to save" in grace and "1.35.0-gke.1171000" in grace


def test_what_may_not_be_seen_is_a_warning(look, google):
    google.refuse[CLUSTER] = (403, "container.clusters.get is missing")
    found = look()
    assert found["error"] == []
    assert [w for w in found["warning"] if "container.googleapis.com said 403" in w]


def test_a_context_of_another_name_is_said(look, monkeypatch):
    monkeypatch.setattr("llm_jax.launch.cluster.preflight.google_of", lambda context: None)
    (warning,) = look()["warning"]
    assert "The kubeconfig does not tell the cluster's project" in warning


def test_the_context_names_the_project(cluster):
    found = google_of(None)
    assert (found.project, found.location, found.cluster) == ("my-project", "us-east5", "big")
    assert google_of("nowhere") is None
    assert Google("p", "us-east5-a", "c").region == "us-east5"


def test_credentials_go_to_google_alone(look, google):
    look()
    assert google.headers
    assert not [h for h in google.headers if "Authorization" in h]


@pytest.mark.parametrize(
    ("address", "given"),
    [
        ("https://container.googleapis.com/", True),
        ("https://eu-container.mtls.googleapis.com", True),
        ("http://container.googleapis.com/", False),
        ("https://googleapis.com.example.org/", False),
        ("https://example.org/container.googleapis.com", False),
    ],
)
def test_credentials_go_by_https_to_google(monkeypatch, address, given):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER", address)
    asked = Google("p", "us-east5", "c")
    asked.__dict__ |= {"_authorized": "with", "_plain": "without"}
    assert asked._session("container") == ("with" if given else "without")


@pytest.mark.parametrize(
    ("version", "parts"),
    [("v1.34.1-gke.3971001", (1, 34, 1, 3971001)), ("1.29.0-gke.1", (1, 29, 0, 1)),
     ("v1.31.0", None), ("v1.31.0+k3s1", None)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version, parts):
    assert parsed(version) == parts


def test_the_verb_reports_all_of_it(world, google, bucket, run_json, capsys):
    words = ["launch", "preflight", run_json, "--name", "demo", "--out", "gs://b/demo"]
    words += ["--backend", "gke", "--namespace", "research", "--image", IMAGE]
    words += ["--service-account", "trainer", "--accelerator", "v5p-128"]
    words += ["--data.path", "gs://b/text", "--parallel.fsdp", "64"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (left.value.code, found["fits"], found["errors"], found["warnings"]) == (0, True, 0, 0)
    assert {one["level"] for one in found["findings"]} == {"ok"}
    world.objects.pop(CSI)
    with pytest.raises(SystemExit) as left:
        main(words)
    printed = capsys.readouterr().out
    assert left.value.code == 1
    assert "ERROR    The cluster has no Cloud Storage FUSE driver" in printed
    assert printed.endswith("demo cannot be launched as it is\n")
    assert [r for r in world.requests if r == f"POST {JOBSETS}"] == []


def test_a_tag_is_refused_before_the_cluster_is_asked(world, run_json, capsys):
    words = ["launch", "preflight", run_json, "--out", "gs://b/demo", "--backend", "gke"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--image", "registry/llm-jax:1", "--accelerator", "cpu-1"])
    assert left.value.code == 78
    assert "a tag may name another image tomorrow" in capsys.readouterr().err
    assert world.requests == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.path", "data/mine"], "--data.path gs://BUCKET/data/FOLDER"),
        (["--data.path", "gs://b/text", "--wandb", "hf_" + "aB3dE5gH7j" * 3], "like a secret"),
        (
            [
                "--data.path",
                "gs://b/text",
                "--networks",
                "a,b",
                "--accelerator",
                "a3-megagpu-8g",
                "--slices",
                "2",
            ],
            "names 2, and the machine has 8",
        ),
    ],
)
def test_the_verb_refuses_what_launching_would(world, run_json, capsys, words, sentence):
    given = ["launch", "preflight", run_json, "--out", "gs://b/demo", "--backend", "gke"]
    with pytest.raises(SystemExit) as left:
        main([*given, "--image", IMAGE, "--accelerator", "cpu-1", *words])
    assert left.value.code == 78
    assert sentence in capsys.readouterr().err
    assert world.requests == []


def test_a_job_that_is_there_is_supervised_whatever_the_cluster_lacks(world, make_spec):
    """Its node may be under repair, or its queue stopped: nothing is created."""
    backend = Gke(namespace="research", service_account="trainer")
    spec = make_spec(out="gs://b/run", accelerator="cpu-1", slices=1, image=IMAGE, backend=backend)
    back = gke.Driver(spec)
    job.prepare(spec, back)
    world.objects.pop(CSI)
    with pytest.raises(UserError, match="no Cloud Storage FUSE driver"):
        job.prepare(spec, back)
    for action in back.render(0):
        back.apply(action)
    assert job.prepare(spec, back)[1] == 0


def test_launching_stops_at_the_first_error(world, google, make_spec):
    """Nothing is created, in the cluster or in the bucket."""
    world.objects.pop(CSI)
    google.cluster = {}
    backend = Gke(namespace="research", service_account="trainer")
    spec = make_spec(out="gs://b/run", accelerator="v5p-128", image=IMAGE, backend=backend)
    run = config.load(spec.config)
    run = config.from_json(to_json(run).replace('"data": -1', '"data": 128'), config.RunConfig)
    with pytest.raises(UserError, match=r"no Cloud Storage FUSE driver.*\(1 more error: see"):
        job.prepare(spec, gke.Driver(spec), run=run)
    assert world.jobsets == {}
    assert Bucket.objects == {}


def test_a_folder_that_pods_lose_is_refused(make_spec):
    spec = make_spec(out="gs://b/run", accelerator="cpu-1", image=IMAGE, backend=Gke())
    run = config.load(spec.config)
    for local, fine in [("/tmp/x", False), ("/localhost", False), ("/local", True), (None, True)]:
        every = None if local is None else 1
        saves = config.CheckpointConfig(local=local, local_every=every)
        changed = replace(run, checkpoint=saves)
        if fine:
            job.check_local(spec, changed)
        else:
            with pytest.raises(UserError, match=r"name a folder in it, such as --checkpoint.local"):
                job.check_local(spec, changed)
