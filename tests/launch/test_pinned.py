"""What hosts install is fixed at launch: what is sent, its digests, what a restart keeps."""

import json
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from launch_samples import IMAGE

from llm_jax import config
from llm_jax.cli import main
from llm_jax.config import ConfigError, UserError
from llm_jax.launch import job, lock
from llm_jax.launch.backends import driver
from llm_jax.launch.folder import open_folder
from llm_jax.launch.guard import close_folder
from llm_jax.launch.pinned import pin
from llm_jax.launch.records import load_job
from llm_jax.launch.spec import SkyPilot, Tpu

# Resolves to the versions in $UV_VERSIONS, but keeps those that are written in its output.
UV = r"""#!/bin/bash
[ "$1" = --version ] && echo "uv 9.9" && exit
while [ "$1" != --output-file ]; do shift; done
[ -s "$2" ] && exit
for pin in $UV_VERSIONS uv==9.9; do printf '%s \\\n    --hash=sha256:%064d\n' "$pin" 0; done > "$2"
"""
TPU = {"accelerator": "v5p-8", "backend": Tpu(project="p", zone="us-east5-a")}


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setattr(lock, "find_uv", lambda: str(tmp_path / "uv"))
    monkeypatch.setenv("UV_VERSIONS", "jax==1 flax==1")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    return str(tmp_path / "code")


@pytest.fixture
def tpu_spec(make_spec, bucket, code):
    return make_spec(out=bucket + "/run", code=code, slices=1, **TPU)


def launch(spec):
    """Stores the job as `launch run` does; what was said."""
    heard = []
    pinned, made = pin(spec, heard.append, open_folder(spec.out))
    job.store(pinned, config.load(spec.config), 0, made)
    return pinned, heard


def metadata(spec):
    (action,) = driver(spec).render(0)
    return action.queued_resource["tpu"]["node_spec"][0]["node"]["metadata"]


def test_a_vm_is_told_the_digests_of_what_was_sent(tpu_spec, tmp_path):
    pinned, heard = launch(tpu_spec)
    folder = open_folder(pinned.out)
    for name in pinned.sha256:
        (tmp_path / name).write_bytes(folder.read(f"launch/{name}"))
    told = metadata(load_job(folder)[0])["llm-jax-sha256"]
    assert told.count("\n") == 3
    subprocess.run(
        ["sha256sum", "--check", "--strict"], input=told.encode(), cwd=tmp_path, check=True
    )
    assert (tmp_path / "uv.txt").read_text() == "uv==9.9 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    assert "jax==1 \\\n" in (tmp_path / "requirements.txt").read_text()
    assert len(heard) == 1 and heard[0].startswith("searched 1 file of")
    assert "install.sh" not in pinned.sha256 and metadata(pinned)["llm-jax-install"]


def test_an_image_needs_no_installer(make_spec, bucket):
    told = metadata(make_spec(out=bucket + "/run", image=IMAGE, **TPU))
    assert told["llm-jax-image"] == IMAGE
    assert not {"llm-jax-install", "llm-jax-sha256"} & told.keys()


def test_a_restart_keeps_the_lock_and_says_how_one_made_now_would_differ(tpu_spec, monkeypatch):
    first, _ = launch(tpu_spec)
    monkeypatch.setenv("UV_VERSIONS", "jax==2 flax==1")
    again, heard = launch(tpu_spec)
    assert again.sha256 == first.sha256
    assert "differ: jax 2 for 1; remove launch/requirements.txt" in heard[-1]
    open_folder(tpu_spec.out).delete("launch/requirements.txt")
    anew, heard = launch(tpu_spec)
    assert anew.sha256["requirements.txt"] != first.sha256["requirements.txt"]
    assert len(heard) == 1


def test_a_damaged_lock_is_made_anew_and_said(tpu_spec):
    first, _ = launch(tpu_spec)
    folder = open_folder(tpu_spec.out)
    folder.write("launch/requirements.txt", folder.read("launch/requirements.txt")[:-9])
    again, heard = launch(tpu_spec)
    assert again.sha256 == first.sha256
    assert "launch/requirements.txt is not what the job was launched with" in heard[1]


def test_code_that_changes_while_it_is_sent_is_not_sent(tpu_spec):
    pinned, made = pin(tpu_spec, lambda text: None)
    (Path(tpu_spec.code) / "a.py").write_text("1")
    with pytest.raises(UserError, match="changed while the job was launched: launch it again"):
        job.store(pinned, config.load(tpu_spec.config), 0, made)
    assert open_folder(tpu_spec.out).names("launch") == {}


def test_digests_of_an_earlier_job_are_not_taken_over(make_spec):
    stale = make_spec(sha256={"code.tar.gz": "0" * 64})
    assert pin(stale, lambda text: None)[0].sha256 == {}
    for wrong in ({"code.tar.gz": "0"}, {"a;b": "0" * 64}, {"code.tar.gz": 1}):
        with pytest.raises(ConfigError, match=r"job\.sha256 has "):
            make_spec(sha256=wrong)


@pytest.mark.parametrize("image", ["registry/i", "registry/i:1", "europe-docker.pkg.dev/p/r/i:v1"])
def test_an_image_by_its_tag_is_refused(make_spec, bucket, image):
    spec = make_spec(out=bucket + "/run", image=image, **TPU)
    with pytest.raises(ConfigError, match=rf"job.image is '{image}', .*inspect {image}` shows"):
        pin(spec, lambda text: None)


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["launch", "run", *words, "--json"])
    printed = capsys.readouterr()
    return left.value.code, json.loads(printed.out or "null"), printed.err


def words(run_json, code):
    return (run_json, "--name", "demo", "--out", "gs://b/demo", "--data.path", "gs://b/text",
            "--accelerator", "v5p-8", "--parallel.fsdp", "4", "--code", code, "--backend", "tpu",
            "--project", "p", "--zone", "us-east5-a", "--dry-run")  # fmt: skip


def test_a_dry_run_shows_all_that_is_sent(run_json, code, capsys):
    left, planned, err = run(capsys, *words(run_json, code))
    assert left == 0 and "searched 1 file of" in err
    kinds = [(a["action"], a.get("name", "")) for a in planned["actions"]]
    assert kinds == [
        ("SendCode", "launch/code.tar.gz"),
        ("PutFile", "launch/requirements.txt"),
        ("PutFile", "launch/uv.txt"),
        ("PutFile", "launch/run.json"),
        ("PutFile", "launch/job.json"),
        ("CreateQueuedResource", ""),
    ]
    digests = json.loads(planned["actions"][4]["text"])["spec"]["sha256"]
    assert planned["actions"][0]["sha256"] == digests["code.tar.gz"]


def test_what_cannot_be_locked_is_refused_before_anything_is_created(
    make_spec, code, capsys, tmp_path, bucket, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    spec = make_spec(out=f"{bucket}/demo", code=code, backend=SkyPilot(), accelerator="h100-8")
    (tmp_path / "job.json").write_text(config.to_json(spec))
    (tmp_path / "uv").write_text("#!/bin/bash\n[ $1 = --version ] && echo uv 1; exit 1\n")
    left, _, err = run(capsys, "--spec", "job.json")
    assert left == 2 and err.splitlines()[-1].startswith("error: What hosts would install")
    assert open_folder(spec.out).names("launch") == {}
    assert not (tmp_path / "fake.sky.yaml").exists()


def test_skypilot_installs_what_was_sent(make_spec, bucket, code, tmp_path):
    spec = make_spec(out=bucket + "/a b", code=code, accelerator="h100-8", backend=SkyPilot())
    pinned, _ = launch(spec)
    (action,) = driver(pinned).render(0)
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load(action.text)
    assert "workdir" not in task and task["run"].splitlines()[1].startswith("~/llm-jax/venv/bin/")
    sent, home, tools = tmp_path / "gcs/b/a b/launch", tmp_path / "home", tmp_path / "tools"
    for folder in (sent, home, tools):
        folder.mkdir(parents=True)
    for name in pinned.sha256:
        (sent / name).write_bytes(open_folder(pinned.out).read(f"launch/{name}"))
    uv = 'echo "uv $*" >> "$HOME/log"'
    pip = f"""#!/bin/bash\nmkdir -p "$7/bin"; printf '#!/bin/bash\\n{uv}' > "$7/bin/uv"
chmod +x "$7/bin/uv"\n"""
    (tools / "python3").write_text(pip)
    (tools / "python3").chmod(0o755)
    script = task["setup"].replace("/gcs/", f"{tmp_path}/gcs/")
    env = {"HOME": str(home), "PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", script], env=env, check=True)
    assert (home / "llm-jax/code/pyproject.toml").exists()
    assert (home / "log").read_text().count("uv pip install") == 2
    (sent / "uv.txt").write_text("uv==1")
    (home / "log").unlink()
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "uv.txt: FAILED" in done.stdout
    assert not (home / "log").exists()


def test_a_launch_folder_that_others_can_enter_is_closed(make_spec, tmp_path):
    spec, heard = make_spec(), []
    folder = open_folder(spec.out)
    folder.write("launch/agent.0.log", b"")
    close_folder(folder, heard.append)
    assert heard == []
    path = Path(spec.out) / "launch"
    path.chmod(0o755)
    job.close_folder(folder, heard.append)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert heard == [f"{path} had mode 755 and may hold secrets in its logs: it is now 700"]


def test_a_launch_folder_of_somebody_else_is_refused(make_spec, monkeypatch):
    folder = open_folder(make_spec().out)
    folder.write("launch/agent.0.log", b"")
    (folder.path / "launch").chmod(0o750)

    def refuse(path, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(UserError, match=r"has mode 750 .*let its owner run chmod 700"):
        close_folder(folder, lambda text: None)
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    heard = []
    close_folder(folder, heard.append)
    assert "whose file system keeps mode 750" in heard[0]


def test_a_running_job_keeps_its_code(tpu_spec):
    """`sha256` is no part of what a specification asks for."""
    pinned, _ = launch(tpu_spec)
    assert replace(load_job(open_folder(tpu_spec.out))[0], sha256={}) == tpu_spec
    assert pinned != tpu_spec
