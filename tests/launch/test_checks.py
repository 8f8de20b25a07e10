"""What is made sure of before a trainer starts, and the trainer as a child."""

import signal
import socket
import subprocess
import sys

import pytest
from launch_samples import wait_for

from llm_jax.config.exits import CONFIG, PEER_LOST
from llm_jax.launch import agent, checks
from llm_jax.launch.checks import Refused
from llm_jax.launch.folder import open_folder
from llm_jax.launch.peers import Peers
from llm_jax.launch.records import attempts
from llm_jax.launch.spec import Slurm
from llm_jax.launch.trainer import Trainer, kernel_kills


def test_a_device_held_by_a_process_left_behind(tmp_path):
    (tmp_path / "4711" / "fd").mkdir(parents=True)
    (tmp_path / "4711" / "fd" / "7").symlink_to("/dev/null")
    checks.check_devices(tmp_path)
    (tmp_path / "4711" / "fd" / "9").symlink_to("/dev/vfio/0")
    with pytest.raises(Refused, match="process 4711 still holds /dev/vfio/0: end it"):
        checks.check_devices(tmp_path)


def test_the_hosts_name_must_reach_it(make_spec, monkeypatch):
    spec = make_spec(backend=Slurm())
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    with pytest.raises(Refused, match="does not resolve"):
        checks.own_address(spec)
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    with pytest.raises(Refused, match=r"resolves to 127\.0\.0\.1, where other hosts cannot"):
        checks.own_address(spec)
    assert checks.own_address(make_spec()) == "127.0.0.1"


def test_two_gangs_get_two_ports():
    first = checks.free_port("127.0.0.1")
    with socket.create_server(("127.0.0.1", first)):
        assert checks.free_port("127.0.0.1") != first


@pytest.mark.parametrize(
    ("env", "process"),
    [
        ({"LLM_JAX_PROCESS": "3"}, 3),
        ({"SLURM_PROCID": "2"}, 2),
        ({"LLM_JAX_SLICE": "1", "LLM_JAX_WORKER": "0"}, 1),
    ],
)
def test_who_am_i(make_spec, env, process):
    assert checks.this_process(make_spec(slices=4), env) == process


def test_i_am_one_too_many(make_spec):
    with pytest.raises(Refused, match="this is host 2, but the job has only 2 hosts"):
        checks.this_process(make_spec(), {"SLURM_PROCID": "2"})
    with pytest.raises(Refused, match="nothing in the environment"):
        checks.this_process(make_spec(), {})


def test_silence_is_noticed_by_ones_own_clock(make_spec, tmp_path):
    spec = make_spec(slices=3)
    folder = open_folder(str(tmp_path))
    for process in range(3):
        checks.announce(folder, "0000.0000", process, {})
    peers = Peers(folder, "0000.0000", spec, process=0)
    assert peers.look(0) == (set(), {1, 2})
    checks.announce(folder, "0000.0000", 1, {})
    peers.look(15)
    peers.look(21)  # 20 s are allowed; host 1 was heard at 15
    assert peers.look(22) == ({2}, {1})
    (attempt,) = attempts(folder, 3)
    assert [(e.process, e.kind) for e in attempt.exits] == [(2, "lost")]
    assert attempt.exits[0].sentence == "its agent has been silent for 20 s"


def start(code):
    return Trainer([sys.executable, "-uc", code], {})


def test_nothing_of_the_trainer_is_left_behind():
    trainer = start(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)\n"
    )
    wait_for(lambda: trainer.code() is not None)
    trainer.finish()
    grandchild = trainer.take_output().decode().strip()

    def state():
        shown = subprocess.run(["ps", "-o", "stat=", "-p", grandchild], capture_output=True)
        return shown.stdout.strip()

    assert int(grandchild) > 1
    wait_for(lambda: state() in (b"", b"Z"))  # SIGKILL takes a moment


def test_the_newest_output_is_kept_if_nobody_takes_it(monkeypatch):
    monkeypatch.setattr("llm_jax.launch.trainer.BUFFER_BYTES", 1000)
    trainer = start("import sys; sys.stdout.write('a' * 5000 + 'end')")
    wait_for(lambda: trainer.code() is not None)
    trainer.finish()
    output = trainer.take_output()
    assert output.startswith(b"[4003 bytes of output were dropped here]\n")
    assert output.endswith(b"aend") and trainer.take_output() == b""
    assert trainer.tail.endswith(b"aend")


def test_a_frozen_trainer_is_told_from_a_busy_one():
    trainer = start("import time; print('up'); time.sleep(60)")
    wait_for(lambda: trainer.tail)
    assert not trainer.is_stopped()
    trainer.send(signal.SIGSTOP)
    wait_for(trainer.is_stopped)
    trainer.kill()
    assert trainer.code() == -signal.SIGKILL


def test_kernel_kills(tmp_path):
    events = tmp_path / "memory.events"
    assert kernel_kills(events) == 0
    events.write_text("low 0\noom 3\noom_kill 2\n")
    assert kernel_kills(events) == 2


def test_a_folder_that_does_not_answer_at_the_start_is_one_sentence(monkeypatch, capsys, tmp_path):
    """The back end starts the agent again, as it does when the folder fails later on."""

    def silent(address):
        folder = open_folder(str(tmp_path))
        folder.read = lambda name: (_ for _ in ()).throw(OSError("503 try later"))
        return folder

    monkeypatch.setattr(sys, "argv", ["agent", "gs://b/run"])
    monkeypatch.setattr(agent, "open_folder", silent)
    assert agent.main() == PEER_LOST
    assert capsys.readouterr().err == (
        "error: the output folder gs://b/run does not answer: 503 try later\n"
    )
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["agent", "gs://"])
    assert agent.main() == CONFIG
    assert "write gs://bucket/folder" in capsys.readouterr().err
