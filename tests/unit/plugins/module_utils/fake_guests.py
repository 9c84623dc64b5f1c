# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests that are lines of a file, which counts their pauses as Xen does; a driver for them, in this process and in the watcher's."""
import contextlib
import fcntl
import json
import os


@contextlib.contextmanager
def changed():
    """The guests {uuid: {"id", "pauses", "stuck": what cannot be done with it}}, to be changed by nobody else meanwhile."""
    path = os.environ["FAKE_GUESTS"]
    with open(path + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = seen()
        yield state
        with open(path + ".new", "w", encoding="utf-8") as stream:
            json.dump(state, stream)
        os.rename(path + ".new", path)


def seen():
    """The guests as they are now."""
    with open(os.environ["FAKE_GUESTS"], encoding="utf-8") as stream:
        return json.load(stream)


class Driver(object):
    """Drives the guests of the file that FAKE_GUESTS names; make is guest.Guest."""

    name = "xen"

    def __init__(self, make):
        self.make = make

    def guests(self):
        return [self.make(uid, one["id"], uid, "paused" if one["pauses"] else "running", None) for uid, one in sorted(seen().items())]

    def _each(self, guests, change):
        with changed() as state:
            return dict((guest.uuid, change(state.get(guest.uuid))) for guest in guests)

    def pause(self, guests):
        def change(one):
            if one is None or one.get("stuck") == "pause":
                return "No such process" if one is None else "Operation not permitted"
            one["pauses"] += 1
            return None
        return self._each(guests, change)

    def resume(self, guests):
        def change(one):
            if one and one.get("stuck") == "resume":
                return "Operation not permitted"
            if one and one["pauses"]:
                one["pauses"] -= 1
            return None
        return self._each(guests, change)
