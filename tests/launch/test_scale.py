"""Large jobs: budgets by simulation in virtual time, and readers that take over."""

import json
import math
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_jax.launch import checks, news
from llm_jax.launch.agent import Agent
from llm_jax.launch.bucket import PART_BYTES
from llm_jax.launch.budget import READERS, pace, turn_of
from llm_jax.launch.folder import LocalFolder, open_folder
from llm_jax.launch.news import Gang, News, news_name
from llm_jax.launch.records import outside_record, record_exit, write_json
from llm_jax.launch.spec import Limits, Slurm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import scale

DETECT, DECIDE, STEADY = 30.0, 60.0, 500.0
"""Seconds, seconds, requests per second."""


def hold(found):
    assert found["resumed"] == found["failures"], found["said"]
    assert max(found["detect"].values()) <= DETECT
    assert max(found["decide"].values()) <= DECIDE
    assert 0 < found["steady"] <= STEADY


@pytest.mark.slow
def test_budgets_at_256_hosts():
    hold(scale.measure(256, failures=1, every=10.0, seed=1, kinds=("crash",)))


@pytest.mark.slow
def test_budgets_at_2048_hosts():
    hold(scale.measure(2048, failures=1, every=20.0, seed=2, kinds=("storm",)))


@pytest.mark.slow
def test_a_simulation_depends_on_nothing_but_its_seed():
    first, again, other = (
        scale.measure(16, failures=2, every=30.0, seed=seed, kinds=("crash", "host"))
        for seed in (3, 3, 4)
    )
    same = ("steady", "peak", "refused", "detect", "decide", "wasted_chip_hours")
    assert [first[name] for name in same] == [again[name] for name in same]
    assert first["said"] == again["said"] and first["detect"] != other["detect"]


def large(make_spec, hosts):
    return make_spec(slices=hosts, accelerator="h100-8", backend=Slurm(), limits=Limits())


def steady(of, hosts):
    """Requests per second of hosts that train, if all of them write logs."""
    readers = min(hosts, READERS)
    pages = math.ceil((2 * hosts + 1) / 1000)
    return (
        readers * (pages + 1 + (hosts > READERS)) / of.look
        + (hosts - readers) / of.news
        + hosts / of.announce
        + 3 * hosts / of.status  # the trainer's report: written, renamed, read
        + hosts / of.log
    )


@pytest.mark.parametrize("hosts", [1, 2, 8, 9, 16, 256, 2048, 4096, 5000])
def test_the_paces_keep_the_budget(make_spec, hosts):
    spec = large(make_spec, hosts)
    of = pace(spec, bucket=True)
    assert steady(of, hosts) <= STEADY
    assert of.announce <= spec.limits.heartbeat / 3
    readers = [p for p in range(hosts) if turn_of(p, hosts) is not None]
    assert len(readers) == min(hosts, READERS) and readers[0] == 0
    if hosts <= READERS:
        assert (of.spread, of.turn) == (0, 0)


def test_the_table_of_the_guide_is_what_hosts_do(make_spec):
    guide = (Path(__file__).resolve().parents[2] / "docs" / "launch.md").read_text()
    table = guide.partition("| hosts | readers list |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 5
    for line in table:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        hosts = int(cells[0].split()[-1].replace(",", ""))
        of = pace(large(make_spec, hosts), bucket=True)
        shown = [of.look, of.news, of.announce, of.status, of.log]
        for cell, value in zip(cells[1:6], shown, strict=True):
            assert not cell or float(cell) == pytest.approx(value, abs=0.05)
        most = int(cells[6].split()[-1])
        assert most - 5 <= steady(of, hosts) <= most


@pytest.fixture
def clock(monkeypatch):
    """Monotonic time of the news, in the test's hand."""
    hand = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(monotonic=lambda: hand.now, time=lambda: hand.now)
    monkeypatch.setattr(news, "time", fake)
    return hand


def gangs(spec, folder, processes):
    of = pace(spec, bucket=True)
    return [Gang(folder, "0000.0000", spec, p, of) for p in processes]


def present(folder, hosts):
    for process in range(hosts):
        checks.announce(folder, "0000.0000", process, {"address": "10.0.0.1", "port": 8})


def test_readers_publish_and_the_others_hear(make_spec, tmp_path, clock):
    spec = make_spec(slices=20)
    folder = LocalFolder(str(tmp_path))
    present(folder, 19)
    reader, other = gangs(spec, folder, [0, 1])
    assert reader.look(started=False) == other.look(started=False) == News()
    present(folder, 20)
    clock.now += 10
    lead = {"address": "10.0.0.1", "port": 8}
    assert reader.look(started=False) == other.look(started=False) == News(lead=lead)
    record_exit(folder, "0000.0000", outside_record(7, "memory", "out of memory", None))
    record_exit(folder, "0000.0000", outside_record(3, "peer", "lost a peer", None))
    clock.now += 10
    assert reader.look(started=True).failed == "peer"  # the first by number that it reads
    clock.now += 10
    assert reader.look(started=True).ended and other.look(started=True).failed == "peer"
    assert not other.known.stop and other.turn is None


def test_readers_that_write_over_each_other_lose_nothing():
    dice = random.Random(1)
    for _ in range(200):
        facts = [News(ended=dice.random() < 0.5, stop=dice.random() < 0.5,
                      failed=dice.choice(["", "peer", "memory"])) for _ in range(2)]  # fmt: skip
        one = facts[0].joined(facts[1])
        assert one == facts[1].joined(facts[0]) == one.joined(facts[0])


def meet(spec, folder, processes):
    """Lets agents wait for each other, at their own pace; process → kind of its record."""
    kinds = {}

    def wait(process):
        agent = Agent(folder, spec, 0, {"LLM_JAX_PROCESS": str(process)})
        gang = Gang(folder, "0000.0000", spec, process, agent.pace)
        checks.announce(folder, "0000.0000", process, {"address": "10.0.0.1", "port": 8})
        try:
            kinds[process] = "started" if agent.meet(gang) else "peer"
        except checks.Refused as error:
            kinds[process] = str(error)
        record_exit(folder, "0000.0000", outside_record(process, "peer", "left", None))
        gang.end("missing")

    threads = [threading.Thread(target=wait, args=(p,), daemon=True) for p in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return kinds


@pytest.mark.parametrize("present", [[*range(11)], [0, 2, 5]])
def test_readers_alone_look_who_is_missing(make_spec, tmp_path, monkeypatch, present):
    """The others hear it, also from a reader that is the only one."""
    spec = make_spec(slices=12, rendezvous_seconds=1)
    looked = []
    monkeypatch.setattr(checks, "why_missing", lambda *words: looked.append(words[3]) or "")
    kinds = meet(spec, LocalFolder(str(tmp_path)), present)
    readers = [p for p in present if turn_of(p, 12) is not None]
    assert readers and set(kinds) == set(present)
    told = [p for p, kind in kinds.items() if "had not started" in kind]
    assert told and set(told) <= set(readers)
    assert all(kinds[p] == "peer" for p in present if p not in told)
    assert 1 <= len(looked) <= len(readers) and 11 in looked[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"lead": {"address": 5}, "ended": 1}'])
def test_damaged_news_are_passed_over(make_spec, tmp_path, clock, capsys, content):
    spec = make_spec(slices=20)
    folder = LocalFolder(str(tmp_path))
    present(folder, 20)
    folder.write(news_name("0000.0000"), content)
    reader, other = gangs(spec, folder, [0, 1])
    assert other.look(started=False) == News()
    assert reader.look(started=False).lead is not None
    clock.now += 10
    assert other.look(started=False).lead is not None
    assert capsys.readouterr().err.count("passed over") == 1


def live(everyone, clock, seconds, until=lambda: False):
    """Lets hosts look, each at its pace, until something is so."""
    end = clock.now + seconds
    while clock.now < end and not until():
        clock.now += 1
        for gang in everyone:
            gang.look(started=True)


def test_others_take_over_from_readers_that_are_gone(make_spec, tmp_path, clock):
    """Of 200 hosts all readers are gone; a stop is requested, and a host has failed."""
    hosts = 200
    spec = make_spec(slices=hosts, limits=Limits(heartbeat=10_000))
    folder = LocalFolder(str(tmp_path))
    present(folder, hosts)
    readers = [p for p in range(hosts) if turn_of(p, hosts) is not None]
    everyone = gangs(spec, folder, [p for p in range(hosts) if p not in readers])
    of = everyone[0].pace
    live(everyone, clock, 5)
    write_json(folder, "launch/stop.json", {"time": 0})
    record_exit(folder, "0000.0000", outside_record(150, "disk", "full", None))
    live(everyone, clock, of.stale - 10)
    assert not any(gang.known.stop or gang.turn is not None for gang in everyone)
    live(everyone, clock, 60, until=lambda: all(gang.known.stop for gang in everyone))
    assert all(gang.known.stop and gang.known.failed == "disk" for gang in everyone)
    taken = sum(gang.turn is not None for gang in everyone)
    assert 1 <= taken <= 5 * READERS


def test_a_dead_reader_is_replaced_by_the_next(make_spec, tmp_path, clock):
    """While one reader lives, nobody has to take over."""
    hosts = 40
    spec = make_spec(slices=hosts, limits=Limits(heartbeat=10_000))
    folder = LocalFolder(str(tmp_path))
    present(folder, hosts)
    last = max(p for p in range(hosts) if turn_of(p, hosts) is not None)
    assert turn_of(last, hosts) == READERS - 1
    second = next(p for p in range(hosts) if turn_of(p, hosts) == 1)
    everyone = gangs(
        spec, folder, [second, *[p for p in range(hosts) if turn_of(p, hosts) is None]]
    )
    live(everyone, clock, 600)
    assert sum(gang.turn is not None for gang in everyone) == 1
    assert all(gang.known.lead for gang in everyone)


def test_logs_are_not_sent_anew(bucket):
    """A hundred pieces of 4 KiB: each is sent with the open part, and full parts never again."""
    from fake_bucket import Bucket

    folder = open_folder(bucket + "/run")
    sent = Counter()
    write = folder.write
    folder.write = lambda name, data: (sent.update({name: len(data)}), write(name, data))
    for _ in range(100):
        folder.append("launch/logs/0000.0000/host.0.log", bytes(4096))
    assert len(sent) == math.ceil(100 * 4096 / PART_BYTES)
    assert sum(sent.values()) / 100 < 0.55 * PART_BYTES + 4096
    assert len(folder.read_log("launch/logs/0000.0000/host.0.log", 0)) == 100 * 4096
    assert max(len(data) for _, data in Bucket.objects.values()) <= PART_BYTES


def test_listings_come_in_pages_and_from_a_name_on(bucket, monkeypatch):
    from fake_bucket import Bucket

    monkeypatch.setattr(Bucket, "page_size", 3)
    folder = open_folder(bucket + "/run")
    names = [f"launch/attempts/0000.{n:04d}/host.0.json" for n in range(8)]
    for name in names:
        folder.write(name, json.dumps(name).encode())
    assert list(folder.names("launch/attempts")) == names
    assert list(folder.names("launch/attempts", "launch/attempts/0000.00040")) == names[5:]
    held = folder.read_many([*names, "launch/none"])
    assert held == {name: json.dumps(name).encode() for name in names} | {"launch/none": None}
