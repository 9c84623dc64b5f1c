# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Records of the guests that were saved: one JSON file each, which says what the guest was given when its image was written.

Xen's images lie beside them, and the ending of an image's name says how far it is: .partial while it is written, .image when it is whole,
.restoring from before the guest is begun with it. Renaming is one step, so no image is restored twice: that would corrupt the guest's disks.
"""
import contextlib
import json
import os
import re
import time

from .. import atomic, journal
from .guest import GuestError

FOLDER = journal.FOLDER + "/saved"
RESERVE = 256 << 20  # bytes that stay free when an image has been written


def place(folder, uuid, ending):
    """Path of a guest's record (.json), image or log (.log)."""
    return "%s/%s%s" % (folder, uuid, ending)


def prepare(folder):
    """Have the folder, for this user alone: images hold all that the guests keep in memory. GuestError."""
    try:
        if folder == FOLDER:
            atomic.private_folder(journal.FOLDER)
        atomic.private_folder(folder)
    except OSError as exc:
        raise GuestError("%s: %s; images hold the guests' memory, so they are written only into a folder of this user alone; name another"
                         % (folder, exc.strerror or exc))


def room(folder, kib, others=0):
    """Why an image of so much memory (KiB) does not fit there beside others of so much, or None."""
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    stat = os.statvfs(folder)
    free, needed = stat.f_bavail * stat.f_frsize, (others + kib << 10) + RESERVE
    return None if free >= needed else ("%s has %d MiB free, and its image takes up to %d MiB%s with %d MiB to spare; free some, or name another folder" % (
        folder, free >> 20, kib >> 10, " beside the other guests' %d MiB," % (others >> 10) if others else "", RESERVE >> 20))


class Room(object):
    """Room for the images of several guests, of which each is asked once."""

    def __init__(self):
        self._taken = 0

    def why_not(self, folder, kib):
        """As room(), and where there is some it is this guest's from then on."""
        why = room(folder, kib, self._taken)
        self._taken += 0 if why else kib
        return why


def write(host, driver, guest, features, folder):
    """Note that a guest is saved through this driver (its name), and which features (sorted list of str, or None) its CPUs had. GuestError."""
    record = {"schema": 1, "driver": driver, "uuid": guest.uuid, "name": guest.name, "features": features,
              "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "boot_id": host.text("/proc/sys/kernel/random/boot_id", 256)}
    prepare(folder)
    try:
        atomic.replace(place(folder, guest.uuid, ".json"), json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as exc:
        raise GuestError("%s: %s; without a record nobody could tell whether the image may be restored, so the guest was not saved"
                         % (folder, exc.strerror))


def records(host, folder, driver):
    """{uuid: record} of the guests that were saved through this driver."""
    found = {}
    for name in host.names(folder):
        if re.match(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json$", name):
            try:
                record = json.loads(host.text(folder + "/" + name) or "")
                if record["schema"] == 1 and record["driver"] == driver and record["uuid"] == name[:36]:
                    found[record["uuid"]] = record
            except (KeyError, TypeError, ValueError):
                host.warn("%s/%s: not a record of a saved guest; left alone" % (folder, name))
    return found


def lost(record, features):
    """Features that the CPU had when the guest was saved and has no more (sorted list); None where that is not known."""
    return None if record["features"] is None or features is None else sorted(set(record["features"]) - set(features))


def forget(folder, uuid):
    """The record, the log and what there may be of an image are removed; the guest does not need them any more."""
    for ending in (".partial", ".image", ".restoring", ".log", ".json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place(folder, uuid, ending))
