"""Job arrays as text and by what Slurm says of their tasks; a real cluster is in
`test_slurm_curation.py`."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import sbatch_words
from test_hostile_strings import HOSTILE

from llm_jax.config import ConfigError, UserError
from llm_jax.launch import data_job, slurm_commands
from llm_jax.launch.tasks import arrays, one_array
from llm_jax.launch.tasks.places import RayTasks, SlurmTasks
from llm_jax.runs.tasks import Ended, TaskFailed, is_over

TASK = ("/work", "0", "7")


def silent(sentence: str) -> None:
    """Shows nothing."""


def test_the_array_is_exact() -> None:
    place = SlurmTasks(
        partition="cpu", account="lab", time_limit="2:00:00", cpus=2, memory="4G",
        setup=". /s/activate",
    )  # fmt: skip
    work = Path("/work")
    action = arrays.render(place, work, arrays.array_folder(work, 3), "41", 16)
    assert action.argv == ("sbatch", "--parsable", "--array=0-41%16")
    assert sbatch_words(action.script) == [
        "--job-name=llm-jax-tasks",
        "--comment=llm-jax-tasks:/work",
        "--output=/work/arrays/0003/%a.log",
        "--no-requeue",
        "--ntasks=1",
        "--cpus-per-task=2",
        "--partition=cpu",
        "--account=lab",
        "--time=2:00:00",
        "--mem=4G",
    ]
    last = action.script.splitlines()[-1]
    assert shlex.split(last)[1:] == [
        "$python", "-m", "llm_jax.launch.tasks.array_task", "/work/arrays/0003",
        "$SLURM_ARRAY_TASK_ID",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(name=HOSTILE, setup=HOSTILE, word=HOSTILE)
def test_hostile_strings_are_refused_or_passed_on(name: str, setup: str, word: str) -> None:
    work = Path(f"/shared/{name}")
    try:
        place = SlurmTasks(setup=setup)
        action = arrays.render(place, work, work, "1", 2)
        job = data_job.on_slurm(place, ["data", "curate", word], Path("/shared/x"))
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert f"--comment=llm-jax-tasks:{work}" in sbatch_words(action.script)
    # `printf` in place of Python shows the words that it would get.
    shown = "\n".join(
        line.replace('exec "$python"', "printf '%s\\0'").replace('"$python"', "printf '%s\\0'")
        for script in (action.script, job.script)
        for line in script.splitlines()
        if '"$python"' in line
    )
    done = subprocess.run(["bash"], input=shown.encode(), capture_output=True, check=True, cwd="/")
    words = done.stdout.decode().split("\0")
    assert words[:3] == ["-m", "llm_jax.launch.tasks.array_task", str(work)]
    assert words[4:-1] == ["-m", "llm_jax", "data", "curate", word]


@pytest.mark.parametrize(
    ("field", "value"),
    [("partition", "a b"), ("account", "$(x)"), ("time_limit", "soon"), ("memory", "4 GB")],
)
def test_a_text_without_the_form_of_its_place(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')} is "):
        SlurmTasks(**{field: value})


def test_no_secret_goes_into_a_job() -> None:
    secret = "export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(ConfigError, match="--setup looks like a secret"):
        SlurmTasks(setup=secret)
    address = "https://u:hunter2hunter2@host/x"  # pragma: allowlist secret
    with pytest.raises(ConfigError, match="looks like a secret"):
        data_job.check_words(["data", "curate", "--input", address])


@pytest.mark.parametrize(
    ("shown", "log", "ended"),
    [
        ("JobState=NODE_FAIL ExitCode=0:0 NodeList=n2", False, "NODE_FAIL on n2"),
        ("JobState=TIMEOUT ExitCode=0:15 NodeList=n1", True, "TIMEOUT on n1"),
        ("JobState=OUT_OF_MEMORY ExitCode=0:125 NodeList=n1", True, "OUT_OF_MEMORY on n1"),
        ("JobState=FAILED ExitCode=0:9 NodeList=n1", True, Ended(-9)),
        ("JobState=COMPLETED ExitCode=0:0 NodeList=n1", True, Ended()),
        ("JobState=FAILED ExitCode=127:0 NodeList=n1", True, Ended(1, "python3: not found")),
        ("", True, "something that Slurm has forgotten"),
        ("JobState=FAILED ExitCode=0:53 NodeList=n1", False, TaskFailed),
        ("JobState=CANCELLED ExitCode=0:15 NodeList=n1", True, TaskFailed),
    ],
)
def test_what_became_of_a_task_without_a_record(
    shown: str, log: bool, ended: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_array, "ASK", 0.0)
    monkeypatch.setattr(one_array, "LAG", 0.0)
    answers = {"squeue": "", "scontrol": shown}
    monkeypatch.setattr(slurm_commands, "slurm_output", lambda *words, **options: answers[words[0]])
    monkeypatch.setattr(one_array, "slurm_output", lambda *words, **options: answers[words[0]])
    if log:
        (tmp_path / "0.log").write_text("python3: not found")
    array = one_array.Array(7, tmp_path, [TASK], 1, silent)
    if isinstance(ended, type):
        with pytest.raises(ended, match=r"cancelled|give --out on a file system"):
            [*array.new(), *array.new()]
        return
    ((task, how),) = [*array.new(), *array.new()]
    assert task == TASK and array.is_over()
    assert how == ended or how.died == ended


def test_slurm_may_be_silent_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(*words: str, **options: object) -> str:
        raise UserError("squeue did not answer within a minute: ask slurmctld's admin.")

    monkeypatch.setattr(one_array, "ASK", 0.0)
    monkeypatch.setattr(one_array, "slurm_output", silence)
    said: list[str] = []
    array = one_array.Array(7, tmp_path, [TASK], 1, said.append)
    assert [*array.new(), *array.new()] == [] and not array.is_over()
    assert len(said) == 1 and "squeue did not answer" in said[0]
    monkeypatch.setattr(one_array, "SILENCE", 0.0)
    with pytest.raises(TaskFailed, match="What is done is kept"):
        [*array.new()]


def test_a_record_counts_more_than_what_slurm_says(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps({"code": -9, "said": ""}))
    array = one_array.Array(7, tmp_path, [TASK, TASK], 1, silent)
    assert [how for _, how in array.new()] == [Ended(-9)] and not array.is_over()


def test_three_tries_and_the_way_out() -> None:
    said: list[str] = []
    late = Ended(died="TIMEOUT on n1", way_out=one_array.TIME)
    assert not is_over(TASK, late, 2, said.append)
    assert said == ["the task of shard 7 of pass 0 died by TIMEOUT on n1; it is run again"]
    with pytest.raises(TaskFailed, match=r"died 3 times, by TIMEOUT on n1: .*--time-limit"):
        is_over(TASK, late, 3, said.append)


@given(st.sampled_from(["auto", "head:6379", "10.0.0.1:6379", "http://head:8265"]))
def test_addresses_of_ray(address: str) -> None:
    assert RayTasks(address=address).address == address
    with pytest.raises(ConfigError, match="--ray-address is "):
        RayTasks(address=address + " x")
