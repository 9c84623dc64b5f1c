# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A private root for the programs of a simulated host: namespaces of its own for users, mounts, processes, network and its name. Standard library only.

    python namespace.py start                     reads the plan {root, name, mounts: [[what, where, "ro" or "rw"]], argv, env} from standard input, begins the
                                                  namespaces with argv as their process 1, and prints its process id; once that process ends, so do all in them
    python namespace.py enter PID WIRE ARGV...    runs a program in them, as sshd would in a session of its own, and ends as it does; WIRE: file descriptor
                                                  of a socket, which stands for the connection (see enter)

Takes no privileges where the kernel lets users make user namespaces; where it does not, the message says so.
"""
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
SPACES = (("user", NEWUSER), ("mnt", NEWNS), ("uts", NEWUTS), ("ipc", NEWIPC), ("net", NEWNET), ("pid", NEWPID))
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH, PIVOT_ROOT = 4096, 16384, 1 << 18, 2, {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, struct.pack("4Q", 1, 0, 0, 0)  # mount_setattr(2); struct mount_attr: what to set
SIOCSIFFLAGS, UP = 0x8914, 0x41  # netdevice(7); IFF_UP and IFF_RUNNING
SUBREAPER = 36  # prctl(2)
PATIENCE = 5  # seconds that what a session left running has to end; logind gives 90
STATE = "/.simulated/state/state.json"
LIBC = ctypes.CDLL(None, use_errno=True)


class Misplaced(Exception):
    """What a host's own tree has keeps it from being started."""


def call(what, name, *arguments):
    """A call of the C library; OSError with what it was for."""
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


def mount(what, where, flags):
    call("mount of %s" % where, "mount", os.fsencode(what), os.fsencode(where), None, ctypes.c_ulong(flags), None)


def put(path, text):
    """Write to a file of /proc. OSError that names it."""
    try:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)
    except OSError as exc:
        raise OSError(exc.errno, "%s: %s" % (path, exc.strerror))


def settle(plan):
    """In the new namespaces: mount all that the root shows, and make it the root. OSError, Misplaced."""
    root = os.path.realpath(plan["root"])
    mount("none", "/", MS_REC | MS_PRIVATE)
    mount(root, root, MS_BIND | MS_REC)
    for what, where, mode in plan["mounts"]:
        if os.path.realpath(root + where) != root + where:
            raise Misplaced("%s of its own tree leads elsewhere" % where)
        if not os.path.exists(root + where):
            raise Misplaced("%s is gone from its own tree" % where)
        mount(what, root + where, MS_BIND | MS_REC)
        if mode == "ro":  # and all that is mounted below it
            call("mount of %s read-only (takes Linux 5.12)" % where, "syscall", MOUNT_SETATTR, AT_FDCWD, os.fsencode(root + where), AT_RECURSIVE, READ_ONLY,
                 ctypes.c_size_t(len(READ_ONLY)))
    os.chdir(root)
    call("change of the root folder", "syscall", PIVOT_ROOT[os.uname().machine], b".", b".")  # pivot_root(2): the old root then lies over the new one
    call("unmount of the old root", "umount2", b".", MNT_DETACH)
    os.chdir("/")
    call("host name", "sethostname", os.fsencode(plan["name"]), len(os.fsencode(plan["name"])))
    with socket.socket() as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", UP))


def start(plan):
    """Begin the namespaces; the id of their process 1. OSError, Misplaced."""
    user, group = os.geteuid(), os.getegid()
    said, says = os.pipe()  # closed by exec: nothing but the process id said means that all went well
    child = os.fork()
    if child == 0:
        try:
            os.close(said)
            os.setsid()
            call("new user namespace", "unshare", sum(flag for _name, flag in SPACES))
            put("/proc/self/setgroups", "deny")
            put("/proc/self/uid_map", "0 %d 1" % user)
            put("/proc/self/gid_map", "0 %d 1" % group)
            first = os.fork()
            if first:
                os.write(says, b"%d\n" % first)
                os._exit(0)
            settle(plan)
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.execve(plan["argv"][0], plan["argv"], plan["env"])
        except Misplaced as exc:
            os.write(says, ("? %s\n" % exc).encode())
        except OSError as exc:
            os.write(says, ("! %s\n" % (exc.strerror or exc)).encode())
        except Exception as exc:  # pylint: disable=broad-except  # it must not run on as a copy of the one that started it
            os.write(says, ("! %s: %s\n" % (type(exc).__name__, exc)).encode())
        os._exit(1)
    os.close(says)
    os.waitpid(child, 0)
    with os.fdopen(said) as stream:
        lines = stream.read().splitlines()
    for line in lines:
        if line.startswith("?"):
            raise Misplaced(line[2:])
        if line.startswith("!"):
            raise OSError(errno.EPERM, line[2:])
    if not lines:
        raise OSError(errno.EPERM, "it ended without a word")
    return int(lines[0])


# --- sessions ---

def enter(pid, wire, argv):
    """Run a program in the namespaces of a process; its exit status. OSError.

    Once one of these bytes comes on the wire, or its end, the connection is lost: h, and with it the terminal, which the program's group is told by SIGHUP; c,
    there was no terminal; k: end all of the session at once. A byte is the answer. The program runs on where it can, and so does what it left in the
    background, unless the fault kill_user_processes is set (logind's KillUserProcesses=yes): then what is left of the session ends with it, but for units of
    systemd-run.
    """
    os.set_inheritable(wire, False)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever drives the hosts may run under nohup; sshd's sessions do not
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)  # this machine's; inside it is a simulated one
    handles = [os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY) for name, _flag in SPACES]
    for handle, (name, flag) in zip(handles, SPACES):
        call("%s namespace of process %d" % (name, pid), "setns", handle, flag)
    for handle in handles:
        os.close(handle)
    said, says = os.pipe()
    session = os.fork()  # a process id namespace is that of children
    if session == 0:
        lead(proc, says, argv)
    os.close(says)
    begun = gone = False
    while True:
        ready = select.select([said] + [wire] * (begun and not gone), [], [])[0]
        if said in ready:
            words = os.read(said, 16)
            begun = True
            if words != b"+":
                break
        else:
            gone, word = True, os.read(wire, 1)
            if word == b"h":
                for leader in [one for one, (above, group, _state) in processes(proc).items() if above == session and group == one]:
                    os.killpg(leader, signal.SIGHUP)
            if word == b"k" or told():
                clear(proc, session, 0 if word == b"k" else PATIENCE)
            try:
                os.write(wire, b".")  # it has been done
            except OSError:
                pass
    if told():
        clear(proc, session, PATIENCE)
    os.kill(session, signal.SIGKILL)
    os.waitpid(session, 0)
    return int(words or 128 + signal.SIGKILL)  # it says nothing where the host has gone down


def lead(proc, says, argv):
    """The process that what a session leaves in the background belongs to. Never returns."""
    try:
        os.close(proc)
        call("session", "prctl", SUBREAPER, 1, 0, 0, 0)
        child = os.fork()
        if child == 0:
            os.setsid()
            os.write(says, b"+")
            execute(argv)
        while True:
            one, status = os.wait()
            if one == child:
                break
        os.write(says, b"%d" % (128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)))
        while True:
            signal.pause()
    finally:
        os._exit(127)


def execute(argv):
    """Become a program. Never returns."""
    try:
        os.chdir("/root")
        problem = "not found"
        for folder in os.environ["PATH"].split(":") if "/" not in argv[0] else [""]:  # os.execvp() would import what is not here
            try:
                os.execve(os.path.join(folder, argv[0]), argv, os.environ)
            except OSError as exc:
                problem = exc.strerror
        os.write(2, ("%s: %s\n" % (argv[0], problem)).encode())
    except OSError as exc:
        os.write(2, ("/root: %s\n" % exc.strerror).encode())
    os._exit(127)


def processes(proc):
    """{id: (its parent's, its session's, state)} of all processes of this machine."""
    found = {}
    for name in filter(str.isdigit, os.listdir(proc)):
        words = read(proc, name + "/stat").rpartition(b")")[2].split()
        if words:
            found[int(name)] = int(words[1]), int(words[3]), words[0]
    return found


def read(proc, path):
    """The bytes of a small file of /proc; none where its process has gone."""
    try:
        handle = os.open(path, os.O_RDONLY, dir_fd=proc)
    except OSError:
        return b""
    try:
        return os.read(handle, 8192)
    except OSError:
        return b""
    finally:
        os.close(handle)


def told():
    """Whether this host is told to end what sessions leave running."""
    return bool(state().get("faults", {}).get("kill_user_processes"))


def state():
    """The host's state; nothing where it has spoilt that."""
    try:
        with open(STATE, "rb") as stream:
            return json.loads(stream.read().decode())
    except (OSError, ValueError):
        return {}


def belonging(proc, session):
    """Processes of a session: all below its first, but for what a unit is of."""
    units = set(unit.get(word) for unit in state().get("units", {}).values() for word in ("pid", "watcher"))
    table, found, todo = processes(proc), [], [session]
    while todo:
        above = todo.pop()
        for one in [each for each, (parent, _group, kind) in table.items() if parent == above and kind not in (b"Z", b"X")]:
            inside = read(proc, "%d/status" % one).partition(b"NSpid:")[2].split(b"\n")[0].split()
            if inside and int(inside[-1]) not in units:
                found.append(one)
                todo.append(one)
    return found


def clear(proc, session, patience):
    """End the processes of a session: asked first, and made to after so many seconds."""
    end, asked = time.monotonic() + patience, set()
    while True:
        rest = belonging(proc, session)
        if not rest:
            return
        late = time.monotonic() >= end
        for one in rest:
            for number in (signal.SIGKILL,) if late else () if one in asked else (signal.SIGTERM, signal.SIGHUP):
                try:
                    os.kill(one, number)
                except ProcessLookupError:
                    pass
        asked.update(rest)
        time.sleep(0.01)


def main(command, *words):
    try:
        if command == "start":
            print(start(json.load(sys.stdin)))
            return 0
        return enter(int(words[0]), int(words[1]), list(words[2:]))
    except Misplaced as exc:
        sys.stderr.write("%s\n" % exc)
        return 3
    except OSError as exc:
        return "%s" % (exc.strerror or exc)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
