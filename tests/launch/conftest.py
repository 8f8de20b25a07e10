"""Jobs whose trainer is the small stand-in of `fake_trainer.py`."""

import json
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from cluster_world import ACCOUNT, POOL, V5P
from fake_bucket import Bucket
from fake_google import FakeGoogle, pool
from fake_kubernetes import FakeKubernetes, node
from launch_samples import IMAGE

from llm_jax import config
from llm_jax.launch import job
from llm_jax.launch.cluster.preflight import findings
from llm_jax.launch.spec import Gke, JobSpec, Limits

TRAINER = [sys.executable, str(Path(__file__).with_name("fake_trainer.py"))]


@pytest.fixture
def bucket(monkeypatch):
    """Address of a bucket in a local server, which this process and its children talk to."""
    pytest.importorskip("google.cloud.storage")
    Bucket.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    yield "gs://b"
    server.shutdown()


@pytest.fixture
def cluster(tmp_path, monkeypatch, google):
    """A local API server of Kubernetes, with a kubeconfig that names it."""
    pytest.importorskip("kubernetes")
    fake = FakeKubernetes()
    name = "gke_my-project_us-east5_big"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": name, "cluster": {"server": fake.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": name, "user": "u"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    # The client reads the variable when it is imported, so children see it and we set both.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig")
    )
    yield fake
    fake.server.shutdown()


@pytest.fixture
def google(monkeypatch):
    """A local server of Google's APIs about the project of `cluster`."""
    fake = FakeGoogle(monkeypatch)
    yield fake
    fake.server.shutdown()


@pytest.fixture
def world(cluster, google, bucket, monkeypatch):
    """A cluster with two slices of v5p-128, on which nothing is missing."""
    cluster.nodes = [node(f"pool-{p}", **V5P) for p in (0, 1) for _ in range(16)]
    google.pools = [pool(f"pool-{p}", *POOL[1:]) for p in (0, 1)]
    monkeypatch.setattr(Bucket, "members", [ACCOUNT])
    monkeypatch.setattr(Bucket, "location", "US-EAST5")
    return cluster


@pytest.fixture
def look(world, make_spec):
    """What the checks say of a job: level → sentences; `of` is one check alone."""

    def looked(of=None, **changes):
        backend = {"namespace": "research", "queue": "team", "service_account": "trainer"}
        backend |= changes.pop("backend", {})
        fields = {"out": "gs://b/run", "accelerator": "v5p-128", "image": IMAGE}
        spec = make_spec(**fields | changes, backend=Gke(**backend))
        found = findings(spec, config.load(spec.config))
        levels: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
        for one in found:
            if of in (None, one.check):
                levels[one.level].append(one.sentence)
        return levels

    return looked


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Agents and supervisors are processes of their own, and find the package from any folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def run_json(tmp_path):
    """Path of a valid run of 40 steps."""
    model = config.ModelConfig(
        vocab_size=64,
        num_layers=1,
        d_model=8,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        d_ff=16,
        max_seq_len=1024,
    )
    run = config.RunConfig(name="fake", out="unused", steps=40, model=model,
                           optim=config.OptimConfig(warmup_steps=10))  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(config.to_json(run))
    return str(path)


@pytest.fixture
def make_spec(run_json, tmp_path):
    def make(faults="", **changes):
        env = {"FAKE_FAULTS": faults} | changes.pop("env", {})
        fields = {
            "name": "fake",
            "config": run_json,
            "out": str(tmp_path / "out"),
            "slices": 2,
            "trainer": TRAINER,
            "grace_seconds": 10,
            "backoff_seconds": 0.1,
            "rendezvous_seconds": 30,
            "limits": Limits(startup=20, step=1, save=5, heartbeat=20),
            "env": env,
        }
        return JobSpec(**fields | changes)

    return make


@pytest.fixture
def store():
    """Puts the job into its output folder, as `launch run` does before it supervises."""

    def put(spec):
        run = config.load(spec.config)
        first = job.next_incarnation(job.open_folder(spec.out))
        job.store(spec, run, first)
        return first

    return put
