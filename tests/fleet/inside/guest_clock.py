# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The time of guests: a guest that counts aloud, ten times a second, needs not run where its count follows from when it was let run.

A guest is a dictionary of the state; of it these words belong here:
  started, ran   when it began on this host (time.time()), and the seconds that it had run before, where it was restored
  held, since    seconds that ended pauses have held it, and when the present one began, or null
  calls          [[time, 1 for a pause and -1 for an end of one, the program that asked]]
"""
import time


def begin(guest, ran=0.0):
    """The guest begins to run."""
    guest.update(started=time.time(), ran=ran, held=0.0, since=None, calls=[])


def hold(guest, program, again=False):
    """A program pauses the guest; again: it was paused already."""
    now = time.time()
    guest["calls"].append([now, 1, program])
    if not again:
        guest["since"] = now


def release(guest, program, still=False):
    """A program ends a pause; still: others go on."""
    now = time.time()
    guest["calls"].append([now, -1, program])
    if not still:
        guest["held"], guest["since"] = guest["held"] + now - guest["since"], None


def ran(guest, now=None):
    """Seconds that the guest was let run."""
    now = now or time.time()
    return guest["ran"] + now - guest["started"] - guest["held"] - (now - guest["since"] if guest["since"] else 0)


def speaks(guest):
    """What the guest says: how far it has counted and its clock, which a pause does not stop. Where they part, something held it."""
    return "%s count=%d uptime=%.2f" % (guest["name"], ran(guest) * 10, guest["ran"] + time.time() - guest["started"])
