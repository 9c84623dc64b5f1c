# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No guest stays paused: not when the process dies, not when time runs out, not when one of many cannot be paused. The watcher is a real process."""
import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import atomic, journal
from ansible_collections.fleet.microcode.plugins.module_utils.guests import lease
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import Guest, GuestError
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.unit.plugins.module_utils import fake_guests

WATCH = """\
import sys
sys.path[:0] = [sys.argv[1] + "/code", %r]
import fake_guests
from module_utils.guests import guest, lease
lease.named = lambda host, name: fake_guests.Driver(guest.Guest)
lease.watch(sys.argv[1])
""" % os.path.dirname(fake_guests.__file__)
LONG = 600  # seconds that nobody waits for


class Fleet(object):
    """The guests of a test."""

    def __init__(self):
        self.host, self.driver = Host(), fake_guests.Driver(Guest)

    def set(self, **guests):
        with fake_guests.changed() as state:
            state.update(guests)

    def change(self, uid, by):
        """Somebody else pauses (1) or resumes (-1) one."""
        with fake_guests.changed() as state:
            state[uid]["pauses"] += by

    @property
    def pauses(self):
        return dict((uid, one["pauses"]) for uid, one in fake_guests.seen().items())

    @property
    def all(self):
        return self.driver.guests()

    def until(self, **pauses):
        """Wait until the guests are paused so often."""
        wait(lambda: self.pauses == pauses)

    def child(self, block):
        """A process that calls block(self) and is then killed as it stands: its number."""
        number = os.fork()
        if not number:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
            try:
                block(self)
            finally:
                os._exit(1)  # pylint: disable=protected-access
        return number


def wait(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def leases():
    return [name for name in os.listdir(lease.FOLDER) if name != "lock"]


@pytest.fixture
def fleet(monkeypatch):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="leases-"))  # short: it holds sockets
    monkeypatch.setattr(journal, "FOLDER", str(folder / "j"))
    monkeypatch.setattr(lease, "FOLDER", str(folder / "j/leases"))
    monkeypatch.setattr(lease, "WATCH", WATCH)
    monkeypatch.setenv("FAKE_GUESTS", str(folder / "guests.json"))
    monkeypatch.setattr(Host, "is_dir", lambda self, path: path != "/run/systemd/system" and os.path.isdir(path))  # a test starts no units
    (folder / "guests.json").write_text(json.dumps({"a": {"id": 1, "pauses": 0}, "b": {"id": 2, "pauses": 0}}))
    yield Fleet()
    shutil.rmtree(str(folder), ignore_errors=True)


def test_guests_are_held_in_the_block_and_run_after_it(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG) as held:
        assert fleet.pauses == {"a": 1, "b": 1}
        assert [guest.uuid for guest in lease.open_leases(fleet.host)[0]["guests"]] == ["a", "b"]
    assert fleet.pauses == {"a": 0, "b": 0} and not held.expired and not held.problems
    assert sorted(held.seconds) == ["a", "b"] and min(held.seconds.values()) > 0
    assert not leases()


def test_no_guests_need_no_watcher(fleet, monkeypatch):
    monkeypatch.setattr(lease, "WATCH", "import sys; sys.exit(1)")
    with lease.hold(fleet.host, fleet.driver, [], LONG) as held:
        pass
    assert held.seconds == {} and not held.expired


def test_an_error_in_the_block_lets_the_guests_run_and_goes_on(fleet):
    with pytest.raises(KeyError):
        with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
            raise KeyError("load")
    assert fleet.pauses == {"a": 0, "b": 0} and not leases()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_guests_run_again_when_the_process_is_killed(fleet, how):
    def block(here):
        with lease.hold(here.host, here.driver, here.all, LONG):
            while True:
                signal.pause()
    number = fleet.child(block)
    fleet.until(a=1, b=1)
    os.kill(number, how)
    fleet.until(a=0, b=0)
    os.waitpid(number, 0)
    wait(lambda: not leases())


def test_guests_run_again_when_time_runs_out_and_are_not_resumed_twice(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, 0.2) as held:
        fleet.until(a=0, b=0)
        wait(lambda: not lease.open_leases(fleet.host))
        fleet.change("b", 1)  # by somebody else, after the watcher
    assert fleet.pauses == {"a": 0, "b": 1} and held.expired
    assert not leases()


def test_a_pause_of_somebody_elses_stays(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
        fleet.change("a", 1)
    assert fleet.pauses == {"a": 1, "b": 0}


def test_a_guest_that_cannot_be_paused_lets_all_others_run_and_is_named(fleet):
    fleet.set(b={"id": 2, "pauses": 0, "stuck": "pause"})
    with pytest.raises(GuestError, match=r"b \(Operation not permitted\)"):
        with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
            raise AssertionError("the block was reached")
    assert fleet.pauses == {"a": 0, "b": 0} and not leases()


def test_a_guest_that_has_gone_stands_in_nobodys_way(fleet):
    guests = fleet.all + [Guest("gone", 7, "gone", "running", None)]
    with lease.hold(fleet.host, fleet.driver, guests, LONG) as held:
        assert fleet.pauses == {"a": 1, "b": 1}
    assert fleet.pauses == {"a": 0, "b": 0} and not held.problems


def test_a_guest_that_cannot_be_resumed_is_told_and_tried_again(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG) as held:
        fleet.set(a={"id": 1, "pauses": 1, "stuck": "resume"})
    assert held.problems == {"a": "Operation not permitted"} and fleet.pauses == {"a": 1, "b": 0}
    fleet.set(a={"id": 1, "pauses": 1})
    fleet.until(a=0, b=0)
    wait(lambda: not leases())


def test_a_full_disk_pauses_nobody(fleet, monkeypatch):
    real, calls = atomic.replace, []

    def full(path, data, mode=0o600):
        calls.append(path)
        if len(calls) > full.after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data, mode)
    monkeypatch.setattr(atomic, "replace", full)
    for full.after in (0, 1):  # when the lease is made, and when the guests are entered
        calls.clear()
        with pytest.raises(GuestError, match="No space left on device.*none was paused"):
            with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
                raise AssertionError("the block was reached")
        assert fleet.pauses == {"a": 0, "b": 0}


def test_without_a_watcher_nobody_is_paused(fleet, monkeypatch):
    monkeypatch.setattr(lease, "WATCH", "import sys; sys.exit(1)")
    monkeypatch.setattr(lease, "START", 1)
    with pytest.raises(GuestError, match="the watcher did not come up.*none was paused"):
        with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
            raise AssertionError("the block was reached")
    assert fleet.pauses == {"a": 0, "b": 0} and not leases()


def watchers():
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % number, "rb") as stream:
                if lease.FOLDER.encode() in stream.read():
                    found.append(int(number))
        except OSError:
            pass
    return found


def test_whoever_stops_the_watcher_ends_the_lease(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
        for number in watchers():
            os.kill(number, signal.SIGTERM)
        fleet.until(a=0, b=0)


def test_when_the_watcher_is_killed_the_process_resumes(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
        for number in watchers():
            os.kill(number, signal.SIGKILL)
    assert fleet.pauses == {"a": 0, "b": 0} and not leases()


def test_left_guests_stay_paused_after_the_process_until_their_time_is_over(fleet):
    number = fleet.child(lambda here: lease.leave(here.host, here.driver, here.all, 1))
    os.waitpid(number, 0)
    fleet.until(a=0, b=0)
    wait(lambda: not leases())


def test_what_was_left_is_released_before_its_time(fleet):
    lease.leave(fleet.host, fleet.driver, fleet.all, LONG)
    assert fleet.pauses == {"a": 1, "b": 1}
    assert lease.release(fleet.host, fleet.driver, ["a"]) == {"a": None}
    assert fleet.pauses == {"a": 0, "b": 1}
    assert lease.release(fleet.host, fleet.driver) == {"b": None}
    assert fleet.pauses == {"a": 0, "b": 0}
    assert lease.release(fleet.host, fleet.driver) == {}


def test_a_new_time_takes_the_guests_over_and_pauses_none_twice(fleet):
    lease.leave(fleet.host, fleet.driver, fleet.all, LONG)
    lease.leave(fleet.host, fleet.driver, fleet.all[:1], 1)
    assert fleet.pauses == {"a": 1, "b": 1}
    fleet.until(a=0, b=1)
    lease.release(fleet.host, fleet.driver)
    assert fleet.pauses == {"a": 0, "b": 0}


def test_a_lease_of_an_earlier_boot_is_dropped_and_nobody_resumed_for_it(fleet, monkeypatch):
    lease.leave(fleet.host, fleet.driver, fleet.all, LONG)
    monkeypatch.setattr(lease, "_boot_id", lambda host: "another")
    assert lease.release(fleet.host, fleet.driver) == {} and "earlier boot" in fleet.host.warnings[0]
    assert fleet.pauses == {"a": 1, "b": 1} and not leases()


@pytest.fixture(autouse=True)
def _no_watcher_stays(fleet):
    yield
    for number in watchers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def test_the_watcher_runs_on_this_code_alone(fleet):
    with lease.hold(fleet.host, fleet.driver, fleet.all, LONG):
        code = lease.FOLDER + "/" + leases()[0] + "/code"
        done = subprocess.run([sys.executable, "-I", "-c", "import sys; sys.path.insert(0, sys.argv[1]); from module_utils.guests import lease", code],
                              stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
