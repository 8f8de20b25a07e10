"""Queued resources: the real client against a local gRPC server, with faults injected."""

import dataclasses

import pytest

pytest.importorskip("google.cloud.tpu_v2")

import grpc
from fake_tpu import FakeTpu, State
from launch_samples import IMAGE

from llm_jax import config
from llm_jax.config import ConfigError, UserError
from llm_jax.launch import job
from llm_jax.launch.backends import tpu
from llm_jax.launch.folder import open_folder
from llm_jax.launch.records import attempt_folder, attempt_name, outside_record, record_exit
from llm_jax.launch.spec import Tpu
from llm_jax.launch.supervisor import Supervisor


@pytest.fixture
def cloud():
    fake = FakeTpu()
    yield fake
    fake.server.stop(None)


@pytest.fixture
def tpu_spec(make_spec, bucket):
    def make(**changes):
        fields = {
            "out": bucket + "/run",
            "accelerator": "v5p-8",
            "backend": Tpu(project="p", zone="us-east5-a"),
            "image": IMAGE,
            "capacity": "spot",
        }
        return make_spec(**fields | changes)

    return make


def driver(spec, cloud):
    made = tpu.Driver(spec, cloud.client())
    made.poll = 0.01
    return made


def test_the_payload_is_exact(tpu_spec, cloud):
    spec = tpu_spec(slices=3, accelerator="v5p-128")
    (action,) = tpu.render(spec, 7)
    driver(spec, cloud).apply(action)
    (request,) = cloud.created
    body = request.queued_resource
    (node_spec,) = body.tpu.node_spec
    assert request.parent == node_spec.parent == "projects/p/locations/us-east5-a"
    assert request.queued_resource_id == "fake"
    assert (node_spec.multislice_params.node_count, node_spec.node_id) == (3, "")
    node = node_spec.node
    assert (node.accelerator_type, node.runtime_version) == ("v5p-128", "v2-alpha-tpuv5")
    assert node.network_config.enable_external_ips  # the API's own default is False
    assert dict(node.labels) == {"llm-jax-job": "fake"}
    assert node.metadata["llm-jax-incarnation"] == "7"
    assert node.metadata["startup-script"].startswith("#!/bin/bash")
    assert "spot" in body and "guaranteed" not in body


def test_reserved_capacity(tpu_spec):
    spec = tpu_spec(capacity="reserved", reservation="r")
    (action,) = tpu.render(spec, 0)
    name = "projects/p/locations/us-east5-a/reservations/r"
    assert action.queued_resource["reservation_name"] == name
    assert "spot" not in action.queued_resource


def supervise(spec, cloud, store, train):
    """Supervises; `train(folder, supervisor)` stands for the hosts, called at every poll."""
    first = store(spec)
    folder = open_folder(spec.out)
    lines = []
    back = driver(spec, cloud)
    made = Supervisor(spec, first, back, folder, lines.append, poll=0)
    polls = iter(range(200))

    def sleep(seconds):
        next(polls)  # StopIteration: it never ended
        train(folder, made)

    made.sleep = sleep
    return made.run(), lines, back


def present(folder, incarnation):
    folder.write(f"{attempt_folder(attempt_name(incarnation, 0))}/host.0.json", b"{}")


def finish(folder, incarnation):
    record_exit(folder, attempt_name(incarnation, 0), outside_record(0, "finished", "finished", {}))


def test_a_preempted_resource_is_made_anew_and_nothing_is_left(tpu_spec, cloud, store):
    spec = tpu_spec(slices=1)
    waiting = [State.ACCEPTED, State.WAITING_FOR_RESOURCES, State.PROVISIONING]
    cloud.script = [
        [*waiting, State.ACTIVE, State.ACTIVE, State.SUSPENDING],
        [*waiting, *[State.ACTIVE] * 4, State.SUSPENDED],
        [State.ACTIVE],
    ]
    most = []

    def hosts(folder, supervisor):
        most.append(len(cloud.resources))
        if any(node.state.name == "READY" for node in cloud.nodes.values()):
            present(folder, supervisor.incarnation)
            if supervisor.incarnation == 2:
                finish(folder, 2)
                # The start-up script of host 0 gives the finished resource back.
                cloud.DeleteQueuedResource(delete_request(spec), None)

    outcome, lines, back = supervise(spec, cloud, store, hosts)
    assert outcome.state == "finished"
    metadata = [c.queued_resource.tpu.node_spec[0].node.metadata for c in cloud.created]
    assert [m["llm-jax-incarnation"] for m in metadata] == ["0", "1", "2"]
    assert max(most) == 1  # never two at a time
    assert (cloud.resources, cloud.nodes, back.billable()) == ({}, {}, [])
    assert any("SUSPENDING" in line for line in lines)


def delete_request(spec):
    from google.cloud import tpu_v2

    name = f"projects/p/locations/us-east5-a/queuedResources/{spec.name}"
    return tpu_v2.DeleteQueuedResourceRequest(name=name, force=True)


def test_a_running_resource_whose_run_is_finished_is_given_back(tpu_spec, cloud, store):
    """The hosts may not delete themselves; their records say that the run is over."""
    spec = tpu_spec(slices=1)

    def hosts(folder, supervisor):
        if cloud.nodes:
            present(folder, 0)
            finish(folder, 0)

    outcome, _, back = supervise(spec, cloud, store, hosts)
    assert outcome.state == "finished"
    assert (cloud.resources, back.billable()) == ({}, [])


def test_stock_out_is_retried_and_then_named(tpu_spec, cloud, store):
    spec = tpu_spec(slices=1, retries=2)
    cloud.script = [[State.ACCEPTED, State.FAILED]] * 9
    outcome, _, back = supervise(spec, cloud, store, lambda *_: None)
    assert outcome.state == "failed"
    assert "no capacity in the zone" in outcome.cause and "3 times in a row" in outcome.cause
    assert len(cloud.created) == 3
    assert back.billable() == []


@pytest.mark.slow
def test_429_and_503_are_waited_out(tpu_spec, cloud):
    spec = tpu_spec(slices=1)
    back = driver(spec, cloud)
    codes = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE]
    cloud.errors = {"CreateQueuedResource": list(codes), "DeleteQueuedResource": codes[:1]}
    back.apply(*back.render(0))
    assert len(cloud.created) == 1
    back.remove()
    assert cloud.resources == {}
    back.remove()  # nothing there: nothing to do


def test_a_repeated_creation_meets_its_own_first_try(tpu_spec, cloud):
    back = driver(tpu_spec(slices=1), cloud)
    (action,) = back.render(0)
    back.apply(action)
    back.apply(action)
    assert len(cloud.created) == 1
    (other,) = back.render(1)
    with pytest.raises(UserError, match="exists already"):
        back.apply(other)


def test_mistakes_are_found_before_anything_is_created(tpu_spec, cloud):
    driver(tpu_spec(slices=1), cloud).apply(*tpu.render(tpu_spec(slices=1), 0))
    other = tpu_spec(slices=1, out="gs://b/another")
    with pytest.raises(UserError, match=r"belongs to gs://b/run: choose another job\.name"):
        driver(other, cloud).check()
    with pytest.raises(UserError, match="does not offer: it has v5p-128, v5p-8, v6e-16"):
        driver(tpu_spec(name="x", accelerator="v6e-32"), cloud).check()
    cloud.errors = {"GetQueuedResource": [grpc.StatusCode.PERMISSION_DENIED]}
    with pytest.raises(UserError, match="The TPU API refused"):
        driver(tpu_spec(name="x"), cloud).check()
    assert len(cloud.created) == 1


@pytest.mark.parametrize("state", ["STATE_UNSPECIFIED", 77])
def test_a_state_that_is_not_known_is_waited_out(tpu_spec, cloud, state):
    spec = tpu_spec()
    back = driver(spec, cloud)
    cloud.script = [[]]
    back.apply(*tpu.render(spec, 0))
    found = cloud.resources[back.name][0]
    type(found).pb(found).state.state = State[state] if isinstance(state, str) else state
    assert back.resource().state == "waiting" and str(state) in back.resource().detail
    assert [job["state"] for job in tpu.listing("p", "us-east5-a", cloud.client())] == ["waiting"]
    assert str(state) in back.billable()[0]


def test_a_zone_that_the_api_does_not_know(tpu_spec, cloud):
    not_found = [grpc.StatusCode.NOT_FOUND] * 2
    cloud.errors = {"ListAcceleratorTypes": not_found[:1], "ListQueuedResources": not_found[:1]}
    with pytest.raises(UserError, match="knows no projects/p/locations/us-east5-a: check"):
        driver(tpu_spec(), cloud).check()
    assert tpu.listing("p", "us-east5-a", cloud.client()) == []


def looked_at(tpu_spec, cloud, path):
    """What `launch run` says before anything is created, for a dataset at `path`."""
    lines = []
    spec = tpu_spec(trainer=[])
    run = config.load(spec.config)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, path=path))
    job.prepare(spec, driver(spec, cloud), lines.append, run)
    return lines


def test_the_dataset_is_looked_at_before_anything_is_created(tpu_spec, cloud, bucket):
    text = open_folder(f"{bucket}/text")
    with pytest.raises(ConfigError, match="'gs://b/text', where there is no dataset"):
        looked_at(tpu_spec, cloud, "gs://b/text")
    text.write("dataset.json", b'{"vocab_size": 100}')
    for path in ("gs://b/text", "/gcs/b/text"):
        with pytest.raises(ConfigError, match=r"model\.vocab_size is 64, but .* has 100 tokens"):
            looked_at(tpu_spec, cloud, path)
    text.write("dataset.json", b"[]")
    with pytest.raises(ConfigError, match=r"dataset\.json gives no vocab_size"):
        looked_at(tpu_spec, cloud, "gs://b/text")
    with pytest.raises(ConfigError, match="'data/stdlib', which hosts of the tpu back end cannot"):
        looked_at(tpu_spec, cloud, "data/stdlib")
    assert not open_folder(f"{bucket}/run").names("launch") and not cloud.created
    text.write("dataset.json", b'{"vocab_size": 64}')
    assert looked_at(tpu_spec, cloud, "gs://b/text") == []
    assert not cloud.created


def test_the_cloud_lists_jobs_with_their_folders(tpu_spec, cloud):
    spec = tpu_spec(slices=1)
    driver(spec, cloud).apply(*tpu.render(spec, 0))
    listed = tpu.listing("p", "us-east5-a", cloud.client())
    assert listed == [{"job": "fake", "state": "waiting", "out": spec.out}]
