# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are either as they were or as they shall be, whatever happens in between."""
import contextlib
import os
import stat
import tempfile


def sync_folder(path):
    """Have what was renamed or removed in a folder survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path, data, mode=0o600):
    """Put bytes at path in one step; a link there is replaced, not followed. OSError leaves what was there, and nothing beside it."""
    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(prefix=".%s." % os.path.basename(path), dir=folder)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def private_folder(path):
    """Make a folder that only this user can look into, or take the one that is there; OSError where it is another's, or a link."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise OSError("%s is no folder of this user alone (mode %o, owner %d); remove it or give it back" % (path, info.st_mode, info.st_uid))
    return path
