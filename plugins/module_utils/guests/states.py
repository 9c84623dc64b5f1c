# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring guests into a state that was asked for, and say which were left alone and why."""
from .. import journal
from . import lease, saved
from .guest import Guest, GuestError


def reach(host, driver, state, names=None, seconds=None, folder=saved.FOLDER, check=False):
    """{"changed", "before": [Guest], "after": [Guest], "left": [(Guest, why)]}; driver: None where there are no guests. GuestError.

    state: paused (for so many seconds), running, saved, restored, or None, which only looks; names: names or UUIDs, None for all that can be.
    A guest that is named is brought into the state, or it is an error; others may be left alone.
    """
    if driver is None:
        if names and state:
            raise GuestError("%s: this host has no guests; name them on the host that they run on" % ", ".join(names))
        if state == "running" and any(not one["void"] for one in lease.open_leases(host)):
            raise GuestError("guests were paused here in this boot, but neither Xen nor KVM is seen any more, so none can be resumed; see the warnings")
        if state == "running" and not check:
            lease.release(host, driver, [])  # what an earlier boot left
        return {"changed": False, "before": [], "after": [], "left": []}
    before = everyone(driver, folder)
    chosen = before if names is None else _named(before, names)
    work = WORK[state](host, driver, folder)
    judged = [(guest, work.why_not(guest)) for guest in chosen]
    mine = [guest for guest, why in judged if why is None]
    left = [(guest, why) for guest, why in judged if why]
    if names is not None and left:
        raise GuestError("; ".join("%s is left alone: %s" % (guest.name or guest.uuid, why) for guest, why in left))
    if check:
        after = [guest._replace(state=work.state) if guest in mine else guest for guest in chosen]
    else:
        work.do(mine, seconds, names is None)
        after = everyone(driver, folder)
        after = after if names is None else [guest for guest in after if guest.uuid in [one.uuid for one in chosen]]
    return {"changed": any(guest.state != work.state for guest in mine), "before": chosen, "after": after, "left": left}


def everyone(driver, folder):
    """The guests that are there, and those that are saved. GuestError."""
    found = driver.guests()
    there = set(guest.uuid for guest in found)
    return found + [Guest(uid, None, record["name"], "saved", None) for uid, record in sorted(driver.saved(folder).items()) if uid not in there]


def _named(guests, names):
    """Those of these names or UUIDs. GuestError."""
    found = []
    for name in names:
        fit = [guest for guest in guests if guest.uuid == name.lower() or guest.name == name]
        if not fit:
            raise GuestError("%s: no guest here is called so; there are: %s" % (name, ", ".join(guest.name or guest.uuid for guest in guests) or "none"))
        if len(fit) > 1:
            raise GuestError("%s: %d guests are called so; name the one that is meant by its UUID: %s"
                             % (name, len(fit), ", ".join("%s (%s)" % (guest.uuid, guest.state) for guest in fit)))
        found += [guest for guest in fit if guest not in found]
    return found


class _Look(object):
    """Nothing is changed. The others do one thing each: why_not() gives None for a guest that it is to be done with, "" where nothing is to do, or why not."""

    state = None

    def __init__(self, host, driver, folder):
        self.host, self.driver, self.folder = host, driver, folder

    def why_not(self, _guest):
        return ""

    def do(self, guests, seconds, everything):
        """Bring these into the state; everything: no guest was named. GuestError."""


class _Pause(_Look):
    """Paused for some seconds; those that we hold already are held for so long from now on."""

    state = "paused"

    def __init__(self, *words):
        _Look.__init__(self, *words)
        self._ours = set((guest.uuid, guest.id) for one in lease.open_leases(self.host) if not one["void"] for guest in one["guests"])

    def ours(self, guest):
        """Whether it is us who holds it."""
        return (guest.uuid, guest.id) in self._ours

    def why_not(self, guest):
        if guest.state == "paused":
            return None if self.ours(guest) else guest.why_not or ""
        return guest.why_not or (None if guest.state == "running" else "it is %s" % guest.state)

    def do(self, guests, seconds, everything):
        stale = [guest.uuid for guest in guests if guest.state == "running" and self.ours(guest)]
        if stale:  # somebody else has resumed what we hold
            lease.release(self.host, self.driver, stale)
        if guests:
            lease.leave(self.host, self.driver, guests, seconds)


class _Run(_Pause):
    """Running again, where it was us who paused it."""

    state = "running"

    def why_not(self, guest):
        if guest.state == "running":
            return ""
        if guest.state == "paused":
            return None if self.ours(guest) else guest.why_not or "it was paused by somebody else, who has to resume it"
        return guest.why_not or "it is %s" % guest.state

    def do(self, guests, seconds, everything):
        problems = lease.release(self.host, self.driver, None if everything else [guest.uuid for guest in guests])
        wrong = ["%s (%s)" % (uid, why) for uid, why in sorted(problems.items()) if why]
        if wrong:
            raise GuestError("guests that could not be resumed: %s; the watcher goes on trying; see to what keeps them" % ", ".join(wrong))


class _Save(_Look):
    """On the disk, and not running."""

    state, goes_on = "saved", False

    def why_not(self, guest):
        return "" if guest.state == "saved" else guest.why_not or self.driver.unsavable(guest, self.folder)

    def call(self, guest):
        self.driver.save(guest, self.folder)

    def do(self, guests, seconds, everything):
        if not guests:
            return
        done, problems = [], []
        with journal.run(self.host, "hypervisor_guest", state=self.state, folder=self.folder, guests=[guest.uuid for guest in guests]) as run:
            for guest in guests:
                run.note("begins", uuid=guest.uuid, name=guest.name)
                try:
                    self.call(guest)
                    done.append(guest.name or guest.uuid)
                except GuestError as exc:
                    problems.append(str(exc))
                    if not self.goes_on:
                        break
            if problems:
                raise GuestError("; ".join(problems + ["%s: %s" % (self.state, ", ".join(done))] * bool(done)))


class _Restore(_Save):
    """Running again as it was saved, once; one that cannot be restored does not keep the others from it."""

    state, goes_on = "running", True

    def __init__(self, *words):
        _Save.__init__(self, *words)
        self._records = self.driver.saved(self.folder)

    def why_not(self, guest):
        return self.driver.unrestorable(self._records[guest.uuid], self.folder) if guest.state == "saved" else ""

    def call(self, guest):
        self.driver.restore(self._records[guest.uuid], self.folder)


WORK = {None: _Look, "paused": _Pause, "running": _Run, "saved": _Save, "restored": _Restore}
