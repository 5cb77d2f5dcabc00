"""A folder takes the place of another, whole or not at all: written beside it, renamed at the end, by one at a time.

with writing(out), scratch_folder(out, KEPT) as scratch:
    ...                            # .out.building, locked; whatever kills the writer, ``out`` is as it was
    move_into_place(scratch, out)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from searchr1.errors import SearchR1Error, UserError

_LOCK_FILE = "building.lock"
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and a flag of Linux's renameat2(2)
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns a full or broken disk into one line. Raises SearchR1Error."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise SearchR1Error(
            f"{out}: cannot write the index: {error.strerror}; what was there is as it was; make room and try again"
        ) from error


@contextmanager
def scratch_folder(out: Path, kept: str) -> Iterator[Path]:
    """A sibling of ``out`` that no other process writes, holding at most the folder ``kept`` of a try before.

    Gone afterwards unless it was moved, or something is in ``kept``. Raises UserError where it cannot be made.
    """
    scratch = out.with_name(f".{out.name}.building")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock = (scratch / _LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"{out}: cannot make this folder: {error.strerror}; choose another --out") from error
    with lock:
        try:
            # Freed by the system when a build dies, however it dies.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{out}: another process is building this index, or changes it; wait for it to end"
            ) from error
        if not _is_locked(scratch, lock.fileno()):
            raise UserError(f"{out}: another process built this index at this moment; try again")
        _clear(scratch, kept)
        try:
            yield scratch
        finally:
            if not _is_locked(scratch, lock.fileno()):
                pass  # moved; what is there now is another builder's
            elif any((scratch / kept).glob("*")):  # what is dear waits for the next try
                _clear(scratch, kept)
            else:
                shutil.rmtree(scratch, ignore_errors=True)


def move_into_place(scratch: Path, out: Path) -> None:
    """``scratch`` becomes ``out``; who has files of the former ``out`` open goes on reading them."""
    replaced = _replaced(out)
    if out.exists() and any(out.iterdir()):
        # Both folders hold the lock: whatever happens, another builder finds a locked folder or none.
        (out / _LOCK_FILE).unlink(missing_ok=True)
        link(scratch / _LOCK_FILE, out / _LOCK_FILE)
        if _exchange(scratch, out):
            os.rename(scratch, replaced)
        else:
            os.rename(out, replaced)
            os.rename(scratch, out)
    else:
        os.rename(scratch, out)  # also takes the place of an empty folder
    (out / _LOCK_FILE).unlink()
    shutil.rmtree(replaced, ignore_errors=True)


def restore(out: Path) -> None:
    """Undo a replacement that was cut off between its two renames; drop what a finished one left."""
    replaced = _replaced(out)
    if replaced.is_dir():
        if out.exists():
            shutil.rmtree(replaced)
        else:
            os.rename(replaced, out)


def link_files(source: Path, into: Path, without: Collection[str] = ()) -> None:
    """The files of a folder once more, as `link`; those that are there stay."""
    for file in sorted(source.rglob("*")):
        target = into / file.relative_to(source)
        if file.is_file() and file.name not in {_LOCK_FILE, *without} and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            link(file, target)


def link(source: Path, target: Path) -> None:
    """A second name of the file where the file system has them, a copy elsewhere."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _exchange(one: Path, other: Path) -> bool:
    """Each takes the other's name in one step, so that nobody finds either missing; False where the system cannot."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    return call is not None and call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _is_locked(scratch: Path, lock: int) -> bool:
    """Whether the locked file is still the one in the folder: its builder may have moved or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(lock), (scratch / _LOCK_FILE).stat())
    except FileNotFoundError:
        return False


def _clear(scratch: Path, kept: str) -> None:
    for leftover in scratch.iterdir():
        if leftover.name not in (_LOCK_FILE, kept):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")
