# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders of a simulated host that are really full: a file system in memory, as large as their files and what shall be free, is mounted over each.

    python full.py '{"/boot": 0}'     makes these folders so full, in bytes, and no others; what was written goes back to the host's own tree, as it does when
                                      the host goes down

Space is counted in pages: a file takes at least one. A file cannot be renamed across the edge of such a folder (EXDEV), as on one that is a file system.
"""
import ctypes
import json
import os
import shutil
import stat
import sys

FULL, BELOW = "/.simulated/full/", "/.simulated/below/"  # the file systems, and the folders that they hide
MS_REMOUNT, MS_BIND, MNT_DETACH = 32, 4096, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))


def mount(what, where, kind, flags, options=None):
    call("mount", what.encode(), where.encode(), kind, ctypes.c_ulong(flags), options)


def fill(folder, free):
    """Leave so many bytes free in a folder."""
    place = os.path.realpath(folder)
    name = place.replace("%", "%25").replace("/", "%2F")
    for base in (FULL, BELOW):
        os.makedirs(base + name)
    mount(place, BELOW + name, None, MS_BIND)
    mount("full", FULL + name, b"tmpfs", 0, b"mode=755")
    with open(FULL + name + "/ballast", "wb") as stream:  # of nothing at all no file system can be made
        stream.write(b"x")
    os.mkdir(FULL + name + "/data")
    copy(place, FULL + name + "/data")
    room = os.statvfs(FULL + name)
    pages = room.f_blocks - room.f_bfree + free // room.f_frsize
    mount("full", FULL + name, b"tmpfs", MS_REMOUNT, b"size=%d" % (pages * room.f_frsize))
    mount(FULL + name + "/data", place, None, MS_BIND)


def drain(name):
    """Take a file system away again; its files then lie in the folder."""
    place = name.replace("%2F", "/").replace("%25", "%")
    if os.path.ismount(FULL + name):  # else it went with a boot
        for entry in os.scandir(BELOW + name):
            (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
        copy(FULL + name + "/data", BELOW + name)
        for where in (place, FULL + name, BELOW + name):
            call("umount2", where.encode(), MNT_DETACH)
    for base in (FULL, BELOW):
        os.rmdir(base + name)


def copy(source, target):
    """Copy all that lies in a folder into an empty one, with its rights; pipes and sockets are left out."""
    for entry in os.scandir(source):
        place, info = target + "/" + entry.name, entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif stat.S_ISDIR(info.st_mode):
            os.mkdir(place)
            copy(entry.path, place)
            shutil.copystat(entry.path, place)
        elif stat.S_ISREG(info.st_mode):
            shutil.copy2(entry.path, place)
    shutil.copystat(source, target)


def main(wanted):
    there = os.listdir(FULL) if os.path.isdir(FULL) else []
    for name in sorted(there, reverse=True):  # what lies in another comes after it, and goes before it
        drain(name)
    for folder in sorted(wanted):
        fill(folder, wanted[folder])


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as problem:
        sys.exit("%s" % (problem.strerror or problem))
