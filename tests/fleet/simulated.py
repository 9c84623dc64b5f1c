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
import copy
import fcntl
import json
import os
import re
import shutil
import signal
import socket
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
import initrds  # noqa: E402  pylint: disable=wrong-import-position,import-error
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
PROMPTS = {  # what a boot loader says where it finds no menu
    "grub": ["GNU GRUB  version 2.06", "Minimal BASH-like line editing is supported.", "grub>"],
    "systemd-boot": ["No loader found. Configuration files in \\loader\\entries\\*.conf are needed."],
    "extlinux": ["No DEFAULT or UI configuration directive found!", "boot:"]}
LOST = {  # what it says where it does not find a file that the entry names, and when it gives up
    "grub": ["error: file `%s' not found."], "systemd-boot": ["Error loading %s: Not Found"], "extlinux": ["Could not find kernel image: %s", "boot:"]}
GIVES_UP = ["error: you need to load the kernel first.", "", "Press any key to continue...", "", "  Failed to boot both default and fallback entries.", "",
            "Press any key to continue..."]
PANIC = "VFS: Unable to mount root fs on unknown-block(0,0)"


class Unavailable(Exception):
    """This machine cannot simulate hosts; the text says why, and what would change that."""


class Again(trees.Tree):
    """A tree that is written over what is there, whoever put it there: nothing is written through its links to elsewhere. Programs that are simulated stay."""

    def at(self, path):
        place = Path(machine_module.Machine(root=str(self.root)).at(path, follow=False))
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def put(self, path, content="", mode=None):
        place = self.at(path)
        if not place.is_symlink():
            place.unlink(missing_ok=True)
            super().put(path, content, mode)

    def link(self, path, target):
        with contextlib.suppress(FileExistsError):
            super().link(path, target)


class Hopeful(host_reader.Host):
    """Takes kernels and initrds that are not there for ones that are, so that an entry is read whole."""

    def stat(self, path):
        info, name = super().stat(path), os.path.basename(path)
        if info is None and re.match(r"vmlinu|kernel|initr|xen-|.*(ucode|-uc)\b.*img$", name) and not any(name in self.names(base) for base in boot_reader.BASES):
            return os.stat_result((0o100644,) + (0,) * 9)
        return info


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


# --- boots ---

def _xen(machine, state, options, update):
    """Xen comes up: its log begins anew, and no guest runs but those that dom0 starts by itself."""
    state["boot"].update(xen=state["spec"]["hypervisor"]["version"], xen_options=options)
    xen.boot(machine, state, state["boot"]["xen"], "placeholder " + options, update)  # a word stands where the file's name was (XEN, GRUB's 20_linux_xen)


def boot(machine):
    """Boot a host: what its boot loader, its initrd and Xen's options say. The state says what came of it, the console what was said."""
    tried = []
    with contextlib.suppress(machine_module.Hung), machine.change() as state:
        while _boot(machine, state, tried):
            pass


def _boot(machine, state, tried):
    """One boot; whether it ended in a panic after which the machine starts anew by itself. tried: entries that did before; one of them would do so for ever."""
    state["boot"]["count"] += 1
    state["boot"]["id"] = str(uuid.uuid4())
    state["boot"]["since"] = time.time()
    state["units"], state["power"] = {}, "on"
    spec, kexec = state["spec"], state["kexec"]
    reader, hopeful = host_reader.Host(machine.root), Hopeful(machine.root)
    state["kexec"], missing = None, []
    if kexec:
        entry = {"kernel": kexec["kernel"], "initrds": [kexec["initrd"]] * bool(kexec["initrd"]), "args": kexec["command_line"], "xen": None, "ucode": None}
    else:
        processor.reset(machine, state)
        entry = boot_reader.default_entry(reader)
        if entry is None:
            entry = boot_reader.default_entry(hopeful)
            missing = [path for path in [entry["xen"], entry["kernel"]] + entry["initrds"] if path and not reader.exists(path)] if entry else []
        _forget_one_time(machine)
    system = {"bls": "grub", "ostree": "grub"}.get(spec.get("boot", {}).get("system"), spec.get("boot", {}).get("system"))
    menu = entry or system not in PROMPTS or not any(re.search("boot loaders found: none|which of 0 entries", text) for text in reader.warnings)
    stops = [] if menu else PROMPTS[system]
    if missing:
        stops = _unfound(machine, system, entry, missing)
    if stops or state["faults"].get("boots") is False:
        for text in stops:
            machine.say(text)
        state["power"] = "hung"
        return False
    if entry is None:
        machine.say("boot: %s" % "; ".join(reader.warnings))
        version, args = state["boot"]["kernel"], state["boot"]["options"]
        entry = {"kernel": None, "initrds": [], "args": args, "xen": None, "xen_args": None, "ucode": None}
    else:
        version = _version(entry["kernel"], spec)
    state["boot"].update(kernel=version, options=entry["args"] or "", xen=None, xen_options=None)
    state["log"] = ["Linux version %s" % version, "Command line: %s" % (entry["args"] or "")]
    machine.say("Loading Linux %s%s" % (version, " with Xen" if entry["xen"] else ""))
    update = None if missing else _update(reader, state, entry)
    _load_early(machine, state, entry, update)
    panic = _panic(reader, spec, entry, version, missing)
    if panic:
        return _panics(machine, state, entry, tried, panic)
    state["xen"] = None
    virsh.boot(state)
    _show(machine, state, entry, version)
    if entry["xen"]:
        _xen(machine, state, entry["xen_args"] or "", update)
    processor.show(machine, state)
    machine.say("%s login:" % spec["name"])
    return False


def _unfound(machine, system, entry, missing):
    """What a boot loader that gives up says of files that it does not find; nothing where it goes on, with what it says on the console already."""
    said = [LOST[system][0] % path for path in missing] + LOST[system][1:]
    if system == "grub" and (entry["xen"] or entry["kernel"]) not in missing:  # it starts what it has
        for text in said + ["", "Press any key to continue..."]:
            machine.say(text)
        return []
    return said + GIVES_UP * (system == "grub")


def _panic(reader, spec, entry, version, missing):
    """What Xen or Linux says where it finds no kernel for dom0, or no file system to begin with (XEN, LNX-core: init/do_mounts.c, init/initramfs.c); or nothing."""
    if entry["kernel"] in missing:
        return ["(XEN) ELF: not an ELF binary", "(XEN) Panic on CPU 0:", "(XEN) Could not set up DOM0 guest OS"]
    if not entry["initrds"]:
        return []
    images = [reader.read(path, 1 << 30) or b"" for path in entry["initrds"]]
    kernel = next((each for each in spec.get("kernels", ()) if each["version"] == version), {})
    found = None if missing else initrds.unusable(images, kernel.get("main", "gzip") is not None)
    if found is None and not missing:
        return []
    root = re.search(r"(?:^|\s)root=(\S+)", entry["args"] or "")
    return ["Initramfs unpacking failed: %s" % found] * bool(found) + [
        'VFS: Cannot open root device "%s" or unknown-block(0,0): error -6' % (root.group(1) if root else ""),
        'Please append a correct "root=" boot option; here are the available partitions:', "Kernel panic - not syncing: " + PANIC]


def _panics(machine, state, entry, tried, lines):
    """Say so, and whether the machine then starts anew with another entry; where it does not, it hangs."""
    wait = re.findall(r"(?:^|\s)panic=(-?\d+)", entry["args"] or "")
    if entry["xen"] and "noreboot" not in (entry["xen_args"] or "").split():
        lines = lines + ["(XEN) Reboot in five seconds..."]
    elif not entry["xen"] and wait and wait[-1] != "0":
        lines = lines + ["Rebooting in %s seconds.." % wait[-1]]
    else:
        lines = lines + ["---[ end Kernel panic - not syncing: %s ]---" % PANIC]
    for text in lines:
        machine.say(text)
    again = "eboot" in lines[-1] and entry not in tried
    tried.append(entry)
    state["power"] = "on" if again else "hung"
    return again


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
    images = initrd._Reader(reader, Processor(about["vendor"], about["signature"], about["pf_mask"], about["firmware"]), version)
    if entry["xen"]:
        option = entry["ucode"] or boot_reader.xen_ucode(entry["xen_args"])
        return initrd._xen(reader, entry, option, images)[1]
    if re.search(initrd.OFF, entry["args"] or ""):
        return None
    return images.first(entry["initrds"])[1]


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
        if (root / place).is_symlink():
            (root / place).unlink()
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

    def execute(self, argv, stdin=b"", seconds=None, terminal=False):
        """(exit status, stdout, stderr) of a command as sshd would run it. Lost, Unavailable; subprocess.TimeoutExpired after these seconds.

        terminal: the session has one, whose loss the command is told by SIGHUP (more of a terminal there is not).
        """
        number = self.operation()
        cut = self._state()["faults"].get("cut")
        process, wire = self._session(self._process(), argv)
        with wire:
            try:
                done = self._talk(process, stdin, seconds, number, cut)
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
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        with contextlib.suppress(OSError):  # it has ended already
            wire.sendall(word)
            wire.recv(1)  # it has been told
        process.returncode = 0  # nobody waits for it
        self.fault(cut=None)

    def _talk(self, process, stdin, seconds, number, cut):
        """(stdout, stderr) of a session; None where a fault cuts it."""
        if cut == number:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(stdin)
                process.stdin.flush()
            return None
        end = None if seconds is None else time.monotonic() + seconds
        while isinstance(cut, dict):  # until it comes to that point, or ends before
            try:
                return process.communicate(stdin, 0.05)
            except subprocess.TimeoutExpired:
                stdin = None
                if self._state()["faults"].get("cut") is True:
                    return None
                if end and time.monotonic() > end:
                    raise
        return process.communicate(stdin, seconds)

    def _session(self, pid, argv):
        """(a process that runs a command in a session of its own, socket of the connection to it): see namespace.py."""
        wire, end = socket.socketpair()
        with wire:
            try:
                return subprocess.Popen([_python(), "-IS", str(HERE / "namespace.py"), "enter", str(pid), str(wire.fileno()), *argv], stdin=subprocess.PIPE,
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
    if len(words) != 1:
        return "usage: simulated.py FOLDER (a folder that is not there yet, for the hosts and an inventory.yml), or simulated.py stop FOLDER"
    if Path(words[0]).exists():
        return "%s is there already; name a folder that is not there yet" % words[0]
    print("%d simulated hosts in %s" % (len(build_all(words[0])), words[0]))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
