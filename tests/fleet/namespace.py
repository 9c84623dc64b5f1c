# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A private root for the programs of a simulated host: namespaces of its own for users, mounts, processes and its name. Standard library only.

    python namespace.py start PLAN            reads the plan {root, name, mounts: [[what, where, "ro" or "rw"]], argv} from the file PLAN, begins the namespaces
                                              with argv as their process 1, and prints its process id; once that process ends, so do all others in them
    python namespace.py enter PID ARGV...     runs a program in them and ends as it does

Takes no privileges where the kernel lets users make user namespaces; where it does not, the message says so.
"""
import ctypes
import json
import os
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000
SPACES = (("user", NEWUSER), ("mnt", NEWNS), ("uts", NEWUTS), ("ipc", NEWIPC), ("pid", NEWPID))
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH, PIVOT_ROOT = 1, 32, 4096, 16384, 1 << 18, 2, {"x86_64": 155, "aarch64": 41}
LOCKED = ((os.ST_NOSUID, 2), (os.ST_NODEV, 4), (os.ST_NOEXEC, 8), (os.ST_NOATIME, 1024), (os.ST_NODIRATIME, 2048), (os.ST_RELATIME, 1 << 21))
LIBC = ctypes.CDLL(None, use_errno=True)


def call(what, name, *arguments):
    """A call of the C library; OSError with what it was for."""
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


def mount(what, where, flags):
    call("mount of %s" % where, "mount", os.fsencode(what), os.fsencode(where), None, ctypes.c_ulong(flags), None)


def put(path, text):
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


def settle(plan):
    """In the new namespaces: mount all that the root shows, and make it the root."""
    root = plan["root"]
    mount("none", "/", MS_REC | MS_PRIVATE)
    mount(root, root, MS_BIND | MS_REC)
    for what, where, mode in plan["mounts"]:
        mount(what, root + where, MS_BIND | MS_REC)
        if mode == "ro":  # what the mount below has locked has to be said again
            has = os.statvfs(root + where).f_flag
            mount("none", root + where, MS_BIND | MS_REMOUNT | MS_RDONLY | sum(flag for bit, flag in LOCKED if has & bit))
    os.chdir(root)
    call("change of the root folder", "syscall", PIVOT_ROOT[os.uname().machine], b".", b".")  # pivot_root(2): the old root then lies over the new one
    call("unmount of the old root", "umount2", b".", MNT_DETACH)
    os.chdir("/")
    call("host name", "sethostname", os.fsencode(plan["name"]), len(os.fsencode(plan["name"])))


def start(plan):
    """Begin the namespaces; the id of their process 1. OSError."""
    user, group = os.geteuid(), os.getegid()
    said, says = os.pipe()  # closed by exec: nothing said means that all went well
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
        except OSError as exc:
            os.write(says, ("! %s\n" % exc.strerror).encode())
        os._exit(1)
    os.close(says)
    os.waitpid(child, 0)
    with os.fdopen(said) as stream:
        text = stream.read()
    problem = [line[2:] for line in text.splitlines() if line.startswith("!")]
    if problem or not text:
        raise OSError(1, problem[0] if problem else "it ended without a word")
    return int(text)


def enter(pid, argv):
    """Run a program in the namespaces of a process; its exit status. OSError."""
    handles = [os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY) for name, _flag in SPACES]
    for handle, (name, flag) in zip(handles, SPACES):
        call("%s namespace of process %d" % (name, pid), "setns", handle, flag)
    for handle in handles:
        os.close(handle)
    child = os.fork()  # a process id namespace is that of children
    if child == 0:
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
    status = os.waitpid(child, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(command, *words):
    try:
        if command == "start":
            with open(words[0], encoding="utf-8") as stream:
                print(start(json.load(stream)))
            return 0
        return enter(int(words[0]), list(words[1:]))
    except OSError as exc:
        return "%s" % exc.strerror


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
