"""Locks that give a folder to one process at a time, on local and on shared disks."""

import abc
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import IO

RENEWAL_SECONDS = 20.0
EXPIRY_SECONDS = 120.0
# Local file systems, where flock works between all processes that can reach them.
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "ramfs"}
    | {"tmpfs", "xfs", "zfs"}
)
_NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class Lock(abc.ABC):
    """A lock on a folder for one process; one subclass per kind of store.

    Attributes:
        folder: the locked folder.
        path: the lock file in it.
    """

    name: str

    def __init__(self, folder: pathlib.Path):
        self.folder, self.path = folder, folder / self.name

    @abc.abstractmethod
    def acquire(self) -> str | None:
        """Take the lock and return None, or return its owner.

        Raises:
            OSError: the store cannot lock.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Release the lock; do nothing if another process has taken it."""

    @abc.abstractmethod
    def check(self) -> None:
        """Check that this process still has the lock.

        Raises:
            ValueError: another process has taken it, since this one was suspended for too long.
        """


class FileLock(Lock):
    """flock on `.lock`: the system releases it whenever and however the process ends."""

    name = ".lock"
    _file: IO[str] | None = None

    def acquire(self) -> str | None:
        file = self.path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return "another process"
        except OSError as error:
            file.close()
            error.filename = str(self.path)
            raise
        self._file = file
        return None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        pass  # it cannot be taken over


class Lease(Lock):
    """A file `.lease`, created by the first process and renewed while that process lives.

    It is for stores where flock does not reach other hosts. Anyone may take it over once its
    process is dead, if on this host and boot, or once it has not been renewed for two minutes. Ages
    are file ages by the clock of the store, since the hosts' clocks may differ.
    """

    name = ".lease"

    def __init__(self, folder: pathlib.Path):
        super().__init__(folder)
        self._own = {
            "host": socket.gethostname(),
            "boot": boot_id(),
            "pid": os.getpid(),
            "token": uuid.uuid4().hex,
        }
        self._lost = False
        self._renewed = time.time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    def acquire(self) -> str | None:
        for _ in range(3):  # another process may take or release it between two checks
            if self._create():
                self._thread.start()
                return None
            if (found := _read(self.path)) is None:
                continue
            owner, changed = found
            if not self._is_over(owner, changed):
                return f"process {owner.get('pid')} on {owner.get('host')}"
            self._remove(owner)
        return "another process"

    def release(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._is_own():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        if time.time() - self._renewed > EXPIRY_SECONDS / 2:
            self._renew()
        if self._lost:
            raise ValueError(
                f"another process has taken over {self.folder}, since this one was suspended for "
                f"more than {EXPIRY_SECONDS:.0f} seconds; nothing more is written to it"
            )

    def _create(self) -> bool:
        try:
            number = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(number, "w") as file:
                json.dump(self._own, file)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _keep_renewing(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        with contextlib.suppress(OSError):  # if unreachable, the store is so for everyone
            if not self._is_own():
                time.sleep(1)  # a process that checks for expiry may be putting it back
            self._lost = not self._is_own()
            if not self._lost:
                os.utime(self.path)
                self._renewed = time.time()

    def _is_own(self) -> bool:
        found = _read(self.path)
        return found is not None and found[0].get("token") == self._own["token"]

    def _is_over(self, owner: dict, changed: float) -> bool:
        here = all(owner.get(name) == self._own[name] for name in ("host", "boot"))
        if here and not is_alive(owner.get("pid")):
            return True
        return self._now() - changed > EXPIRY_SECONDS

    def _now(self) -> float:
        """The time by the store's clock, from a file just created there."""
        probe = self.folder / f".lease.{self._own['token']}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, owner: dict) -> None:
        """Remove an expired lease; if another process's has replaced it, put that back."""
        aside = self.folder / f".lease.{self._own['token']}"
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        found = _read(aside)
        if found is not None and found[0] != owner:
            with contextlib.suppress(OSError):
                os.link(aside, self.path)
        aside.unlink()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[Lock]:
    """Lock a folder for this process: by flock if that reaches everyone, else by a lease too.

    Raises:
        ValueError: another process has it.
        OSError: files cannot be created there.
    """
    with contextlib.ExitStack() as stack:
        lock: Lock = FileLock(folder)
        try:
            _acquire(lock, stack)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            _acquire(lock := Lease(folder), stack)
        else:
            if file_system(folder) not in _LOCAL:
                _acquire(lock := Lease(folder), stack)
        yield lock


def file_system(folder: pathlib.Path) -> str:
    """The type of the file system that a folder is on; "" if unknown."""
    found, kind = pathlib.Path(), ""
    try:
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    resolved = folder.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        escaped = before.split()[4]
        point = pathlib.Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), escaped))
        if resolved.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, after.split()[0]
    return kind


def _acquire(lock: Lock, stack: contextlib.ExitStack) -> None:
    owner = lock.acquire()
    if owner is not None:
        raise ValueError(
            f"another process is using {lock.folder}: {owner} holds {lock.path}; wait for it, or "
            "use another --workdir"
        )
    stack.callback(lock.release)


def _read(path: pathlib.Path) -> tuple[dict, float] | None:
    """Return the owner of a lease and the time of its renewal; None if there is none.

    The owner is unknown while the lease is being written, or if writing was interrupted.
    """
    try:
        changed, text = path.stat().st_mtime, path.read_text()
    except FileNotFoundError:
        return None
    try:
        owner = json.loads(text)
    except ValueError:
        owner = {}
    return (owner if isinstance(owner, dict) else {}), changed


def is_alive(pid: object) -> bool:
    """Return whether a process of this boot is running; True for anything but a number."""
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def boot_id() -> str:
    """Identify the scope of process IDs: this boot, and the container if it has its own."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
