"""The output folder on a disk and in a bucket: one behaviour, held to by the same tests.

The bucket is the real client against a local server that keeps objects in memory and knows
generations.
"""

import json
import threading

import pytest

from llm_jax.config import UserError
from llm_jax.launch.bucket import PART_BYTES
from llm_jax.launch.folder import check_writable, open_folder
from llm_jax.launch.lease import Lease, LeaseLost


@pytest.fixture(params=["disk", "bucket"])
def address(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "out")
    return request.getfixturevalue("bucket") + "/runs/demo"


def test_files(address):
    folder = open_folder(address)
    assert folder.read("launch/a.json") is None and folder.names("launch") == {}
    folder.write("launch/a.json", b"1")
    before = folder.names("launch")
    folder.write("launch/a.json", b"2")
    assert folder.read("launch/a.json") == b"2"
    assert folder.names("launch").keys() == before.keys() == {"launch/a.json"}
    assert folder.names("launch") != before
    folder.delete("launch/a.json")
    folder.delete("launch/a.json")
    assert folder.names("launch") == {}


def test_one_of_many_creates(address):
    folders = [open_folder(address) for _ in range(8)]
    won = []

    def create(i):
        if folders[i].create("launch/x", str(i).encode()):
            won.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and folders[0].read("launch/x") == str(won[0]).encode()


def test_logs_grow_and_are_read_from_anywhere(address):
    folder = open_folder(address)
    assert folder.read_log("launch/h.log", 0) == b""
    whole = b""
    for size in (10, PART_BYTES, 5, PART_BYTES + 3, 1):
        data = bytes([65 + size % 20]) * size
        folder.append("launch/h.log", data)
        whole += data
    open_folder(address).append("launch/h.log", b"after a restart")
    whole += b"after a restart"
    for start in (0, 7, PART_BYTES + 20, len(whole) - 3, len(whole)):
        assert folder.read_log("launch/h.log", start) == whole[start:]


def test_leases(address):
    folder = open_folder(address)
    first = Lease(folder, expires=0.3)
    with pytest.raises(UserError, match="supervised already"):
        Lease(folder, expires=0.3)
    first.release()
    second = Lease(folder, expires=0.3)
    second.check()
    with pytest.raises(LeaseLost):
        first.check()
    second.release()


@pytest.mark.slow
def test_an_expired_lease_is_taken_by_exactly_one(address):
    folder = open_folder(address)
    dead = {"hostname": "elsewhere", "pid": 1, "released": False}
    folder.write("launch/leases/000004.json", json.dumps(dead).encode())
    held, refused = [], []

    def take():
        try:
            held.append(Lease(open_folder(address), expires=0.3))
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 4) and held[0].number == 5
    held[0].release()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        check_writable(open_folder(str(tmp_path / "file" / "out")))


def test_a_bucket_without_folder_is_refused():
    with pytest.raises(UserError, match="write gs://bucket/folder"):
        open_folder("gs://bucket")
