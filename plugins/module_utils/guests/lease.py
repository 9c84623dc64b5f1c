# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests are paused for a bounded time only: a watcher resumes them where the process that paused them dies, or time runs out.

A lease is a folder: lease.json says which guests are ours to resume, written before any is paused; code is what the watcher runs, since a module's own
is gone when it ends; through socket the two notice each other's end. Whoever resumes does so under one lock and takes the guests out of the lease,
so that none is resumed twice: Xen counts pauses, and one of them may be somebody else's.
"""
import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import uuid

from .. import atomic, journal
from ..host import Host
from .guest import Guest, GuestError, named

FOLDER = journal.FOLDER + "/leases"
START = 30  # seconds until a watcher must have come up; a busy host takes one or two
RETRIES = 60  # times, a second apart, that the watcher tries to resume a guest that cannot be
WATCH = "import sys; sys.path.insert(0, sys.argv[1] + '/code'); from module_utils.guests import lease; lease.watch(sys.argv[1])"


# --- the record ---

@contextlib.contextmanager
def _locked(folder):
    """Nobody else resumes, or takes over, meanwhile; folder: of all leases."""
    fd = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(folder):
    """The record of a lease, or None where there is none (any more)."""
    try:
        with open(folder + "/lease.json", "rb") as stream:
            record = json.loads(stream.read().decode())
        return dict(record, guests=[Guest(**guest) for guest in record["guests"]])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _write(folder, record):
    guests = [dict(guest._asdict()) for guest in record["guests"]]
    atomic.replace(folder + "/lease.json", json.dumps(dict(record, guests=guests), indent=1, sort_keys=True).encode() + b"\n")


def _boot_id(host):
    return host.text("/proc/sys/kernel/random/boot_id", 256)


def _folders():
    try:
        return [FOLDER + "/" + name for name in sorted(os.listdir(FOLDER)) if os.path.isdir(FOLDER + "/" + name)]
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return []
        raise GuestError("%s: %s; which guests are ours to resume cannot be told without it" % (FOLDER, exc.strerror))


def sweep():
    """Take away leases that hold nobody and whose process has died before there was a watcher."""
    for folder in _folders():
        record, number = _read(folder), os.path.basename(folder).split("-")[0]
        if not (record and record["guests"]) and not os.path.exists("/proc/" + number):
            shutil.rmtree(folder, ignore_errors=True)


def open_leases(host):
    """[{"driver", "guests": [Guest], "seconds", "void": True where the host was started anew since, "left": seconds until its end}]."""
    found = []
    for folder in _folders():
        record = _read(folder)
        if record and record["guests"]:
            void = record["boot_id"] != _boot_id(host)
            found.append(dict(record, void=void, left=None if void else max(0.0, record["until"] - time.monotonic())))
    return found


# --- to pause ---

def hold(host, driver, guests, seconds):
    """A context in which guests ([Guest]) are paused, for at most so many seconds; it gives Held.

    GuestError before anything is paused where their resuming cannot be promised, and with all of them resumed where one cannot be paused.
    """
    return Held(host, driver, guests, seconds)


class Held(object):
    """Guests that were held, see hold(): seconds {uuid: how long, at most}, expired: time ran out and the watcher resumed them, and

    problems {uuid: why it could not be resumed}, at which the watcher goes on trying.
    """

    def __init__(self, host, driver, guests, seconds):
        self.host, self.driver, self.guests, self.most = host, driver, guests, seconds
        self.seconds, self.expired, self.problems = {}, False, {}
        self._lease = self._since = None

    def __enter__(self):
        if self.guests:
            self._lease = _Lease(self.host, self.driver)
            try:
                self._lease.begin(self.guests, self.most)
                self._since = time.monotonic()
                self._lease.pause(self.guests)
            except BaseException:
                self._lease.end()
                raise
        return self

    def __exit__(self, *_exc):
        if self._lease:
            ended, self.expired, self.problems = self._lease.end()
            took = (self._lease.until if self.expired else ended) - self._since
            self.seconds = dict((guest.uuid, took) for guest in self.guests)


def leave(host, driver, guests, seconds):
    """Pause guests, which the watcher resumes after so many seconds; those that another lease of ours holds go over to this one. GuestError."""
    lease = _Lease(host, driver)
    try:
        held = set((guest.uuid, guest.id) for one in open_leases(host) if not one["void"] for guest in one["guests"])
        lease.begin(guests, seconds)
        lease.pause([guest for guest in guests if (guest.uuid, guest.id) not in held])
        with _locked(FOLDER):
            _forget(guests, lease.folder)
    except BaseException:
        lease.end()
        raise
    lease.tell(b"leave\n")


def _forget(guests, but):
    """Take guests out of all leases but one."""
    gone = set((guest.uuid, guest.id) for guest in guests)
    for folder in _folders():
        record = _read(folder)
        if folder != but and record:
            _write(folder, dict(record, guests=[guest for guest in record["guests"] if (guest.uuid, guest.id) not in gone]))


def _carry(folder):
    """Put the code that watches into a folder: all of this package that is loaded."""
    package = __name__.rsplit(".guests.", 1)[0]
    for name, module in sorted(sys.modules.items()):
        if name == package or name.startswith(package + "."):
            place = folder + "/module_utils" + name[len(package):].replace(".", "/")
            if hasattr(module, "__path__"):
                os.makedirs(place, 0o700)
                place += "/__init__"
            with open(place + ".py", "w", encoding="utf-8") as stream:
                stream.write(module.__loader__.get_source(name) or "")


def _detach(argv):
    """Run a program that is nobody's child, in a session of its own."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if not os.fork():
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.execv(argv[0], argv)
    finally:
        os._exit(1)  # pylint: disable=protected-access


class _Lease(object):
    """A lease of this process: its folder, and a connection to the watcher, which is up when this has been made. GuestError."""

    def __init__(self, host, driver):
        self.host, self.driver, self.peer, self.until = host, driver, None, None
        self.folder = "%s/%d-%s" % (FOLDER, os.getpid(), uuid.uuid4().hex[:8])
        self.record = {"schema": 1, "driver": driver.name, "boot_id": _boot_id(host), "guests": [], "seconds": None, "until": None, "expired": False}
        try:
            atomic.private_folder(journal.FOLDER)
            atomic.private_folder(FOLDER)
            sweep()
            os.mkdir(self.folder, 0o700)
            _write(self.folder, self.record)
            _carry(self.folder + "/code")
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
                door.bind(self.folder + "/socket")
                door.listen(1)
                self._start()
                if not select.select([door], [], [], START)[0]:
                    raise OSError(errno.ETIMEDOUT, "the watcher did not come up within %d s" % START)
                self.peer = door.accept()[0]
        except BaseException as exc:
            self.close()
            if isinstance(exc, OSError):
                raise GuestError("%s: %s; without a watcher a crash would leave guests paused, so none was paused; free room there, or see to what keeps "
                                 "the watcher from starting" % (self.folder, exc.strerror or exc))
            raise

    def _start(self):
        """Start the watcher where the end of this session does not reach it."""
        argv = [sys.executable, "-c", WATCH, self.folder]
        if not self.host.is_dir("/run/systemd/system"):  # nothing else ends a session's processes
            _detach(argv)
            return
        started = self.host.run(["systemd-run", "--quiet", "--unit=fleet-microcode-guests-" + os.path.basename(self.folder)] + argv)
        if started is None or started.rc:
            raise OSError(errno.ECHILD, "systemd-run: %s" % (started.err.strip() if started else "no answer"))

    def begin(self, guests, seconds):
        """From now on these guests are ours to resume, and after so many seconds the watcher does it."""
        self.record.update(guests=guests, seconds=seconds, until=time.monotonic() + seconds)
        try:
            _write(self.folder, self.record)
            self.until = time.monotonic() + seconds  # the disk's time is not the guests'
            self.peer.sendall(b"until %f\n" % self.until)
        except OSError as exc:
            raise GuestError("%s: %s; without this record a crash would leave guests paused, so none was paused" % (self.folder, exc.strerror))

    def pause(self, guests):
        """Pause them all; one that is gone or has ended by itself needs none."""
        wrong = dict((uid, why) for uid, why in self.driver.pause(guests).items() if why)
        if wrong:
            with _locked(FOLDER), contextlib.suppress(OSError):  # these are not ours to resume: somebody else may pause one now
                self.record["guests"] = [guest for guest in self.record["guests"] if guest.uuid not in wrong]
                _write(self.folder, self.record)
            running = dict((guest.uuid, guest.name or guest.uuid) for guest in self.driver.guests() if guest.state == "running")
            wrong = ["%s (%s)" % (running[uid], why) for uid, why in sorted(wrong.items()) if uid in running]
        if wrong:
            raise GuestError("guests that could not be paused: %s; what was paused runs again; leave these out, or see to what keeps them"
                             % ", ".join(wrong))

    def tell(self, line):
        """Say a last word to the watcher."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self.peer.sendall(line)
        self.peer.close()

    def end(self):
        """Resume what is ours still: (when, expired: the watcher had done it, {uuid: why not})."""
        with _locked(FOLDER):
            record = _read(self.folder) or self.record
            problems = _resume(self.driver, record["guests"])
            ended = time.monotonic()
            _keep(self.folder, record, problems)
        if problems:
            self.peer.close()  # at which the watcher goes on
        else:
            self.tell(b"done\n")
            self.close()
        return ended, record["expired"], problems

    def close(self):
        """Nothing of the lease is left."""
        if self.peer:
            self.peer.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- to resume ---

def _resume(driver, guests):
    """{uuid: why} of those that could not be resumed."""
    return dict((uid, why) for uid, why in driver.resume(guests).items() if why) if guests else {}


def _keep(folder, record, problems, **more):
    """Only those that could not be resumed are left in the lease."""
    with contextlib.suppress(OSError):  # the disk is full: they would be resumed again, which only a guest that is paused notices
        _write(folder, dict(record, guests=[guest for guest in record["guests"] if guest.uuid in problems], **more))


def release(host, driver, wanted=None):
    """Resume what leases of ours hold, all or those of these UUIDs: {uuid: None or why not}. GuestError.

    Leases of an earlier boot are dropped, with a warning.
    """
    done = {}
    if not _folders():
        return done
    with _locked(FOLDER):
        for folder in _folders():
            record = _read(folder)
            if record is None:  # it is being made, and holds nobody yet
                continue
            if record["boot_id"] != _boot_id(host):
                host.warn("a lease of an earlier boot was dropped: the guests that it held ended with that boot (%s)"
                          % (", ".join(guest.name or guest.uuid for guest in record["guests"]) or "none"))
                shutil.rmtree(folder, ignore_errors=True)
                continue
            mine = [guest for guest in record["guests"] if wanted is None or guest.uuid in wanted]
            problems = _resume(driver, mine)
            done.update((guest.uuid, problems.get(guest.uuid)) for guest in mine)
            problems.update((guest.uuid, "") for guest in record["guests"] if guest not in mine)
            if mine:
                _keep(folder, record, problems)
    sweep()
    return done


def _stopped(number, _frame):
    raise SystemExit("stopped by signal %d" % number)


def watch(folder):
    """The watcher's whole life: until its lease is over, however that comes."""
    host = Host()
    driver = named(host, _read(folder)["driver"])
    signal.signal(signal.SIGTERM, _stopped)  # whoever stops the watcher ends the lease
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as peer:
        try:
            peer.connect(folder + "/socket")
            told = _listen(peer, driver, folder)
        except OSError:  # the other side is gone
            told = False
        except BaseException:
            _over(driver, folder)
            raise
    if not told:
        _over(driver, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _listen(peer, driver, folder):
    """Follow what the other side says: True where it has ended the lease itself, False where that is left to us."""
    until, alone, said = None, False, b""
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([] if alone else [peer], [], [], left)[0]:  # time ran out
            _over(driver, folder, expired=True)
            if alone:
                return False
            until = None  # the other side is still there, and reads how it came
            continue
        chunk = peer.recv(256)
        said += chunk
        if b"done\n" in said:
            return True
        if b"leave\n" in said:
            alone = True
        elif not chunk:
            return False
        for line in said.split(b"\n")[:-1]:
            if line.startswith(b"until "):
                until = float(line[6:])


def _over(driver, folder, expired=False):
    """Resume what is in the lease; again and again where that fails."""
    for _try in range(RETRIES):
        with _locked(os.path.dirname(folder)):
            record = _read(folder)
            if not record or not record["guests"]:
                return
            problems = _resume(driver, record["guests"])
            _keep(folder, record, problems, expired=expired)
        if not problems:
            return
        time.sleep(1)
