# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated hosts: the trees of recorded ones with a state, a processor that takes microcode, boots, faults, and programs that run in a private root.

    python simulated.py FOLDER         every host of hosts/*.yml in FOLDER, which must not be there yet, and an inventory.yml that reaches them

A host is a folder: root/, the files it sees; state/, see inside/machine.py; init, the process that keeps its namespaces. Ansible reaches it by the
connection plugin connection/simulated.py, tests by the class Host, which has the methods of the lab's machines.
"""
import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import namedtuple
from pathlib import Path

import yaml

from ansible_collections.fleet.microcode.plugins.module_utils import boot as boot_reader
from ansible_collections.fleet.microcode.plugins.module_utils import host as host_reader
from ansible_collections.fleet.microcode.plugins.module_utils import hypervisor, initrd
from ansible_collections.fleet.microcode.tests.fleet import trees
from ansible_collections.fleet.microcode.tests.fleet.driven import Driven, Lost

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(HERE / "inside"))  # its modules know each other by their bare names, as inside a host
import machine as machine_module  # noqa: E402  pylint: disable=wrong-import-position,import-error
import processor  # noqa: E402  pylint: disable=wrong-import-position,import-error
import virsh  # noqa: E402  pylint: disable=wrong-import-position,import-error
import xen  # noqa: E402  pylint: disable=wrong-import-position,import-error
sys.path.remove(str(HERE / "inside"))  # it also has names that others use

Processor = namedtuple("Processor", "vendor signature pf_mask revision")  # what the collection's readers of initrds ask for
REAL = """awk base64 basename bash cat chgrp chmod chown cksum cmp comm cp cpio cut date dd diff dirname du echo env expr false file find flock fold getopt grep
gzip gunzip head hostname id install kill ln ls md5sum mkdir mkfifo mktemp mount mountpoint mv nice nl nproc od paste printf ps pwd readlink realpath rm rmdir
sed seq setsid sh sha1sum sha256sum sleep sort split stat stty sum sync tail tar test timeout touch tr true truncate tty umount uniq wc which whoami
xargs xz zcat""".split()  # of this machine; all else that a host runs is ours
RUN, SITE = "/.simulated/fleet/inside/run", "/.simulated/fleet/inside/site"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh",
               "LANG": "C.UTF-8", "PYTHONPATH": SITE, "PYTHONDONTWRITEBYTECODE": "1"}
# process 1: ends when a program inside says so (see Machine.stop), or when the host's folder has gone
INIT = 'trap "exit 0" TERM; while [ -e /.simulated/state/state.json ]; do sleep 5 & wait $!; done'


class Unavailable(Exception):
    """This machine cannot simulate hosts; the text says why, and what would change that."""


class Again(trees.Tree):
    """A tree that is written over what is there; programs that are simulated stay."""

    def put(self, path, content="", mode=None):
        if not self.at(path).is_symlink():
            super().put(path, content, mode)

    def link(self, path, target):
        with contextlib.suppress(FileExistsError):
            super().link(path, target)


# --- making one ---

def make(folder, spec):
    """A host in this folder, whose name is the host's, as recorded: running, and not yet booted anew. Returns Host."""
    folder = Path(folder).resolve()
    spec = json.loads(json.dumps(dict(spec, name=folder.name), default=str))
    root, state = folder / "root", folder / "state"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is setuid in it is for nobody else
    trees.build(spec, root)
    _programs(root, spec)
    state.mkdir(mode=0o700)
    one = Host(folder)
    (state / "state.json").write_text(json.dumps(_first_state(spec)))
    with one.machine.change() as state:
        if spec.get("hypervisor", {}).get("is") == "dom0":
            _xen(one.machine, state, spec["hypervisor"].get("options", ""), None)
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
    return {"spec": spec, "power": "on", "kexec": None, "cpu": one,
            "boot": {"id": trees.identity(spec["name"], "boot"), "count": 1, "kernel": running, "entry": None, "since": time.time(),
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
    names += ["/usr/bin/systemctl", "/usr/bin/systemd-run"] if distro["packaging"] != "apk" and distro.get("tool") != "genkernel" else []
    names += {"dpkg": ["/usr/bin/" + name for name in ("apt-get", "apt-cache", "apt-mark", "dpkg", "dpkg-query")] + ["/usr/sbin/iucode_tool"],
              "rpm": ["/usr/bin/rpm"] + (["/usr/bin/zypper"] if "suse" in str(distro["os_release"].get("ID_LIKE")) else ["/usr/bin/dnf"]),
              "pacman": ["/usr/bin/pacman"], "apk": ["/sbin/apk"]}.get(distro["packaging"], [])
    names += {"initramfs-tools": ["/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/bin/lsinitramfs"],
              "dracut": ["/usr/bin/dracut", "/usr/bin/lsinitrd"], "mkinitcpio": ["/usr/bin/mkinitcpio", "/usr/bin/lsinitcpio"]}.get(distro.get("tool"), [])
    names += [path for path in distro.get("tools", ()) if "grub" in path and spec.get("kernels")]
    said = spec.get("hypervisor", {})
    names += ["/usr/sbin/xl", "/usr/sbin/xen-ucode"] + ["/usr/sbin/xen-livepatch"] * (said.get("wrapper") is False) if said.get("is") == "dom0" else []
    return names + (["/usr/bin/virsh"] if said.get("manager") == "libvirt" else [])


def _python(spec=None):
    """The Python of a host: the one that its YAML names, else this one."""
    return os.path.realpath((spec or {}).get("simulate", {}).get("python") or getattr(sys, "_base_executable", sys.executable))


def _prefix(python):
    """The folder that a Python needs beside its program."""
    return os.path.dirname(os.path.dirname(python))


# --- boots ---

def _xen(machine, state, options, update):
    """Xen comes up: its log begins anew, and no guest runs but those that dom0 starts by itself."""
    state["boot"].update(xen=state["spec"]["hypervisor"]["version"], xen_options=options)
    xen.boot(machine, state, state["boot"]["xen"], "placeholder " + options, update)  # a word stands where the file's name was (XEN, GRUB's 20_linux_xen)


def boot(machine):
    """Boot a host: what its boot loader, its initrd and Xen's options say. The state says what came of it."""
    with contextlib.suppress(machine_module.Hung), machine.change() as state:
        state["boot"]["count"] += 1
        state["boot"]["id"] = str(uuid.uuid4())
        state["boot"]["since"] = time.time()
        state["units"], state["power"] = {}, "on"
        spec, reader, kexec = copy.deepcopy(state["spec"]), host_reader.Host(machine.root), state["kexec"]
        state["kexec"] = None
        if kexec:
            initrds = [kexec["initrd"]] if kexec["initrd"] else []
            entry = {"kernel": kexec["kernel"], "initrds": initrds, "args": kexec["command_line"], "xen": None, "ucode": None}
        else:
            processor.reset(machine, state)
            entry = boot_reader.default_entry(reader)
            _forget_one_time(machine)
        if state["faults"].get("boots") is False:
            state["power"] = "hung"
            return
        if entry is None:
            machine.say("boot: %s" % "; ".join(reader.warnings))
            version, args = state["boot"]["kernel"], state["boot"]["options"]
            entry = {"kernel": None, "initrds": [], "args": args, "xen": None, "xen_args": None, "ucode": None}
        else:
            version = _version(entry["kernel"], spec)
        state["boot"].update(kernel=version, options=entry["args"] or "", xen=None, xen_options=None)
        state["log"] = ["Linux version %s" % version, "Command line: %s" % (entry["args"] or "")]
        machine.say("Loading Linux %s%s" % (version, " with Xen" if entry["xen"] else ""))
        update = _update(reader, state, entry)
        _load_early(machine, state, entry, update)
        state["xen"] = None
        virsh.boot(state)
        _show(machine, state, entry, version)
        if entry["xen"]:
            _xen(machine, state, entry["xen_args"] or "", update)
        processor.show(machine, state)
        machine.say("%s login:" % spec["name"])


def _forget_one_time(machine):
    """GRUB's configuration takes next_entry out of the environment block before it boots it, where it has one that it can write."""
    for folder in ("/boot/grub", "/boot/grub2"):
        text = machine.text(folder + "/grubenv")
        if text and len(text) == 1024 and "\nnext_entry=" in text and "save_env next_entry" in (machine.text(folder + "/grub.cfg") or ""):
            text = re.sub(r"\nnext_entry=[^\n]*", "\nnext_entry=", text).rstrip("#")
            machine.put(folder + "/grubenv", text + "#" * (1024 - len(text)))


def _version(kernel, spec):
    """The version of a kernel, of its path; where its name does not tell, as on Arch, the newest."""
    pattern = trees.PARTS["distros"][spec["distro"]]["kernel"]
    versions = [each["version"] for each in spec["kernels"]]
    return next((version for version in versions if pattern.format(v=version) == os.path.basename(kernel)), versions[0])


def _update(reader, state, entry):
    """What the loader of this boot finds for the processor, or None."""
    about = state["cpu"]
    if not about["revisions"] or state["spec"].get("hypervisor", {}).get("is") in ("guest", "container"):
        return None
    version = entry["xen"] and (hypervisor.numbers(reader.link(entry["xen"]) or entry["xen"]) or True)
    initrds = initrd._Reader(reader, Processor(about["vendor"], about["signature"], about["pf_mask"], about["firmware"]), version)
    if entry["xen"]:
        option = entry["ucode"] or boot_reader.xen_ucode(entry["xen_args"])
        return initrd._xen(reader, entry, option, initrds)[1]
    if re.search(initrd.OFF, entry["args"] or ""):
        return None
    return initrds.first(entry["initrds"])[1]


def _load_early(machine, state, entry, update):
    """Offer it to every CPU that runs an older one."""
    took = [cpu for cpu in map(int, state["cpu"]["revisions"]) if update and state["cpu"]["revisions"][str(cpu)] < update.revision
            and processor.offer(machine, state, cpu, update.revision)]
    if took and not entry["xen"]:
        old, new = state["cpu"]["firmware"] & 0xffffffff, update.revision & 0xffffffff
        modern = [int(part) for part in re.findall(r"\d+", state["boot"]["kernel"])[:2]] >= [6, 7]  # as Linux words it since then, and before
        state["log"] += ["microcode: Current revision: 0x%08x" % new, "microcode: Updated early from: 0x%08x" % old] if modern else [
            "microcode: microcode updated early to revision 0x%x, date = %s" % (new, update.date)]


def _show(machine, state, entry, version):
    """Write /proc and /sys as this boot has them."""
    spec = copy.deepcopy(state["spec"])
    distro, root = trees.PARTS["distros"][spec["distro"]], Path(machine.root)
    said = spec.setdefault("hypervisor", {"is": "metal"})
    if said["is"] == "dom0" and not entry["xen"]:
        spec["hypervisor"] = {"is": "metal"}
        spec["cpu"] = dict((key, value) for key, value in spec["cpu"].items() if key != "vcpus")
    elif "running" in said:
        said["running"] = 0
    if state["cpu"]["revisions"]:
        spec["cpu"].pop("revisions", None)
        spec["cpu"]["revision"] = state["cpu"]["revisions"]["0"] & 0xffffffff
    spec = dict({"kernels": [], "boot": {"system": "none"}, "options": "ro quiet", "mounts": {"/": ["ext4", "/dev/sda2"]}}, **spec)
    spec.pop("tainted", None)
    running = next((kernel for kernel in spec["kernels"] if kernel["version"] == version), {})
    spec["late_loading"] = running.get("late_loading", spec.get("late_loading"))
    for place in ("proc", "sys", "run", "tmp"):
        shutil.rmtree(str(root / place), ignore_errors=True)
        (root / place).mkdir()
    (root / "tmp").chmod(0o1777)
    tree = Again(root)
    trees.processors(tree, spec)
    trees.kernel_words(tree, spec, distro, {"version": version})
    trees.hypervisor(tree, spec)
    for path, text in spec.get("files", {}).items():
        if path.startswith(("/proc/", "/sys/", "/run/")):
            tree.put(path, text)
    words = "placeholder " if entry["xen"] else "BOOT_IMAGE=%s " % trees.boot_path(spec, distro["kernel"], version) if entry["kernel"] else ""
    tree.put("/proc/cmdline", words + (entry["args"] or "") + "\n")
    tree.put("/proc/sys/kernel/random/boot_id", state["boot"]["id"] + "\n")


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

    def execute(self, argv, stdin=b"", seconds=None):
        """(exit status, stdout, stderr) of a command as sshd would run it. Lost, Unavailable; subprocess.TimeoutExpired after these seconds."""
        number = self.operation("exec")
        words = [_python(), "-IS", str(HERE / "namespace.py"), "enter", str(self._process()), *argv]
        cut = self.machine.state()["faults"].get("cut") == number
        output = subprocess.DEVNULL if cut else subprocess.PIPE
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, stderr=output, env=ENVIRONMENT, start_new_session=True)
        if cut:  # what was begun goes on, its words are lost
            with process.stdin:
                process.stdin.write(stdin)
            process.returncode = 0  # nobody waits for it
            raise Lost("the connection was closed in the middle of a command")
        try:
            stdout, stderr = process.communicate(stdin, seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if self.machine.state()["power"] != "on":
            raise Lost("the connection was closed: the host has gone down")
        return process.returncode, stdout, stderr

    def operation(self, kind):
        """Count an SSH operation (its number, from 1 on); boots the host where a boot is due. Lost where nobody answers."""
        with open(str(self.folder / "state/operations"), "ab", buffering=0) as stream:
            stream.write(kind[0].encode())
            number = stream.tell()
        faults = self.machine.state()["faults"]
        if faults.get("slow"):
            time.sleep(faults["slow"])
        gone = faults.get("unreachable")
        if gone is True or isinstance(gone, dict) and number > gone["after"]:
            raise Lost("Connection timed out")
        self._due()
        if self.machine.state()["power"] != "on":
            raise Lost("Connection timed out")
        return number

    def _due(self):
        """Boot where a boot is due: nothing runs beside the host that could do it, so whoever looks at it does."""
        if self.machine.state()["power"] == "boots":
            self._end()
            boot(self.machine)

    @property
    def operations(self):
        """How many SSH operations there were."""
        path = self.folder / "state/operations"
        return path.stat().st_size if path.exists() else 0

    def _process(self):
        """The process 1 of the host, begun where it is not there. Unavailable."""
        import fcntl  # pylint: disable=import-outside-toplevel
        with open(str(self.folder / "state/starts"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            pid = self._running()
            if pid:
                return pid
            collection = "/.simulated/collections/ansible_collections/fleet/microcode"
            mounts = [["/usr", "/.simulated/usr", "ro"], [str(HERE), "/.simulated/fleet", "ro"], [str(CHECKOUT), collection, "ro"],
                      [str(self.folder / "state"), "/.simulated/state", "rw"]] + [["/dev/" + name, "/dev/" + name, "ro"] for name in DEVICES]
            python = _python(self.machine.state()["spec"])
            if not python.startswith("/usr/"):
                mounts.append([_prefix(python), _prefix(python), "ro"])
            plan = {"root": str(self.folder / "root"), "name": self.name, "mounts": mounts, "argv": ["/bin/sh", "-c", INIT], "env": ENVIRONMENT}
            path = self.folder / "state/plan.json"
            path.write_text(json.dumps(plan))
            done = subprocess.run([_python(), "-IS", str(HERE / "namespace.py"), "start", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise Unavailable("this machine cannot simulate hosts: %s. A simulated host is a private root folder in a user namespace; a kernel that lets "
                                  "users make them (sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1, or "
                                  "kernel.apparmor_restrict_unprivileged_userns=0, or a "
                                  "container that is allowed to unshare) would do" % done.stderr.strip())
            pid = int(done.stdout)
            (self.folder / "init").write_text("%d %s" % (pid, _born(pid)))
            return pid

    def _running(self):
        """The process 1 of the host, or None where it is not there."""
        try:
            pid, born = (self.folder / "init").read_text().split()
        except FileNotFoundError:
            return None
        return int(pid) if _born(int(pid)) == born else None

    def _end(self):
        """End all that runs on the host."""
        pid = self._running()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while _born(pid):
                time.sleep(0.005)
        (self.folder / "init").unlink(missing_ok=True)

    # --- power ---

    def kill(self):
        """Cut the power."""
        self._end()
        with self.machine.change() as state:
            state["power"] = "off"

    def reset(self):
        """Press the reset button."""
        self.kill()
        boot(self.machine)

    power_cycle = reset

    def boot(self):
        """Switch on."""
        boot(self.machine)

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
        with self.machine.change() as state:
            state["faults"].update(faults)
            state["faults"] = dict((name, value) for name, value in state["faults"].items() if value is not None)

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
        return self._log("console.log")

    def _log(self, name):
        self._due()
        path = self.folder / "state" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def events(self):
        """Lines of the processor's own log, as dictionaries: see tests/lab/processor/README.md."""
        return [json.loads(line) for line in self._log("processor.log").splitlines()]

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
        Host(path.parent)._end()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: simulated.py FOLDER (a folder that is not there yet, for the hosts and an inventory.yml)")
    if Path(sys.argv[1]).exists():
        sys.exit("%s is there already; name a folder that is not there yet" % sys.argv[1])
    print("%d simulated hosts in %s" % (len(build_all(sys.argv[1])), sys.argv[1]))
