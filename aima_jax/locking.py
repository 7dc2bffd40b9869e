"""One process at a time for a folder, on the disks of one machine and on those that many share."""

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
# File systems of one machine, where flock holds between all processes that can reach them.
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "ramfs"}
    | {"tmpfs", "xfs", "zfs"}
)
_NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class Lock(abc.ABC):
    """A folder kept for one process; another kind of store is one more of these.

    Attributes:
        folder: that is kept.
        path: the file in it that says so.
    """

    name: str

    def __init__(self, folder: pathlib.Path):
        self.folder, self.path = folder, folder / self.name

    @abc.abstractmethod
    def acquire(self) -> str | None:
        """Take the lock and return None, or return who has it.

        Raises:
            OSError: the store cannot lock.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Give the lock back; do nothing if it is another's by now."""

    @abc.abstractmethod
    def check(self) -> None:
        """Do nothing while the lock is this process's.

        Raises:
            ValueError: another process has taken it, since this one stood still for too long.
        """


class FileLock(Lock):
    """flock on `.lock`: the system gives it back when the process ends, however it ends."""

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
        pass  # the system takes it from nobody


class Lease(Lock):
    """A file `.lease` that is made by whoever is first, and renewed while its process lives.

    It serves where flock does not reach the other hosts. Anyone may take it over once its process
    is dead on this host and boot, or once it has not been renewed for two minutes. Ages are those
    of files, by the clock of the store: clocks of hosts may differ.
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
        for _ in range(3):  # another may take it, or give it back, between two looks
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
                f"another process has taken {self.folder} over, since this one stood still for "
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
        with contextlib.suppress(OSError):  # the store cannot be reached for now, by nobody else
            if not self._is_own():
                time.sleep(1)  # one who looks whether it is over may put it back just now
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
        """The time by the clock of the store: that of a file just made there."""
        probe = self.folder / f".lease.{self._own['token']}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, owner: dict) -> None:
        """Remove a lease that is over; another's that has come meanwhile is put back."""
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
    """Keep a folder for this process, by flock where that reaches everyone, else by a lease too.

    Raises:
        ValueError: another process has it.
        OSError: files cannot be made there.
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
    """The kind of file system that a folder is on; "" where the system does not tell."""
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
            f"another process works in {lock.folder}: {owner} holds {lock.path}; wait for it, or "
            "use another --workdir"
        )
    stack.callback(lock.release)


def _read(path: pathlib.Path) -> tuple[dict, float] | None:
    """Return who has a lease, and when it was renewed; None where there is none.

    The owner of one that is in the making, or was cut off, is not known.
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
    """Tell whether a process of this boot still runs; True for what is not a number."""
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
    """Names what process numbers are valid in: this boot, and the container if it has its own."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
