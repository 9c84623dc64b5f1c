# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Boots of simulated hosts: what boot loader, initrd, kernel and Xen's options make of the files that a host has by then."""
import contextlib
import copy
import os
import re
import shutil
import sys
import time
import uuid
from collections import namedtuple
from pathlib import Path

from ansible_collections.fleet.microcode.plugins.module_utils import boot as boot_reader
from ansible_collections.fleet.microcode.plugins.module_utils import host as host_reader
from ansible_collections.fleet.microcode.plugins.module_utils import hypervisor, initrd
from ansible_collections.fleet.microcode.tests.fleet import trees

sys.path.insert(0, str(trees.HERE / "inside"))  # its modules know each other by their bare names, as inside a host
import initrds  # noqa: E402  pylint: disable=wrong-import-position,import-error
import machine as machine_module  # noqa: E402  pylint: disable=wrong-import-position,import-error
import processor  # noqa: E402  pylint: disable=wrong-import-position,import-error
import virsh  # noqa: E402  pylint: disable=wrong-import-position,import-error
import xen  # noqa: E402  pylint: disable=wrong-import-position,import-error
sys.path.remove(str(trees.HERE / "inside"))  # it also has names that others use

Processor = namedtuple("Processor", "vendor signature pf_mask revision")  # what the collection's readers of initrds ask for
BOOT_FILE = r"vmlinu|kernel|initr|xen-|.*(ucode|-uc)\b.*img$"  # how names of what an entry names begin
NO_MENU = "boot loaders found: none|which of 0 entries"  # what the collection's reader says then
PROMPTS = {  # what a boot loader says where it finds no menu
    "grub": ["GNU GRUB  version 2.06", "Minimal BASH-like line editing is supported.", "grub>"],
    "systemd-boot": ["No loader found. Configuration files in \\loader\\entries\\*.conf are needed."],
    "extlinux": ["No DEFAULT or UI configuration directive found!", "boot:"]}
UNFOUND = {  # where it does not find a file that the entry names
    "grub": "error: file `%s' not found.", "systemd-boot": "Error loading %s: Not Found", "extlinux": "Could not find kernel image: %s"}
GIVES_UP = {  # and where nothing can be booted without that
    "grub": ["error: you need to load the kernel first.", "", "Press any key to continue...", "", "  Failed to boot both default and fallback entries.", "",
             "Press any key to continue..."], "systemd-boot": [], "extlinux": ["boot:"]}
PANIC = "VFS: Unable to mount root fs on unknown-block(0,0)"


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
        if info is None and re.match(BOOT_FILE, name) and not any(name in self.names(base) for base in boot_reader.BASES):
            return os.stat_result((0o100644,) + (0,) * 9)
        return info


def start_xen(machine, state, options, update):
    """Xen comes up: its log begins anew, and no guest runs but those that dom0 starts by itself."""
    state["boot"].update(xen=state["spec"]["hypervisor"]["version"], xen_options=options)
    xen.boot(machine, state, state["boot"]["xen"], "placeholder " + options, update)  # a word stands where the file's name was (XEN, GRUB's 20_linux_xen)


def boot(machine):
    """Boot a host: the state says what came of it, the console what was said."""
    tried = []
    with contextlib.suppress(machine_module.Hung), machine.change() as state:
        while _boot(machine, state, tried):
            pass


def _boot(machine, state, tried):
    """One boot; whether it ended in a panic after which the machine starts anew by itself. tried: entries that did before, and would do so for ever."""
    state["boot"].update(count=state["boot"]["count"] + 1, id=str(uuid.uuid4()), since=time.time())
    state["units"], state["power"] = {}, "on"
    spec, kexec, reader = state["spec"], state["kexec"], host_reader.Host(machine.root)
    state["kexec"], missing, stops = None, [], False
    if kexec:
        entry = {"kernel": kexec["kernel"], "initrds": [kexec["initrd"]] * bool(kexec["initrd"]), "args": kexec["command_line"], "xen": None, "ucode": None}
    else:
        processor.reset(machine, state)
        entry, missing, stops = _load(machine, spec, reader)
    if stops or state["faults"].get("boots") is False:
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
        return _again(machine, state, entry, tried, panic)
    state["xen"] = None
    virsh.boot(state)
    _show(machine, state, entry, version)
    if entry["xen"]:
        start_xen(machine, state, entry["xen_args"] or "", update)
    processor.show(machine, state)
    machine.say("%s login:" % spec["name"])
    return False


# --- the boot loader ---

def _load(machine, spec, reader):
    """(the default entry, or None where it cannot be told what it is; those of its files that are not there; whether the loader gives up)."""
    entry, missing, stops, said = boot_reader.default_entry(reader), [], False, []
    if entry is None:
        entry = boot_reader.default_entry(Hopeful(machine.root))
        missing = [path for path in [entry["xen"], entry["kernel"]] + entry["initrds"] if path and not reader.exists(path)] if entry else []
    _forget_one_time(machine)
    system = spec.get("boot", {}).get("system")
    system = {"bls": "grub", "ostree": "grub"}.get(system, system)
    if missing:
        said, stops = [UNFOUND[system] % path for path in missing], True
        if system == "grub" and (entry["xen"] or entry["kernel"]) not in missing:  # it starts what it has
            said, stops = said + ["", "Press any key to continue..."], False
        said += GIVES_UP[system] * stops
    elif entry is None and system in PROMPTS and re.search(NO_MENU, "; ".join(reader.warnings)):
        said, stops = PROMPTS[system], True
    for text in said:
        machine.say(text)
    return entry, missing, stops


def _forget_one_time(machine):
    """GRUB's configuration takes next_entry out of the environment block before it boots it, where it has one that it can write."""
    for folder in ("/boot/grub", "/boot/grub2"):
        text = machine.text(folder + "/grubenv")
        if text and len(text) == 1024 and "\nnext_entry=" in text and "save_env next_entry" in (machine.text(folder + "/grub.cfg") or ""):
            text = re.sub(r"\nnext_entry=[^\n]*", "\nnext_entry=", text).rstrip("#")
            machine.put(folder + "/grubenv", text + "#" * (1024 - len(text)))


# --- what it starts ---

def _panic(reader, spec, entry, version, missing):
    """What is said last where Xen finds no kernel for dom0, or Linux nothing to begin with (XEN, LNX-core: init/do_mounts.c, init/initramfs.c); or nothing."""
    if entry["kernel"] in missing:
        return ["(XEN) ELF: not an ELF binary", "(XEN) Panic on CPU 0:", "(XEN) Could not set up DOM0 guest OS"]
    problem = ""
    if not missing:
        kernel = next((each for each in spec.get("kernels", ()) if each["version"] == version), {})
        images = [reader.read(path, 1 << 30) or b"" for path in entry["initrds"]]
        problem = initrds.unusable(images, kernel.get("main", "gzip") is not None) if images else None
    if problem is None:
        return []
    root = re.search(r"(?:^|\s)root=(\S+)", entry["args"] or "")
    return ["Initramfs unpacking failed: " + problem] * bool(problem) + [
        'VFS: Cannot open root device "%s" or unknown-block(0,0): error -6' % (root.group(1) if root else ""),
        'Please append a correct "root=" boot option; here are the available partitions:', "Kernel panic - not syncing: " + PANIC]


def _again(machine, state, entry, tried, panic):
    """Say so; whether the machine then starts anew with another entry. Where it does not start anew, or does with the same one, it hangs."""
    wait = re.findall(r"(?:^|\s)panic=(-?\d+)", entry["args"] or "") or ["0"]
    anew = "noreboot" not in (entry["xen_args"] or "").split() if entry["xen"] else wait[-1] != "0"
    last = "---[ end Kernel panic - not syncing: %s ]---" % PANIC
    if anew:
        last = "(XEN) Reboot in five seconds..." if entry["xen"] else "Rebooting in %s seconds.." % wait[-1]
    for text in panic + [last]:
        machine.say(text)
    anew = anew and entry not in tried
    tried.append(entry)
    state["power"] = "on" if anew else "hung"
    return anew


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
