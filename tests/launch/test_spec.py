"""The specification: strict JSON, and one sentence for what no back end could run."""

import json

import pytest

from llm_jax.config import ConfigError, from_json, to_json
from llm_jax.launch.accelerators import accelerator, gce_type
from llm_jax.launch.spec import Gke, JobSpec, Local, SkyPilot, Slurm, Tpu

BUCKET = "gs://bucket/run"
TPU = Tpu(project="p", zone="us-east5-a")


def spec(**changes):
    return JobSpec(**{"name": "demo", "config": "tiny", "out": "runs/demo"} | changes)


def tpu(**changes):
    fields = {"accelerator": "v5p-128", "out": BUCKET, "backend": TPU, "image": "i"}
    return spec(**fields | changes)


@pytest.mark.parametrize(
    ("name", "hosts", "per_host", "topology"),
    [
        ("v5p-128", 16, 4, "4x4x4"),  # 64 chips: the name counts cores
        ("v4-8", 1, 4, "2x2x1"),
        ("v5e-256", 64, 4, "16x16"),
        ("v5litepod-16", 4, 4, "4x4"),
        ("v6e-8", 1, 8, "2x4"),
        ("tpu7x-128", 16, 4, "4x4x4"),
        ("h100-8", 1, 8, ""),
        ("cpu-2", 1, 2, ""),
    ],
)
def test_accelerators(name, hosts, per_host, topology):
    of = accelerator(name)
    assert (of.hosts, of.chips_per_host, of.topology) == (hosts, per_host, topology)


def test_the_cloud_calls_v5e_otherwise():
    assert gce_type(accelerator("v5e-16")) == "v5litepod-16"
    assert gce_type(accelerator("v5p-8")) == "v5p-8"


@pytest.mark.parametrize("backend", [Local(), Slurm(partition="a"), TPU, Gke(), SkyPilot()])
def test_json_round_trip(backend):
    remote = backend.kind in ("tpu", "gke", "skypilot")
    more = {"accelerator": "v5p-8", "out": BUCKET, "image": "i"} if remote else {}
    made = spec(backend=backend, env={"A": "1"}, trainer=["x"], **more)
    assert from_json(to_json(made), JobSpec) == made


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: spec(name="Demo"), "job.name is 'Demo'"),
        (lambda: spec(slices=0), "job.slices is 0"),
        (lambda: spec(slices=10**8), "at most 65,536 hosts"),
        (lambda: spec(slices=257), "one machine runs at most 256 processes"),
        (lambda: spec(accelerator="cpu-" + "9" * 14), "write chip and size"),
        (lambda: spec(accelerator="cpu-2000"), "at most 1,024 CPU devices"),
        (lambda: spec(out="gs://b/r", backend=Slurm()), "a folder that all nodes share"),
        (lambda: spec(retries=-1), "job.retries is -1"),
        (lambda: spec(accelerator="v5p-100"), "near it are v5p-32, v5p-64, v5p-128"),
        (lambda: spec(accelerator="v5"), "write chip and size"),
        (lambda: spec(accelerator="v9-8"), "'v9-8': "),
        (lambda: spec(accelerator="h100-9"), "at most 8 h100 GPUs"),
        (lambda: spec(env={"HF_TOKEN": "x"}), "job.env.HF_TOKEN looks like a secret"),
        (lambda: spec(env={"wandb_api_key": "x"}), "looks like a secret"),
        (lambda: spec(env={"A B": "x"}), "job.env has the name 'A B'"),
        (lambda: spec(env={"A": 1}), "job.env.A must be a string"),
        (lambda: spec(capacity="spot"), "the local back end knows only"),
        (lambda: spec(accelerator="v5p-128"), "does not have"),
        (lambda: spec(code=".", image="i"), "both set"),
        (lambda: tpu(out="/tmp/x"), "give a gs://bucket/folder"),
        (lambda: tpu(image=None), "needs one of them"),
        (lambda: tpu(accelerator="tpu7x-128"), r"tpu7x runs on the gke back end"),
        (
            lambda: tpu(accelerator="h100-8"),
            "'h100-8', which the tpu back end does not offer: use v4",
        ),
        (lambda: tpu(capacity="flex-start"), "use the gke back end"),
        (lambda: tpu(capacity="reserved"), "a reservation goes with capacity 'reserved'"),
        (lambda: tpu(backend=Gke(), image=None, code="."), "job.image is missing"),
        (lambda: tpu(image=None, code="/nowhere"), "holds no pyproject.toml"),
    ],
)
def test_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_word_that_holds_token_is_no_secret():
    assert spec(env={"TOKENIZERS_PARALLELISM": "0"}).env == {"TOKENIZERS_PARALLELISM": "0"}


def test_unknown_fields_suggest_the_nearest():
    raw = json.loads(to_json(spec())) | {"acelerator": "cpu-1"}
    with pytest.raises(ConfigError, match="did you mean 'accelerator'"):
        from_json(json.dumps(raw), JobSpec)
