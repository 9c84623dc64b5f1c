# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated hosts: the trees of recorded ones with a state, a processor that takes microcode, boots, faults, and programs that run in a private root.

    python simulated.py FOLDER         every host of hosts/*.yml in FOLDER, which must not be there yet, and an inventory.yml that reaches them
    python simulated.py stop FOLDER    ends all that runs on hosts in FOLDER

A host is a folder: root/, the files it sees; state/, see inside/machine.py; and, out of its reach, spec.json, its YAML; operations, a byte for each SSH
operation; init, the process that keeps its namespaces; lock, held by who starts or boots it. Ansible reaches it by the connection plugin
connection/simulated.py, tests by the class Host, which has the methods of the lab's machines.
"""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import yaml

from ansible_collections.fleet.microcode.tests.fleet import trees
from ansible_collections.fleet.microcode.tests.fleet.boots import Again, boot, machine_module, processor, start_xen
from ansible_collections.fleet.microcode.tests.fleet.driven import Driven, Lost

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
REAL = """awk base64 basename bash cat chgrp chmod chown cksum cmp comm cp cpio cut date dd diff dirname du echo env expr false file find flock fold getopt grep
gzip gunzip head hostname id install kill ln ls md5sum mkdir mkfifo mktemp mount mountpoint mv nice nl nproc od paste printf ps pwd readlink realpath rm rmdir
sed seq setsid sh sha1sum sha256sum sleep sort split stat stty sum sync tail tar test timeout touch tr true truncate tty umount uniq wc which whoami
xargs xz zcat""".split()  # of this machine; all else that a host runs is ours
INSIDE = "/.simulated/fleet/inside/"
RUN, SITE = INSIDE + "run", INSIDE + "site"
FULL = ["/usr/bin/python3", "-I", "-S", INSIDE + "full.py"]
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh",
               "LANG": "C.UTF-8", "PYTHONPATH": SITE, "PYTHONDONTWRITEBYTECODE": "1"}
DOWN = 10  # seconds that a host which goes down by itself has for that
IDLE = 15  # minutes without an SSH operation after which what runs on a host is ended, as nobody may be left who would
# process 1: ends when a program inside says so (see Machine.stop), when the host's folder has gone, or when nobody asks any more
INIT = """end() { if [ -d /.simulated/full ]; then %s '{}'; fi; exit 0; }; trap end TERM
while [ -e /.simulated/state/state.json ] && [ -n "$(find /.simulated/operations -mmin -%d)" ]; do sleep 5 & wait $!; done; end""" % (" ".join(FULL), IDLE)


class Unavailable(Exception):
    """This machine cannot simulate hosts; the text says why, and what would change that."""


# --- making one ---

def make(folder, spec):
    """A host in this folder, whose name is the host's, as recorded: running, and not yet booted anew. Returns Host."""
    folder = Path(folder).resolve()
    spec = json.loads(json.dumps(dict(spec, name=folder.name), default=str))
    root, state = folder / "root", folder / "state"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is setuid in it is for nobody else
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "operations").touch()
    trees.build(spec, root)
    _programs(root, spec)
    state.mkdir(mode=0o700)
    one = Host(folder)
    (state / "state.json").write_text(json.dumps(_first_state(spec)))
    with one.machine.change() as state:
        if spec.get("hypervisor", {}).get("is") == "dom0":
            start_xen(one.machine, state, spec["hypervisor"].get("options", ""), None)
    return one


def _first_state(spec):
    """The state of a host as its YAML describes it."""
    said, settings = spec.get("hypervisor", {}), spec.get("simulate", {})
    revisions = {}
    if spec.get("arch") != "aarch64":
        cpus = trees.Processors(dict({"hypervisor": {"is": "metal"}}, **spec))
        count = said.get("physical", len(cpus.all))
        revisions = dict((str(index), cpus.revision.get(index, spec["cpu"]["revision"])) for index in range(count))
        revisions = dict((index, _signed(revision, cpus)) for index, revision in revisions.items())
    one = {"revisions": revisions, "firmware": settings.get("firmware", min(revisions.values(), default=0))}
    if revisions:
        one.update(vendor="AuthenticAMD" if cpus.amd else "GenuineIntel", signature=cpus.kind["signature"], pf_mask=cpus.kind.get("pf_mask"),
                   threads=spec["cpu"].get("threads", cpus.kind["threads"]))
    running = next((kernel["version"] for kernel in spec.get("kernels", ()) if kernel.get("running")), spec.get("kernel"))
    domains = [{"name": "vm%d" % number, "uuid": trees.identity("vm%d" % number, spec["name"]), "id": number + 1, "paused": False, "persistent": True,
                "saved": False} for number in range(said.get("running", 0))]
    return {"power": "on", "kexec": None, "cpu": one,
            "boot": {"id": trees.identity(spec["name"], "boot"), "count": 1, "kernel": running, "since": time.time(),
                     "xen": said.get("version") if said.get("is") == "dom0" else None, "options": spec.get("options", "ro quiet"),
                     "xen_options": said.get("options", "") if said.get("is") == "dom0" else None},
            "xen": None, "libvirt": {"domains": domains} if said.get("manager") == "libvirt" else None, "log": [],
            "packages": dict((package["name"], str(package["version"])) for package in spec.get("packages", ())),
            "offered": _offered(spec), "units": {}, "faults": settings.get("faults", {})}


def _offered(spec):
    """The packages at hand, their microcode as the makers of files take it."""
    distro, updates = trees.PARTS["distros"][spec["distro"]], dict(trees.PARTS["updates"], **spec.get("updates", {}))
    return dict((name, dict(package, files=trees.package_files(package, distro, updates)))
                for name, package in spec.get("simulate", {}).get("offered", {}).items())


def _signed(revision, cpus):
    return revision if cpus.amd else processor.signed(revision)


def _programs(root, spec):
    """Link the programs of the host: this machine's for what any Linux has, ours for what it is about."""
    tree, distro = Again(root), trees.PARTS["distros"][spec["distro"]]
    for place in ("dev", "root", "tmp", "var/tmp", "run", ".simulated/usr", ".simulated/state", ".simulated/fleet"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name in ("spec.json", "operations"):
        (root / ".simulated" / name).touch()
    (root / "tmp").chmod(0o1777)
    (root / ".simulated/collections/ansible_collections/fleet/microcode").mkdir(parents=True)
    for name in DEVICES:
        (root / "dev" / name).touch()
    for name in REAL:
        program = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if program and os.path.realpath(program).startswith("/usr/"):
            tree.link("/usr/bin/" + name, "/.simulated" + os.path.realpath(program))
    for name in sorted(os.listdir("/usr")):  # libraries, and the program that loads them
        if name in ("lib32", "lib64", "libx32"):
            tree.link("/usr/" + name, "/.simulated/usr/" + name)
            tree.link("/" + name, "usr/" + name)
    for name in os.listdir("/usr/lib"):
        if name.endswith("-linux-gnu"):
            for base in sorted({"/usr/lib", os.path.realpath(str(root / "lib"))[len(os.path.realpath(str(root))):]}):
                tree.link("%s/%s" % (base, name), "/.simulated/usr/lib/" + name)
    if not distro["merged"]:
        tree.link("/bin/sh", "/usr/bin/sh")
    tree.put("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    tree.put("/etc/group", "root:x:0:\n")
    python = _python(spec)
    tree.link("/usr/bin/python3", "/.simulated" + python if python.startswith("/usr/") else python)
    if not python.startswith("/usr/"):
        tree.folder(_prefix(python))
    if os.path.exists("/etc/ld.so.cache"):
        shutil.copy("/etc/ld.so.cache", str(root / "etc/ld.so.cache"))
    for path in _ours(spec, distro):
        place = tree.at(path)
        if place.is_symlink() and os.readlink(str(place)).startswith("/.simulated"):
            place.unlink()
        if not place.is_symlink():
            place.unlink(missing_ok=True)
            place.symlink_to(RUN)
    for path in root.glob("usr/lib/xen-4*/bin/*"):  # what Debian's wrapper looks for
        path.unlink()
        path.symlink_to(RUN)
        tree.link("/usr/lib/%s/lib/python" % path.parts[-3], SITE)
    for path in root.glob("usr/lib/xen-common/bin/*"):
        path.unlink()
        path.symlink_to(RUN)


def _ours(spec, distro):
    """Paths of the programs that stand-ins of inside/ take the place of."""
    if spec.get("hypervisor", {}).get("is") == "container":
        return ["/usr/bin/uname"]
    names = ["/usr/bin/uname", "/usr/bin/dmesg", "/usr/bin/tee", "/usr/sbin/shutdown", "/usr/sbin/reboot", "/usr/sbin/poweroff", "/usr/sbin/kexec"]
    names += ["/usr/bin/systemctl", "/usr/bin/systemd-run"] if trees.systemd(spec, distro) else []
    names += {"dpkg": ["/usr/bin/" + name for name in ("apt-get", "apt-cache", "apt-mark", "dpkg", "dpkg-query")] + ["/usr/sbin/iucode_tool"],
              "rpm": ["/usr/bin/rpm"] + (["/usr/bin/zypper"] if "suse" in str(distro["os_release"].get("ID_LIKE")) else ["/usr/bin/dnf"]),
              "pacman": ["/usr/bin/pacman"], "apk": ["/sbin/apk"]}.get(distro["packaging"], [])
    names += {"initramfs-tools": ["/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/bin/lsinitramfs"],
              "dracut": ["/usr/bin/dracut", "/usr/bin/lsinitrd"], "mkinitcpio": ["/usr/bin/mkinitcpio", "/usr/bin/lsinitcpio"]}.get(distro.get("tool"), [])
    names += [path for path in distro.get("tools", ()) if "grub" in path and spec.get("kernels")]
    said = spec.get("hypervisor", {})
    if said.get("is") == "dom0":
        names += ["/usr/sbin/xl", "/usr/sbin/xen-ucode"] + ["/usr/sbin/xen-livepatch"] * (said.get("wrapper") is False)
        names += ["/usr/bin/xenstore-" + word for word in ("ls", "rm", "write")]
    return names + (["/usr/bin/virsh"] if said.get("manager") == "libvirt" else [])


def _python(spec=None):
    """The Python of a host: the one that its YAML names, else this one."""
    return os.path.realpath((spec or {}).get("simulate", {}).get("python") or getattr(sys, "_base_executable", sys.executable))


def _prefix(python):
    """The folder that a Python needs beside its program."""
    return os.path.dirname(os.path.dirname(python))


# --- driving one ---

Done = namedtuple("Done", "returncode stdout stderr")  # as subprocess.CompletedProcess


class Host(Driven):
    """A simulated host in its folder; the methods are those of the lab's machines (tests/lab/machine.py)."""

    real = False

    def __init__(self, folder):
        self.folder, self.name = Path(folder), Path(folder).name
        self.machine = machine_module.Machine(str(self.folder / "state"), str(self.folder / "root"))

    def variables(self):
        return {"ansible_connection": "simulated", "ansible_simulated_folder": str(self.folder), "ansible_user": "root",
                "ansible_python_interpreter": "/usr/bin/python3"}

    # --- operations ---

    def ssh(self, *argv, check=True, stdin="", seconds=None):
        """Run a command as root; returncode, stdout and stderr. AssertionError where it fails, unless check is off; Lost where nobody answers."""
        try:
            done = self.execute(list(map(str, argv)), stdin.encode(), seconds)
        except Lost as exc:
            if check:
                raise
            return Done(255, "", str(exc))
        done = Done(done[0], done[1].decode(errors="replace"), done[2].decode(errors="replace"))
        assert not check or done.returncode == 0, "exit status %d of %s; it said: %s%s" % (done.returncode, argv, done.stdout[-1000:], done.stderr[-1000:])
        return done

    def execute(self, argv, stdin=b"", seconds=None, terminal=False):
        """(exit status, stdout, stderr) of a command as sshd would run it. Lost, Unavailable; subprocess.TimeoutExpired after these seconds.

        terminal: the session has one, whose loss the command is told by SIGHUP (more of a terminal there is not).
        """
        number = self.operation()
        cut = self._state()["faults"].get("cut")
        process, wire = self._session(self._process(), argv, stdin)
        with wire:
            try:
                done = self._talk(process, seconds, number, cut)
                if done is None:  # what was begun goes on, its words are lost
                    self._hang_up(process, wire, b"h" if terminal else b"c")
                    raise Lost("the connection was closed in the middle of a command")
            except BaseException:  # one who interrupts this leaves nothing behind, either
                if process.returncode is None:
                    with contextlib.suppress(OSError):
                        wire.sendall(b"k")
                    process.communicate()
                raise
        if self._state()["power"] != "on":
            raise Lost("the connection was closed: the host has gone down")
        return process.returncode, done[0], done[1]

    def _hang_up(self, process, wire, word):
        """Lose the connection to a session."""
        for stream in (process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        with contextlib.suppress(OSError):  # it has ended already
            wire.sendall(word)
            wire.recv(1)  # it has been told
        process.returncode = 0  # nobody waits for it
        self.fault(cut=None)

    def _talk(self, process, seconds, number, cut):
        """(stdout, stderr) of a session; None where a fault cuts it."""
        if cut == number:
            return None
        end = None if seconds is None else time.monotonic() + seconds
        while isinstance(cut, dict):  # until it comes to that point, or ends before
            try:
                return process.communicate(timeout=0.05)
            except subprocess.TimeoutExpired:
                if self._state()["faults"].get("cut") is True:
                    return None
                if end and time.monotonic() > end:
                    raise
        return process.communicate(timeout=seconds)

    def _session(self, pid, argv, said=b""):
        """(a process that runs a command in a session of its own, socket of the connection to it): see namespace.py; said: all that it is given to read."""
        wire, end = socket.socketpair()
        with wire, tempfile.TemporaryFile() as stdin:  # a pipe would have to be fed by somebody, while another one waits
            stdin.write(said)
            stdin.seek(0)
            try:
                return subprocess.Popen([_python(), "-IS", str(HERE / "namespace.py"), "enter", str(pid), str(wire.fileno()), *argv], stdin=stdin,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, start_new_session=True, pass_fds=[wire.fileno()]), end
            except BaseException:
                end.close()
                raise

    def operation(self):
        """Count an SSH operation (its number, from 1 on); boots the host where a boot is due. Lost where nobody answers."""
        with open(str(self.folder / "operations"), "ab", buffering=0) as stream:
            stream.write(b".")
            number = stream.tell()
        faults = self._state()["faults"]
        if faults.get("slow"):
            time.sleep(faults["slow"])
        gone = faults.get("unreachable")
        if gone is True or isinstance(gone, dict) and number > gone["after"]:
            raise Lost("Connection timed out")
        self._due()
        if self._state()["power"] != "on":
            raise Lost("Connection timed out")
        return number

    def _state(self):
        """The host's state. Lost where it has spoilt that."""
        try:
            return self.machine.state()
        except (OSError, ValueError) as exc:
            raise Lost("%s: state/state.json of this simulated host cannot be read: %s" % (self.name, exc)) from None

    @contextlib.contextmanager
    def _locked(self):
        """Nobody else starts, boots or ends the host meanwhile. Not to be nested."""
        with open(str(self.folder / "lock"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _due(self):
        """Boot where a boot is due: nothing runs beside the host that could do it, so whoever looks at it does."""
        if self._state()["power"] == "boots":
            with self._locked():
                if self._state()["power"] == "boots":  # else somebody else looked at the same time
                    self._boot()

    def _boot(self):
        """Boot; by whoever holds the lock. Lost where what the host left behind keeps it from that."""
        self._end()
        try:
            boot(self.machine)
        except Exception as exc:
            with contextlib.suppress(OSError, ValueError), self.machine.change() as state:
                state["power"] = "hung"
            raise Lost("%s does not boot, for what lies in its own tree or state: %s: %s" % (self.name, type(exc).__name__, exc)) from exc

    @property
    def operations(self):
        """How many SSH operations there were."""
        return (self.folder / "operations").stat().st_size

    def _process(self):
        """The process 1 of the host, begun where it is not there. Unavailable, Lost."""
        with self._locked():
            return self._running() or self._start()

    def _start(self):
        collection = "/.simulated/collections/ansible_collections/fleet/microcode"
        mounts = [["/usr", "/.simulated/usr", "ro"], [str(HERE), "/.simulated/fleet", "ro"], [str(CHECKOUT), collection, "ro"],
                  [str(self.folder / "state"), "/.simulated/state", "rw"]] + [["/dev/" + name, "/dev/" + name, "ro"] for name in DEVICES]
        mounts += [[str(self.folder / name), "/.simulated/" + name, "ro"] for name in ("spec.json", "operations")]
        python = _python(self._state()["spec"])
        if not python.startswith("/usr/"):
            mounts.append([_prefix(python), _prefix(python), "ro"])
        plan = {"root": str(self.folder / "root"), "name": self.name, "mounts": mounts, "argv": ["/bin/sh", "-c", INIT], "env": ENVIRONMENT}
        done = subprocess.run([_python(), "-IS", str(HERE / "namespace.py"), "start"], input=json.dumps(plan), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 3:
            raise Lost("%s does not start: %s" % (self.name, done.stderr.strip()))
        if done.returncode:
            raise Unavailable("%s: this machine cannot simulate hosts: %s. A simulated host is a private root folder in a user namespace; a kernel that lets "
                              "users make them (sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1, or "
                              "kernel.apparmor_restrict_unprivileged_userns=0, or a container that is allowed to unshare) would do"
                              % (self.name, done.stderr.strip()))
        pid = int(done.stdout)
        (self.folder / "init.new").write_text("%d %s" % (pid, _born(pid)))
        (self.folder / "init.new").replace(self.folder / "init")
        if self._state()["faults"].get("full"):
            self._fill(pid, self._state()["faults"]["full"])
        return pid

    def _fill(self, pid, wanted):
        """Have folders {path: bytes that are free} be full, and no others."""
        process, wire = self._session(pid, FULL + [json.dumps(wanted)])
        with wire:
            said = process.communicate()[1]
        if process.returncode:
            raise Lost("%s: folders %s cannot be made full: %s" % (self.name, sorted(wanted), said.decode(errors="replace").strip()))

    def _running(self):
        """The process 1 of the host, or None where it is not there."""
        try:
            pid, born = (self.folder / "init").read_text().split()
        except FileNotFoundError:
            return None
        return int(pid) if _born(int(pid)) == born else None

    def _end(self):
        """End all that runs on the host; by whoever holds the lock."""
        pid = self._running()
        if pid:
            with contextlib.suppress(Lost):  # whatever it has made of its state, it ends
                state = self._state()
                if state["power"] != "on":  # it is about to end by itself
                    end = time.monotonic() + DOWN
                    while _born(pid) and time.monotonic() < end:
                        time.sleep(0.005)
                elif state["faults"].get("full"):
                    self._fill(pid, {})
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while _born(pid):
                time.sleep(0.005)
        (self.folder / "init").unlink(missing_ok=True)

    def stop(self):
        """End all that runs on the host, which is as if time stood still for it."""
        with self._locked():
            self._end()

    # --- power ---

    def kill(self):
        """Cut the power."""
        with self._locked():
            self._cut_power()

    def _cut_power(self):
        self._end()
        with self.machine.change() as state:
            state["power"] = "off"

    def reset(self):
        """Press the reset button."""
        with self._locked():
            self._cut_power()
            self._boot()

    power_cycle = reset

    def boot(self):
        """Switch on."""
        with self._locked():
            self._boot()

    def wait(self, condition, otherwise, seconds=60):
        """Wait until condition() is true; what it was. Lost where it is not in time."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise Lost("%s after %d s. %s" % (otherwise, seconds, self.console[-3000:]))
            time.sleep(0.01)

    def wait_up(self):
        """Wait until it answers; the boot's id."""
        return self.wait(lambda: self.boot_id(check=False), "nobody answers")

    def silent(self):
        """Whether nobody answers."""
        return self.boot_id(check=False) is None

    def network(self, up):
        """Plug the network cable in, or pull it out."""
        self.fault(unreachable=not up)

    def fault(self, **faults):
        """Set faults (see inside/machine.py); None takes one away."""
        with self._locked():
            with self.machine.change() as state:
                state["faults"].update(faults)
                state["faults"] = dict((name, value) for name, value in state["faults"].items() if value is not None)
            pid = self._running()
            if "full" in faults and pid:
                self._fill(pid, faults["full"] or {})

    def reboot(self, how=("systemctl", "reboot")):
        """Have the host reboot, and wait until it answers anew."""
        before = self.boot_id()
        self.ssh(*how, check=False)
        after = self.boot_id()
        assert after != before, "no other boot answers"

    # --- what is seen from outside ---

    @property
    def console(self):
        """All that the host has said on its console."""
        return self._log("console")

    def _log(self, name):
        self._due()
        return self.machine.said(name)

    def events(self):
        """Lines of the processor's own log, as dictionaries: see tests/lab/processor/README.md."""
        return [json.loads(line) for line in self._log("processor").splitlines()]

    def revisions(self):
        """{CPU: revision that it runs}, as the processor itself says."""
        self._due()
        return dict((int(cpu), processor.hex8(revision)) for cpu, revision in self.machine.state()["cpu"]["revisions"].items())


def _born(pid):
    """When a process began, in the kernel's ticks; None where it is not there."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as stream:
            words = stream.read().rpartition(")")[2].split()
        return None if words[0] in "ZX" else words[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


# --- a fleet ---

def build_all(folder, specs=None):
    """Make hosts, {name: spec} or every recorded one, below folder, with an inventory.yml; returns {name: Host}."""
    folder, made = Path(folder).resolve(), {}
    groups = {"all": {"children": {}, "hosts": {}}}
    for name, spec in many(trees.hosts() if specs is None else specs).items():
        made[name] = make(folder / name, spec)
        groups["all"]["hosts"][name] = dict(made[name].variables(), **spec.get("vars", {}))
        for group in spec.get("groups", ()):
            groups["all"]["children"].setdefault(group, {"hosts": {}})["hosts"][name] = {}
    (folder / "inventory.yml").write_text(yaml.safe_dump(groups, sort_keys=False), encoding="utf-8")
    return made


def many(specs):
    """{name: spec} with a host that has a count made into that many, whose names are numbered."""
    found = {}
    for name, spec in specs.items():
        count = spec.get("count", 1)
        for number in range(1, count + 1):
            found[name if "count" not in spec else "%s-%0*d" % (name, len(str(count)), number)] = spec
    return found


def stop_all(folder):
    """End all that runs on hosts below folder."""
    for path in Path(folder).glob("*/init"):
        Host(path.parent).stop()


def main(words):
    if len(words) == 2 and words[0] == "stop":
        stop_all(words[1])
        return None
    if len(words) == 4 and words[0] == "fault":
        Host(Path(words[1]) / words[2]).fault(**json.loads(words[3]))
        return None
    if len(words) != 1:
        return ("usage: simulated.py FOLDER (a folder that is not there yet, for the hosts and an inventory.yml), simulated.py stop FOLDER, "
                "or simulated.py fault FOLDER HOST '{\"boots\": false}' (see inside/machine.py)")
    if Path(words[0]).exists():
        return "%s is there already; name a folder that is not there yet" % words[0]
    print("%d simulated hosts in %s" % (len(build_all(words[0])), words[0]))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
