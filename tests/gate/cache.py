# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is made once and kept: folders in the cache, keyed by what went into them."""
import fcntl
import hashlib
import os
import pathlib
import subprocess
import tempfile
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("FLEET_MICROCODE_CACHE") or CHECKOUT / ".cache").absolute()


def discard(folder):
    """Remove a folder, but nothing that is mounted below it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


def kept(kind, made_of, make, days=None):
    """Folder (pathlib.Path) that make(folder) has filled; made anew where the texts of made_of changed, or after so many days.

    One of a kind is kept. What make raises is handed on, and nothing of a failed attempt stays.
    """
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:12]
    place = CACHE / ("%s-%s" % (kind, key))
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(str(place.with_name(place.name.rpartition("-")[0] + ".lock")), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if place.is_dir() and (days is None or time.time() - place.stat().st_mtime < days * 24 * 3600):
            return place
        for left in place.parent.glob("making-*"):  # by a run that was killed
            if left.stat().st_mtime < time.time() - 24 * 3600:
                discard(left)
        work = pathlib.Path(tempfile.mkdtemp(prefix="making-", dir=str(place.parent)))
        try:
            (work / "root").mkdir()
            make(work / "root")
            os.utime(str(work / "root"))
            for old in place.parent.glob(place.name.rpartition("-")[0] + "-" + "?" * 12):
                discard(old)
            (work / "root").rename(place)
        finally:
            discard(work)
    return place
