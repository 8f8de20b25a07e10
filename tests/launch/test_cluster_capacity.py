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
