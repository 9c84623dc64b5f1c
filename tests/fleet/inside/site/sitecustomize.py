# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Python on a simulated host meets where a plain file would not do: the kernel's reload file answers; and points at which a program is killed."""
import builtins
import errno
import io
import os
import signal
import sys
import time

RELOAD = "/sys/devices/system/cpu/microcode/reload"
MOST = 1 << 20  # bytes of a file that are looked into
LIMIT = 60  # seconds until a connection that shall be cut must have been
_open, _write, _rename, _replace = os.open, os.write, os.rename, os.replace
_watched = set()  # file descriptors of the reload file


def _machine():
    for path in ("/.simulated/fleet/inside", "/.simulated/collections"):
        if path not in sys.path:
            sys.path.append(path)
    import machine  # pylint: disable=import-outside-toplevel
    return machine.Machine()


# --- the reload file ---

def _is_reload(path):
    return isinstance(path, (str, bytes)) and os.fsdecode(path).endswith("/reload") and os.path.realpath(os.fsdecode(path)) == RELOAD


def open_(path, flags, mode=0o777, *, dir_fd=None):
    """os.open()"""
    handle = _open(path, flags, mode, dir_fd=dir_fd)
    _watched.discard(handle)
    if _is_reload(path) and flags & (os.O_WRONLY | os.O_RDWR):
        _watched.add(handle)
    return handle


def write(handle, data):
    """os.write()"""
    if handle in _watched and os.path.samestat(os.fstat(handle), os.stat(RELOAD)):
        machine = _machine()
        import linux  # pylint: disable=import-outside-toplevel
        linux.reload(machine, bytes(data))
        return len(data)
    return _write(handle, data)


def opened(event, arguments):
    """An audit hook for open(), which does not go through os.open(): what it writes to the reload file would come to nothing, so it says so."""
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+") and _is_reload(arguments[0]):
        raise OSError(errno.ENOSYS, "a simulated kernel's reload file takes os.open() and os.write() alone", RELOAD)


# --- points of a run: a file is put in its place ---

def _waiting(source, target):
    """[(name, fault)] of the faults that wait for this file."""
    path = os.path.abspath(os.fsdecode(target))
    if path.startswith("/.simulated/"):
        return []
    faults, found = _machine().state()["faults"], []
    for name in ("kill", "cut"):
        fault = faults.get(name)
        if isinstance(fault, dict) and fault["file"] in path:
            with open(source, "rb") as stream:
                if fault.get("text", "").encode() in stream.read(MOST):
                    found.append((name, fault))
    return found


def _meet(waiting, before):
    for name, fault in waiting:
        if bool(fault.get("before")) == before:
            machine = _machine()
            with machine.change() as state:
                state["faults"].pop(name, None)
                if name == "cut":  # whoever is connected sees this, and takes it away
                    state["faults"]["cut"] = True
            if name == "kill":
                os.kill(os.getpid(), fault.get("signal", signal.SIGKILL))
            end = time.monotonic() + LIMIT
            while name == "cut" and machine.state()["faults"].get("cut") and time.monotonic() < end:
                time.sleep(0.01)


def _renaming(real):
    def rename(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
        waiting = _waiting(src, dst) if src_dir_fd is None and dst_dir_fd is None and os.path.isfile(src) else []
        _meet(waiting, True)
        real(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        _meet(waiting, False)
    return rename


os.open, os.write, os.rename, os.replace = open_, write, _renaming(_rename), _renaming(_replace)
if hasattr(sys, "addaudithook"):
    sys.addaudithook(opened)
else:  # before Python 3.8
    _io_open = io.open

    def io_open(file, mode="r", *arguments, **options):
        """open()"""
        opened("open", (file, mode))
        return _io_open(file, mode, *arguments, **options)
    io.open = builtins.open = io_open
