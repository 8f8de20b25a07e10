"""`launch preflight`: a reservation that does not fit, and a quota that is too small."""

import pytest

pytest.importorskip("kubernetes")

from cluster_world import POOL, V5P
from fake_google import QUOTAS, pool, quota, reservation
from fake_kubernetes import node

RESERVATIONS = {
    "fits": (reservation("ct5p-hightpu-4t", 64, 32), None),
    "other machine": (reservation("ct6e-standard-4t", 64), "is of ct6e-standard-4t machines"),
    "too small": (reservation("ct5p-hightpu-4t", 16), "has 16, of which 16 are free"),
    "in use": (reservation("ct5p-hightpu-4t", 64, 64), "has 64, of which 0 are free"),
    "not yet": (reservation("ct5p-hightpu-4t", 64, status="CREATING"), "is CREATING"),
    "calendar": (reservation("ct5p-hightpu-4t", 32, deleteAtTime="2026-12-01T00:00:00Z"), None),
}


@pytest.mark.slow
@pytest.mark.parametrize(("held", "sentence"), RESERVATIONS.values(), ids=RESERVATIONS.keys())
def test_a_reservation_fits_the_slices(look, world, google, held, sentence):
    google.reservations = [held]
    found = look(of="reservation", capacity="reserved", reservation="spring")
    assert [sentence in one for one in found["error"]] == ([True] if sentence else [])
    ends = [one for one in found["warning"] if "ends at 2026-12-01T00:00:00Z" in one]
    assert len(ends) == ("deleteAtTime" in held)


def test_machines_of_this_cluster_count_as_free(look, world, google):
    world.nodes = [
        node(f"p{p}", reservation_name="spring", **V5P) for p in (0, 1) for _ in range(16)
    ]
    google.reservations = [reservation("ct5p-hightpu-4t", 32, 32)]
    assert look(of="reservation", capacity="reserved", reservation="spring")["error"] == []


def test_an_aggregate_reservation_counts_chips(look, world, google):
    kind = {"acceleratorType": "projects/1/zones/us-east5-a/acceleratorTypes/ct5p"}
    held = {"accelerator": kind | {"acceleratorCount": 128}}
    other = {"accelerator": {"acceleratorType": "x/ct6e", "acceleratorCount": 512}}
    place = {"name": "spring", "zone": "z/us-east5-a", "status": "READY"}
    google.reservations = [place | {"aggregateReservation": {"reservedResources": [held, other]}}]
    sentence = "The reservation spring has 32 machines, and the job needs 32."
    words = {"of": "reservation", "capacity": "reserved", "reservation": "spring"}
    assert look(**words)["ok"] == [sentence]
    assert "lower --slices" in look(**words, slices=3)["error"][0]


QUOTA = f"{QUOTAS}/PREEMPTIBLE-TPUS-PER-TPU-FAMILY-per-project-region"
EAST, WEST = {"region": "us-east5"}, {"region": "us-west1"}
QUOTA_ROWS = {
    "enough": ([(EAST | {"tpu_family": "CT5P"}, 128)], None),
    "too small": ([({}, 9999), (EAST | {"tpu_family": "CT5P"}, 64)], "is 64"),
    "elsewhere": ([(WEST | {"tpu_family": "CT5P"}, 9999)], "is 0"),
    "of the region": ([(EAST, 32), ({}, 9999)], "is 32"),
    "without limit": ([(EAST, -1)], None),
}


@pytest.mark.parametrize(("rows", "sentence"), QUOTA_ROWS.values(), ids=QUOTA_ROWS.keys())
def test_a_quota_too_small_is_said_before_anything_waits(look, world, google, rows, sentence):
    """Two pools could grow to a slice each; their machines are not there yet."""
    world.nodes = []
    google.pools = [pool(n, *POOL[1:], spot=True, most=16) for n in ("a", "b")]
    google.objects[QUOTA] = quota(*rows)
    found = look(of="quota", capacity="spot")
    assert [sentence in one for one in found["error"]] == ([True] if sentence else [])
    (nodes,) = look(of="nodes", capacity="spot")["warning"]
    assert "the cluster makes the others when the job asks" in nodes


def test_a_pool_that_has_its_slice_makes_no_other(look, world, google):
    google.pools = [pool(f"pool-{n}", *POOL[1:], most=16) for n in (0, 1)]
    (error,) = look(of="nodes", slices=3)["error"]
    assert "those of 2" in error and "room for 0 in 2 node pools" in error
    world.nodes = [node("pool-0", **V5P) for _ in range(16)]
    assert look(of="nodes")["error"] == []  # pool-1 makes the other


def test_machines_that_are_there_are_of_those_that_a_pool_can_have(look, world, google):
    labels = {"gke_accelerator": "nvidia-h100-mega-80gb"}
    world.nodes = [node("gpus", **labels) for _ in range(3)]
    google.pools = [pool("gpus", "a3-megagpu-8g", most=4)]
    words = {"of": "nodes", "accelerator": "a3-megagpu-8g"}
    assert look(**words, slices=4)["error"] == []
    (error,) = look(**words, slices=5)["error"]
    assert "those of 3" in error and "room for 1" in error


def test_a_slice_of_one_machine_takes_a_pool_of_its_own(look, world, google):
    """As `exclusive-topology` has it; four nodes in a pool hold one slice."""
    labels = {"gke_tpu_accelerator": "tpu-v6e-slice", "gke_tpu_topology": "2x4"}
    world.nodes = [node("small", **labels) for _ in range(4)]
    google.pools = [pool("small", "ct6e-standard-8t", "2x4")]
    words = {"of": "nodes", "accelerator": "v6e-8"}
    assert look(**words, slices=1)["ok"] == ["Nodes of 1 slice are ready."]
    assert "those of 1" in look(**words, slices=2)["error"][0]


@pytest.mark.parametrize(
    ("kind", "level"), [("nvidia-l4", "error"), ("nvidia-h100-80gb", "warning")]
)
def test_a_pool_of_other_gpus_has_no_room(look, world, google, kind, level):
    """Parts of a machine come with several machine types, so the GPU tells."""
    plain = pool("default-pool", "e2-standard-8", most=99)
    gpus = [{"acceleratorCount": "2", "acceleratorType": kind}]
    google.pools = [plain, pool("gpus", "some-machine", most=4, accelerators=gpus)]
    found = look(of="nodes", accelerator="h100-2", slices=2)
    assert {level for level, said in found.items() if said} == {level}
