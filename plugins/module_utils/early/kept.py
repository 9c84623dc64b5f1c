# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What boots is replaced in one step, what it was before is kept beside it, and a record tells which is which.

Kept files lie in a hidden folder beside what boots, on the same file system: no generator of menus and no tool that makes initrds looks there.
A kept initrd is the old file itself under a second name, which costs no room; a new one takes its name by being renamed, so that nobody writes into the old.
"""
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil

from .. import atomic, journal
from ..host import Host

FOLDER = "/.fleet-microcode"
RECORD = journal.FOLDER + "/early.json"


class Refused(Exception):
    """Nothing was done; the text says what was found, why it matters and what would change it."""


class Failed(Exception):
    """Something went wrong on the way, and what was there before is back; the text says what."""


class Instead(Host):
    """The machine as it would be with other bytes in some files, {path: bytes, or the path of the file that has them}."""

    def __init__(self, host, files):
        Host.__init__(self, host.root, host.timeout)
        self.files = dict((os.path.realpath(path), new) for path, new in files.items())

    def open(self, path):
        new = self.files.get(os.path.realpath(path))
        if new is None:
            return Host.open(self, path)
        return io.BytesIO(new) if isinstance(new, bytes) else Host.open(self, new)


# --- the record ---

def record(host):
    """{"kernels": {version: {"initrd", "kept", "sha256", "ours", "kernel", "boot_id"}}, "option": {"path", "before", "after"} or None}.

    sha256: of the file that is kept; ours: of what took its place; kernel: {"path", "sha256"} that it was made for; boot_id: of the boot that kept it.
    """
    text = host.text(RECORD)
    try:
        found = json.loads(text) if text else {"schema": 1}
        if found["schema"] != 1:
            raise ValueError(found["schema"])
        return {"kernels": found.get("kernels", {}), "option": found.get("option")}
    except (KeyError, TypeError, ValueError):
        host.warn("%s: not a record of what was kept; what lies beside the initrds is not known" % RECORD)
        return {"kernels": {}, "option": None}


def write(known):
    """Replace the record."""
    atomic.private_folder(journal.FOLDER)
    atomic.replace(RECORD, json.dumps(dict(known, schema=1), indent=1, sort_keys=True).encode() + b"\n")


# --- files ---

def digest(path):
    """SHA-256 of a file in hex, None where it is not there."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for data in iter(lambda: stream.read(1 << 20), b""):
                found.update(data)
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None
    return found.hexdigest()


def beside(path):
    """The private folder beside a file, made where it is not there."""
    folder = os.path.dirname(path) + FOLDER
    atomic.private_folder(folder)
    atomic.sync_folder(os.path.dirname(folder))
    return folder


def sync(path):
    """Have a file's bytes survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def second_name(source, target):
    """Give a file a second name, in place of what has it; a copy where the file system knows no second names (FAT)."""
    temporary = "%s.%d.link" % (target, os.getpid())
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        try:
            os.link(source, temporary)
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise
            shutil.copyfile(source, temporary)
            shutil.copymode(source, temporary)
            sync(temporary)
        os.rename(temporary, target)  # does nothing where both are one file already
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    atomic.sync_folder(os.path.dirname(target))


def rename(source, target):
    """Put a file in place of another, and have that survive a loss of power."""
    os.rename(source, target)
    atomic.sync_folder(os.path.dirname(target))
    atomic.sync_folder(os.path.dirname(source))


def clean(folders, known):
    """Remove from our folders what the record does not name: an interrupted run left it."""
    wanted = set(each["kept"] for each in known["kernels"].values())
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) and not os.path.islink(folder) else ():
            if folder + "/" + name not in wanted:
                os.unlink(folder + "/" + name)
