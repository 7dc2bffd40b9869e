"""One process at a time, by flock and by leases: whoever is dead or silent gives way."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from aima_jax import locking
from aima_jax.locking import FileLock, Lease, file_system, locked

LEASED = "from aima_jax import locking\nlocking._LOCAL = frozenset()\n"
TAKE = LEASED + "with locking.locked(pathlib.Path(sys.argv[1])): pass\n"
KEEP = LEASED + (
    "with locking.locked(pathlib.Path(sys.argv[1])):\n    print('taken', flush=True)\n"
    "    time.sleep(600)\n"
)
RACE = """
import random
lease = locking.Lease(pathlib.Path(sys.argv[1]))
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
if lease.acquire() is None:
    print("taken")
    time.sleep(3)
    lease.check()
"""


def python(code, folder, **options):
    command = [sys.executable, "-c", "import pathlib, sys, time\n" + code, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


@pytest.fixture(params=["flock", "lease"])
def kind(request, monkeypatch):
    if request.param == "lease":
        monkeypatch.setattr(locking, "_LOCAL", frozenset())
    return request.param


def test_a_second_process_is_refused_until_the_first_is_done(tmp_path, kind):
    code = TAKE if kind == "lease" else TAKE.replace("locking._LOCAL = frozenset()\n", "")
    with locked(tmp_path):
        refused = python(code, tmp_path)
        assert "another process is using" in refused.communicate()[1]
        assert refused.returncode != 0
    assert python(code, tmp_path).wait() == 0
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_store_without_flock_is_locked_by_a_lease(tmp_path, monkeypatch, number):
    def no_flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with locked(tmp_path):
        owner = f"process {os.getpid()} on "
        with pytest.raises(ValueError, match=owner), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_where_no_file_can_be_locked_or_made_the_file_is_named(tmp_path, monkeypatch):
    def broken(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", broken)
        with pytest.raises(OSError, match=rf"Input/output error: '{tmp_path}/\.lock'"):
            locked(tmp_path).__enter__()
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match=rf"Is a directory: '{tmp_path}/\.lock'"):
        locked(tmp_path).__enter__()


def test_who_is_refused_hears_of_the_file(tmp_path, kind):
    file = {"flock": ".lock", "lease": ".lease"}[kind]
    lock = {"flock": FileLock, "lease": Lease}[kind](tmp_path)
    assert lock.acquire() is None
    with pytest.raises(ValueError, match=rf"process.* holds {tmp_path}/\{file}; wait for it"):
        locked(tmp_path).__enter__()
    lock.release()
    with locked(tmp_path):
        pass


def test_a_disk_of_this_machine_needs_no_lease(tmp_path):
    if file_system(tmp_path) not in locking._LOCAL:
        pytest.skip(f"temporary files are on {file_system(tmp_path)!r}")
    with locked(tmp_path) as lock:
        assert isinstance(lock, FileLock)
        assert not (tmp_path / ".lease").exists()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path, kind):
    first = python(KEEP, tmp_path)
    assert first.stdout.readline() == "taken\n"
    with pytest.raises(ValueError, match="another process is using"), locked(tmp_path):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with locked(tmp_path):
        pass


def lease_of(folder, **facts):
    """A lease that another host has, unless told otherwise."""
    owner = {"host": "elsewhere", "boot": "b", "pid": 1, "token": "t"} | facts
    (folder / ".lease").write_text(json.dumps(owner))
    return folder / ".lease"


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_lease_of_another_host_counts_for_two_minutes(tmp_path):
    path = lease_of(tmp_path)
    age(path, 110)
    assert Lease(tmp_path).acquire() == "process 1 on elsewhere"
    age(path, 130)
    lease = Lease(tmp_path)
    assert lease.acquire() is None
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_means_nothing_after_another_boot(tmp_path):
    """The same number on the same host, dead or not, may be another process's."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = Lease(tmp_path)._own
    lease_of(tmp_path, host=own["host"], boot="another boot", pid=ended.pid)
    assert Lease(tmp_path).acquire() is not None
    lease_of(tmp_path, host=own["host"], boot=own["boot"], pid=ended.pid)
    lease = Lease(tmp_path)
    assert lease.acquire() is None
    lease.release()


@pytest.mark.parametrize("content", ["", '{"host": ', "[]"])
def test_a_lease_that_was_cut_off_counts_as_long(tmp_path, content):
    path = tmp_path / ".lease"
    path.write_text(content)
    assert Lease(tmp_path).acquire() is not None
    age(path, 130)
    lease = Lease(tmp_path)
    assert lease.acquire() is None
    lease.release()


def test_a_lease_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "RENEWAL_SECONDS", 0.05)
    lease = Lease(tmp_path)
    assert lease.acquire() is None
    age(tmp_path / ".lease", 1000)
    deadline = time.monotonic() + 30
    while time.time() - (tmp_path / ".lease").stat().st_mtime > 100:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lease.check()
    lease.release()


def test_one_who_stood_still_and_was_taken_over_hears_of_it(tmp_path, monkeypatch):
    lease = Lease(tmp_path)
    assert lease.acquire() is None
    lease_of(tmp_path)
    lease.check()  # it was renewed a moment ago: nobody can have taken it
    lease._renewed -= 100
    with pytest.raises(ValueError, match=r"has taken over .* suspended"):
        lease.check()
    lease.release()
    assert json.loads((tmp_path / ".lease").read_text())["host"] == "elsewhere"


def test_of_many_who_take_a_lease_over_one_gets_it(tmp_path):
    age(lease_of(tmp_path), 130)
    racers = [python("from aima_jax import locking\n" + RACE, tmp_path) for _ in range(8)]
    time.sleep(2)
    (tmp_path / "go").touch()
    outputs = [racer.communicate() for racer in racers]
    assert sorted(out for out, _ in outputs) == [""] * 7 + ["taken\n"], outputs
    assert not any(error for _, error in outputs)


def test_a_lease_that_came_meanwhile_is_put_back(tmp_path):
    """One has judged a lease to be over, and another takes it before it is removed."""
    judged = {"host": "elsewhere", "boot": "b", "pid": 1, "token": "old"}
    path = lease_of(tmp_path, token="new")
    Lease(tmp_path)._remove(judged)
    assert json.loads(path.read_text())["token"] == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path, monkeypatch):
    table = (
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:5 / /mnt/la\\040b rw shared:1 - nfs4 server:/x rw\n"
        "3 2 0:6 / /mnt/la\\040b/scratch rw - lustre x rw\n"
    )
    read = pathlib.Path.read_text
    monkeypatch.setattr(
        pathlib.Path,
        "read_text",
        lambda self, **o: table if self.name == "mountinfo" else read(self, **o),
    )
    kinds = {"/home/x": "ext4", "/mnt/la b/runs": "nfs4", "/mnt/la b/scratch/x": "lustre"}
    assert {name: file_system(pathlib.Path(name)) for name in kinds} == kinds
