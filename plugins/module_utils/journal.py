# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run is about to do on this host, written down before it does it: one record, which a crash leaves readable, and one run at a time."""
import contextlib
import errno
import fcntl
import json
import os
import time

from . import atomic

FOLDER = "/var/lib/fleet-microcode"
RECORD, LOCK = FOLDER + "/run.json", FOLDER + "/lock"


class JournalError(Exception):
    """The journal cannot be written, so nothing was begun; the text says why."""


class Busy(Exception):
    """Another run is going on here; the text names it."""


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _lock():
    """File descriptor of the lock, held until it is closed or this process ends. Busy where another process has it."""
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            raise Busy()
        raise
    return fd


class Run(object):
    """A run that is going on; what it notes is on the disk when note() returns."""

    def __init__(self, record):
        self.record = record

    def note(self, event, **more):
        """Add an event. JournalError."""
        self.record["events"].append(dict(more, at=_now(), event=event))
        self._write()

    def close(self, outcome):
        """The run has ended so (str)."""
        self.record["outcome"] = outcome
        self._write()

    def _write(self):
        try:
            atomic.replace(RECORD, json.dumps(self.record, indent=1, sort_keys=True).encode() + b"\n")
        except OSError as exc:
            raise JournalError("%s cannot be written (%s); without it a crash could not be repaired; free some room there, then run this again"
                               % (RECORD, exc.strerror or exc))


@contextlib.contextmanager
def run(host, action, **about):
    """The block is a run of this action, of which about tells what it will do; yields Run. Busy, JournalError before anything was done.

    A block that raises is noted as failed with the error's text; one that is killed stays without an outcome, which last() shows.
    """
    fd = None
    try:
        try:
            atomic.private_folder(FOLDER)
            fd = _lock()
        except Busy:
            other = _read(host) or {}
            raise Busy("another run is going on here: %s, process %s, since %s; two at once could undo each other; run this again when it has ended"
                       % (other.get("action", "an action not known"), other.get("pid", "not known"), other.get("started", "a time not known")))
        except OSError as exc:
            raise JournalError("%s cannot be used (%s); without a journal a crash could not be repaired, so nothing was done" % (FOLDER, exc.strerror or exc))
        one = Run({"schema": 1, "action": action, "boot_id": _boot_id(host), "pid": os.getpid(), "started": _now(), "about": about, "events": [],
                   "outcome": None})
        one.note("begun")
        try:
            yield one
        except BaseException as exc:
            with contextlib.suppress(JournalError):  # the block's own error is what must be told
                one.close("failed: %s" % exc)
            raise
        if one.record["outcome"] is None:
            one.close("done")
    finally:
        if fd is not None:
            os.close(fd)


def _boot_id(host):
    return host.text("/proc/sys/kernel/random/boot_id", 256)


def _read(host):
    text = host.text(RECORD)
    try:
        record = json.loads(text) if text else None
        return record if record is None or record["schema"] == 1 else None
    except (KeyError, TypeError, ValueError):
        host.warn("%s: not a record of a run; what the last run did is not known" % RECORD)
        return None


def last(host):
    """The record of the last run, or None; with interrupted: it never ended, and void: the host was started anew since."""
    record = _read(host)
    if record is None:
        return None
    running = False
    try:
        os.close(_lock())
    except Busy:
        running = True
    except OSError as exc:
        host.warn("%s: %s" % (LOCK, exc.strerror))
    return dict(record, interrupted=record["outcome"] is None and not running, void=record["boot_id"] != _boot_id(host))
