# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Python on a simulated host meets where a plain file would not do: the kernel's reload file answers, and a full disk is full."""
import builtins
import errno
import io
import os
import sys

RELOAD = "/sys/devices/system/cpu/microcode/reload"
_open, _write, _statvfs = os.open, os.write, os.statvfs
_watched = set()  # file descriptors of the reload file


def _machine():
    for path in ("/.simulated/fleet/inside", "/.simulated/collections"):
        if path not in sys.path:
            sys.path.append(path)
    import machine  # pylint: disable=import-outside-toplevel
    return machine.Machine()


def _is_reload(path):
    return isinstance(path, (str, bytes)) and os.fsdecode(path).endswith("/reload") and os.path.realpath(os.fsdecode(path)) == RELOAD


def open_(path, flags, mode=0o777, *, dir_fd=None):
    """os.open()"""
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and isinstance(path, (str, bytes)):
        base = os.getcwd() if dir_fd is None else _folder(dir_fd)
        _machine().check_space(os.path.join(base, os.fsdecode(path)), 1)
    handle = _open(path, flags, mode, dir_fd=dir_fd)
    _watched.discard(handle)
    if _is_reload(path) and flags & (os.O_WRONLY | os.O_RDWR):
        _watched.add(handle)
    return handle


def _folder(handle):
    """The path of an open folder; /proc is a simulated one here, so it is looked for by its number."""
    info = os.fstat(handle)
    for folder in _machine().state()["faults"].get("full", ()):
        if os.path.exists(folder) and os.path.samestat(os.stat(folder), info):
            return folder
    return "/"


def write(handle, data):
    """os.write()"""
    if handle in _watched and os.path.samestat(os.fstat(handle), os.stat(RELOAD)):
        machine = _machine()
        import linux  # pylint: disable=import-outside-toplevel
        linux.reload(machine, bytes(data))
        return len(data)
    return _write(handle, data)


def statvfs(path):
    """os.statvfs()"""
    real = _statvfs(path)
    place = os.path.realpath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else _folder(path)
    for folder, free in _machine().state()["faults"].get("full", {}).items():
        if (place + "/").startswith(folder.rstrip("/") + "/"):
            return os.statvfs_result((real[0], real[1], real[2], free // real[1], free // real[1]) + tuple(real)[5:])
    return real


def opened(event, arguments):
    """An audit hook for open(), which does not go through os.open(): what it writes to the reload file would come to nothing, so it says so."""
    if event != "open" or not isinstance(arguments[1], str) or not set(arguments[1]) & set("wax+") or not isinstance(arguments[0], (str, bytes)):
        return
    if _is_reload(arguments[0]):
        raise OSError(errno.ENOSYS, "a simulated kernel's reload file takes os.open() and os.write() alone", RELOAD)
    if not os.fsdecode(arguments[0]).startswith("/.simulated/"):
        _machine().check_space(os.path.abspath(os.fsdecode(arguments[0])), 1)


os.open, os.write, os.statvfs = open_, write, statvfs
if hasattr(sys, "addaudithook"):
    sys.addaudithook(opened)
else:  # before Python 3.8
    _io_open = io.open

    def io_open(file, mode="r", *arguments, **options):
        """open()"""
        opened("open", (file, mode))
        return _io_open(file, mode, *arguments, **options)
    io.open = builtins.open = io_open
