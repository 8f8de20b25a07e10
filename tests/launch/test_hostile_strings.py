"""Hostile strings in every text of every back end: refused in a sentence, or passed on as they are.

What is accepted is really read: scripts by bash, `#SBATCH` lines by the reader of sbatch itself
where it is installed, manifests by YAML and the schemas of Kubernetes.
"""

import random
import re
import shutil
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import (
    check_batch_script,
    check_documents,
    check_schema,
    check_words,
    real_sbatch,
    run_script,
)

from llm_jax.config import ConfigError, UserError, from_dict
from llm_jax.launch.backends import gke, slurm
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.spec import Gke, JobSpec, Local, SkyPilot, Slurm, Tpu

BUCKET = {"out": "gs://bucket/run", "accelerator": "v5p-8", "image": "registry/llm-jax:1"}
JOBS = {
    "local": {"out": "/runs/demo", "backend": Local()},
    "slurm": {"out": "/runs/demo", "backend": Slurm(partition="p", account="a", time_limit="1")},
    "tpu": BUCKET | {"backend": Tpu(project="p", zone="us-east5-a")},
    "gke": BUCKET | {"backend": Gke(queue="q", service_account="s", context="c")},
    "skypilot": BUCKET | {"backend": SkyPilot(infra="gcp")},
}
OF_JOB = ("name", "out", "config", "image", "code", "accelerator", "capacity", "reservation")
PARTS = [
    "\n", "\r", "\0", "\x1b[2J", "\u2028", "\x85", "\ud800", " ", "\t", "'", '"', "\\", "`", "$",
    "#", "$(touch CANARY)", "`touch CANARY`", ";touch CANARY;", "|touch CANARY", "&&touch CANARY&",
    "!!",
    "\n#SBATCH --wrap=x\n", "#SBATCH --uid=0", "%j", "%%", "%A_%a", "$(HOME)", "$$(X)", "${HOME}",
    "..", "/", "//", "../../etc", "*", "?", "[a]", "{a,b}", "~", "-", "--", "--help", "-rf", "=",
    "gs://bucket/", "/runs/", "a", "z9", "A_b", ".", ",", ":", "@", "é", "名", "\u200b", "\u202e",
    ": ", "- ", "&a", "!!python/object:os.system", "null", "yes", "1e9", "0x1", "<<EOF", ">", "%",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=6).map("".join)


def job(kind):
    return JobSpec(name="demo", config="tiny", **JOBS[kind])


def places(kind):
    """Every field of the job and of the back end that takes a text."""
    backend = [f.name for f in fields(JOBS[kind]["backend"]) if f.name not in ("kind",)]
    texts = [name for name in backend if name not in ("external_ips", "numa")]
    return [*OF_JOB, "env", "trainer", *(f"backend.{name}" for name in texts)]


def with_text(kind, place, text):
    """The job with `text` in that place, read as `launch run --spec` reads it."""
    raw = asdict(job(kind))
    if place == "env":
        raw["env"] = {"VALUE": text}
    elif place == "trainer":
        raw["trainer"] = ["trainer", text]
    elif place == "reservation":
        raw |= {"reservation": text, "capacity": "reserved"}
    elif place == "code":
        raw |= {"code": text, "image": None}
    elif place.startswith("backend."):
        raw["backend"][place.removeprefix("backend.")] = text
    else:
        raw[place] = text
    return from_dict(raw, JobSpec, "job")


def accepted(kind, place, text):
    """The job, or None if it was refused: then in one printable sentence."""
    try:
        spec = with_text(kind, place, text)
        if kind == "slurm":
            LocalFolder(spec.out)  # which looks for the home of ~NAME
        return spec
    except UserError as error:
        assert "\n" not in str(error), (kind, place, text)
        assert re.match(r"job\.|accelerator|The folder", str(error))
        str(error).encode()
        return None


def printable(text):
    return all(c.isprintable() for c in text)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(text=HOSTILE)
def test_a_hostile_string_in_any_field(text):
    for kind in JOBS:
        for place in places(kind):
            spec = accepted(kind, place, text)
            if spec is not None and kind == "slurm":
                check_batch_script(spec)
            elif spec is not None and kind != "local":
                check_documents(spec)
            if spec is not None and kind == "gke":
                check_schema(gke.manifest(spec, spec.backend, 0))


@settings(max_examples=40, deadline=None)
@given(words=st.lists(HOSTILE.filter(printable), min_size=1, max_size=40))
def test_bash_reads_a_quoted_word_as_it_was(words, tmp_path_factory):
    check_words(words, tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("folder", ["$(HOME)", "$$(X)", "'a\"b", "- x: y", "!!int 1", "名"])
def test_a_manifest_with_an_odd_folder_obeys_the_schema(folder):
    spec = with_text("gke", "out", f"gs://bucket/{folder}")
    check_schema(gke.manifest(spec, spec.backend, 0))


@pytest.mark.parametrize(
    "out",
    [
        "/runs/$(touch CANARY)",
        "/a/%j/b c",
        "/q'u\"o`te`s",
        "/back\\slash\\",
        "/a#b",
        "/名;touch CANARY",
    ],
)
def test_a_batch_script_runs_no_path(out, tmp_path):
    spec = with_text("slurm", "out", out)
    run_script(check_batch_script(spec), tmp_path, LocalFolder(out).address)


@pytest.mark.parametrize(
    "setup", ["echo 'open", 'echo "open', "cat <<EOF", "echo $(", "if x", "\\"]
)
def test_an_open_quote_in_setup_takes_nothing_in(setup, tmp_path):
    spec = replace(
        job("slurm"), backend=Slurm(partition="p", account="a", time_limit="1", setup=setup)
    )
    run_script(check_batch_script(spec), tmp_path, "/runs/demo")


@pytest.mark.parametrize("field", ["partition", "account", "time_limit", "setup"])
def test_no_field_of_slurm_becomes_a_line(field):
    for text in ("a\n#SBATCH --uid=0", "a b\r", "x\0"):
        with pytest.raises(ConfigError, match=rf"job.backend.{field} is "):
            Slurm(**{field: text})


@pytest.mark.parametrize("good", ["30", "24:00:00", "2-12", "7-00:00:00", "UNLIMITED", "90:30"])
def test_times_as_slurm_writes_them(good):
    assert Slurm(time_limit=good).time_limit == good


def test_a_link_to_a_folder_with_a_newline_is_refused(tmp_path):
    strange = tmp_path / "a\nb"
    strange.mkdir()
    (tmp_path / "link").symlink_to(strange)
    with pytest.raises(ConfigError, match=r"job.out is .*a\\nb"):
        slurm.render(with_text("slurm", "out", str(tmp_path / "link")), 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slices": 10**8}, "at most 65,536 hosts"),
        ({"grace_seconds": float("inf")}, "job.grace_seconds is inf"),
        ({"grace_seconds": 1e300}, "at most 43,200"),
        ({"out": "/" + "x" * 2000}, "job.out has 2,001 bytes"),
        ({"env": {"A": "\0"}}, r"job.env.A is '\\x00'"),
    ],
)
def test_sizes_without_sense(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        replace(job("slurm"), **changes)


@pytest.mark.skipif(not shutil.which("sbatch"), reason="needs Slurm's sbatch")
@pytest.mark.parametrize(
    "out", ["/a b", "/q'u\"o`te`s", "/back\\slash\\", "/a#b", "/$HOME/$(x)", "/名é"]
)
def test_sbatch_itself_reads_the_options(out, tmp_path):
    assert real_sbatch(check_batch_script(with_text("slurm", "out", out)), tmp_path) == (
        f"llm-jax:{LocalFolder(out).address}",
        f"{LocalFolder(out).address}/launch/slurm.log",
    )


@pytest.mark.slow
def test_five_thousand_strings(tmp_path):
    random_, empty = random.Random(15), tmp_path / "empty"
    empty.mkdir()
    words, taken = [], 0
    for _ in range(5000):
        text = "".join(random_.choices(PARTS, k=random_.randint(0, 6)))
        for kind in JOBS:
            for place in random_.sample(places(kind), 5):
                spec = accepted(kind, place, text)
                taken += spec is not None
                if spec is not None and kind == "slurm":
                    script = check_batch_script(spec)
                    if place == "out" and random_.random() < 0.2:
                        run_script(script, tmp_path, LocalFolder(spec.out).address)
                elif spec is not None and kind != "local":
                    check_documents(spec)
                if spec is not None and kind == "gke" and random_.random() < 0.02:
                    check_schema(gke.manifest(spec, spec.backend, 0))
        if printable(text):
            words.append(text)
    assert taken > 4_000 and len(words) > 500
    check_words(words, empty)
