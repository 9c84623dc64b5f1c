# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the next boot loads: initrds made anew by the distribution's own tool, Xen's option, and the way back. Whatever interrupts it, the host boots.

The order for each initrd: a new one is made beside the old one, read back, and compared with it; the old one gets a second name, under which it is kept;
then the new one takes its name, in one step. Xen's option comes last: without it new initrds do no harm, with it old ones do none.
"""
import contextlib
import os
import re
import signal

from . import dracut, image, initramfs_tools, kept, mkinitcpio, xen_options
from .kept import Failed, Refused
from .. import boot, cpu, facts, files, hypervisor, initrd, journal
from ..host import Host
from ..update import Processor, hex8

BACKENDS = {"initramfs-tools": initramfs_tools, "dracut": dracut, "mkinitcpio": mkinitcpio}
SYSTEMS = {  # what boots is not simply the file that would be made
    "ostree": "ostree boots trees that are made as a whole: install the package there (rpm-ostree), and use 'rpm-ostree initramfs --enable'",
    "transactional-update": "the root file system is a snapshot that is never written to: use 'transactional-update initrd'",
    "proxmox-boot-tool": "proxmox-boot-tool copies initrds to file systems that are not mounted: use update-initramfs -u, which calls it",
    "network": "this host boots over the network: what its boot server sends must be changed there",
    "uki": "unified kernel images hold kernel and initrd in one signed file: make them with what made them",
}
RESERVE = 4 << 20  # bytes that stay free beside the initrd that is made
OPTIONS = ("/etc/default/grub", "/etc/kernel/cmdline", "/etc/sysconfig/grub", "/etc/extlinux.conf", "/etc/update-extlinux.conf", "/boot/extlinux.conf")


class Stopped(BaseException):
    """A signal asked this run to end; no error, so that no reader of facts takes it for one of its own."""


def _stop(number, _frame):
    raise Stopped("signal %d asked for the end; what the host boots is as it was, or as it shall be" % number)


@contextlib.contextmanager
def _signals():
    """SIGTERM and SIGHUP end a run as an error would."""
    former = [(number, signal.signal(number, _stop)) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    try:
        yield
    finally:
        for number, handler in former:
            signal.signal(number, handler)


# --- what is there ---

class _State(object):
    """This host's facts, and what it boots by default. Refused where that cannot be told."""

    def __init__(self, host):
        self.host, self.facts = host, facts.gather(host, ("early",))
        self.early, self.hypervisor, self.boot = [self.facts[name] or {} for name in ("early", "hypervisor", "boot")]
        self.entry = boot.default_entry(host) if self.facts["applicable"] else None
        self._check()
        seen = self.facts["cpu"]
        runs = cpu.number(seen["revision"])
        runs = runs - (1 << 32) if runs is not None and seen["vendor"] == cpu.VENDORS[0] and runs >> 31 else runs
        self.processor = Processor(seen["vendor"], cpu.number(seen["signature"]), cpu.number(seen["pf_mask"]), runs)
        self.xen = bool(self.entry["xen"]) and (hypervisor.numbers(host.link(self.entry["xen"]) or self.entry["xen"]) or True)
        self.backend = BACKENDS.get(self.early["tool"])
        self.kernels = self.early["kernels"]

    def _check(self):
        why = "; ".join(self.facts["warnings"][-3:]) or "nothing tells"
        system, role = self.boot.get("system"), self.hypervisor.get("role")
        if role == "guest":
            raise Refused("this is a guest (%s), whose processor takes no microcode from it; use the host that it runs on" % (
                self.hypervisor["type"] or "of an unknown hypervisor"))
        if not self.facts["applicable"]:
            raise Refused("it is not known whether this is a machine whose processor takes microcode from it: %s" % why)
        if self.facts["cpu"]["signature"] is None:
            raise Refused("which processor this is, is not known: %s; without it an initrd cannot be read back" % why)
        if system in SYSTEMS:
            raise Refused(SYSTEMS[system])
        if self.entry is None:
            raise Refused("what this host boots by default is not known, so it cannot be told what a change would do: %s" % (self.boot.get("why_not") or why))
        if system == "systemd-boot" and [path for path in self.entry["initrds"] if os.path.dirname(path) not in boot.BASES]:
            raise Refused("systemd-boot reads copies of initrds (%s), which kernel-install makes: use 'kernel-install add'" % self.entry["initrds"][-1])

    def need_tool(self):
        """Refused where initrds cannot be made here."""
        if self.backend is None:
            raise Refused("initrds of this host are made by %s; known are %s: install microcode with the distribution's package, as it says" % (
                self.early["tool"] or "a tool that is not known", ", ".join(sorted(BACKENDS))))

    def look(self, instead):
        """{version: kernel} and what the next boot loads, as Instead has them."""
        early = initrd.facts(instead, self.processor, self.entry, False, self.facts["kernel"], self.host.text("/proc/cmdline", 64 << 10))[0]
        return dict((kernel["version"], kernel) for kernel in early["kernels"]), early["loads"]

    def choose(self, wanted):
        """The kernels that are meant: those named, all, or the default one and the running one. Refused."""
        have = dict((kernel["version"], kernel) for kernel in self.kernels)
        unknown = [name for name in wanted if name not in have and name != "all"]
        if unknown:
            raise Refused("no kernel %s is installed; there are %s" % (" nor ".join(unknown), ", ".join(sorted(have)) or "none"))
        if "all" in wanted:
            return [kernel for kernel in self.kernels if kernel["initrd"] or kernel["default"]]
        return [kernel for kernel in self.kernels if (kernel["version"] in wanted if wanted else
                                                      kernel["default"] or kernel["running"] and kernel["initrd"])]


def _described(kernel):
    """What the result says of an initrd."""
    path = kernel["initrd"]
    size = os.stat(path).st_size if path and os.path.exists(path) else None
    return {"revision": kernel["revision"], "size": size, "sha256": path and kept.digest(path)}


# --- the checks ---

def _switched_off(state):
    """Refused where Linux is told not to load microcode at the next boot."""
    args = state.entry["args"]
    if args is None:
        raise Refused("the options that the boot loader gives Linux are known to the loader alone, so that they may switch microcode off; see to them by hand")
    found = re.search(initrd.OFF, args)
    if found:
        host = state.host
        paths = list(OPTIONS) + [folder + name for folder in ("/etc/default/grub.d/", "/boot/loader/entries/") for name in host.names(folder)]
        places = [path for path in paths if re.search(initrd.OFF.replace(r"(^|\s)", r"(^|[\s\"'=])").replace(r"(?![^\s,=])", r"(?![^\s,=\"'])"),
                                                      host.text(path) or "", re.M)]
        raise Refused("the next boot's options have %s, which switches Linux's loader off, so no initrd would count; it stands in %s: take it out "
                      "there and have the boot menu made anew" % (found.group(2), ", ".join(places) or "the boot loader's configuration"))


def _source(state, kernel, path, digest, wanted):
    """The file from which a new initrd for this kernel would have its microcode. Refused where that is not what was decided on."""
    host, backend = state.host, state.backend
    there = backend.sources(host, kernel["version"], files.names(state.processor))
    tool = state.early["tool"]
    if path and not any(os.path.exists(path) and os.path.samefile(path, each) for each in there):
        raise Refused("%s is no file that %s takes for this processor: that is %s; put it in its place with microcode_file, or name that one"
                      % (path, tool, ", ".join(there) or "none that is there (%s)" % files.names(state.processor)[0]))
    held = [files.file(host, each, state.processor, state.xen) for each in there]
    mine = [each for each in held if (os.path.samefile(each["path"], path) if path else each["revision"] == wanted)]
    if not mine or mine[0]["revision"] != wanted:
        raise Refused("no file that %s takes holds %s for this processor: %s; install the package that brings it, or put it there with microcode_file" % (
            tool, wanted, ", ".join("%s holds %s" % (each["path"], each["revision"] or each["problem"] or "nothing") for each in held) or "there is none"))
    if digest and mine[0]["sha256"] != digest.lower():
        raise Refused("%s has the SHA-256 %s, not %s: it is not the file that was decided on; put that one there, or plan again" % (
            mine[0]["path"], mine[0]["sha256"], digest.lower()))
    return mine[0]["path"]


def _room(state, todo):
    """Refused where a file system has no room for the initrds that are to be made there."""
    needed = {}
    for kernel in todo:
        path = os.path.realpath(kernel["initrd"])
        size = os.stat(path).st_size
        if kernel["carries"] != "update":  # it grows by what it did not have; the tool may take all processors' microcode
            size += sum(os.stat(os.path.join(folder, name)).st_size for folder in _folders(state, kernel) for name in os.listdir(folder)
                        if os.path.isfile(os.path.join(folder, name)))
        needed.setdefault(os.path.dirname(path), []).append(size * 11 // 10)
    for folder, sizes in needed.items():
        room = os.statvfs(folder)
        if room.f_flag & os.ST_RDONLY:
            raise Refused("%s is mounted read-only, so nothing can be put there; mount it read-write" % folder)
        free = room.f_bavail * room.f_frsize
        if free < sum(sizes) + RESERVE:
            raise Refused("%s has %d MiB free, and %d new initrds beside the old ones, which are kept, need %d; remove old kernels, or name fewer kernels"
                          % (folder, free >> 20, len(sizes), (sum(sizes) + RESERVE >> 20) + 1))


def _folders(state, kernel):
    return set(os.path.dirname(path) for path in state.backend.sources(state.host, kernel["version"], files.names(state.processor)))


def _checked(state, chosen, path, digest, wanted):
    """[(kernel, its source)] of the initrds that have to be made. Refused."""
    todo = [kernel for kernel in chosen if not image.carries(kernel, wanted)]
    if todo:
        state.need_tool()
    for kernel in todo:
        if kernel["initrd"] is None:
            raise Refused("kernel %s boots without an initrd, which alone could carry microcode; have its package or the distribution's tool make one"
                          % kernel["version"])
        if kernel["image"]:
            raise Refused("kernel %s is given the microcode of %s before its initrd, so that making the initrd anew changes nothing; the distribution's "
                          "package brings that file: install the newer one" % (kernel["version"], kernel["image"]))
        why = state.backend.why_not(state.host, state.processor.vendor, kernel)
        if why:
            raise Refused(why)
    made = [(kernel, _source(state, kernel, path, digest, wanted)) for kernel in todo]
    _room(state, todo)
    return made


# --- Xen's option ---

class _Option(object):
    """The change to what Xen is told: edit is None where the settings are so already, menus says whether a boot menu is made of them."""

    def __init__(self, state, tools, edit, known, wanted=True):
        self.state, self.tools, self.edit, self.known, self.wanted = state, tools, edit, known, wanted
        self.menus = state.boot.get("system") != "xen.efi"
        if self.menus:  # of the settings as they are, to see whether it is the one that is there
            made = xen_options.menu(state.host, tools)
            xen_options.compare(state.host, state.entry, made)
            if wanted and xen_options.is_set(boot.default_entry(kept.Instead(state.host, {made.path: made.text}))):
                self.edit = None

    def apply(self, noted):
        """Set it, or take it away. Failed, Refused: it is as it was."""
        state, edit, wanted = self.state, self.edit, self.wanted
        folder = kept.beside(os.path.realpath(next(path for path, _program in xen_options.MENUS if os.path.exists(path)))) if self.menus else None
        former = self.known["option"]
        if wanted and edit:
            self.known["option"] = {"path": edit.path, "before": edit.before, "after": edit.after}
            kept.write(self.known)
        noted.note("setting", path=edit and edit.path)
        try:
            if not self.menus:
                differs = xen_options.differences(state.entry, boot.default_entry(kept.Instead(state.host, {edit.path: edit.new})))
                if differs:
                    raise Failed("%s with that line changed would boot %s" % (edit.path, differs))
            if edit:
                xen_options.apply(edit)
            if self.menus:
                noted.note("making the menu")
                xen_options.put(state.host, state.entry, xen_options.menu(state.host, self.tools), wanted, folder)
        except BaseException:
            if edit:
                xen_options.apply(edit, back=True)
            self.known["option"] = former
            kept.write(self.known)
            raise
        noted.note("set", path=edit and edit.path)


def _option(state, tools, known):
    """The _Option that is to be set, or None. Refused."""
    if not state.xen:
        return None
    xen_options.check(state.entry, state.xen)
    if xen_options.is_set(state.entry):
        return None
    return _Option(state, tools, xen_options.add(state.host, state.boot.get("system"), state.facts["distro"]["family"], state.entry), known)


# --- the runs ---

def run(host, state, revision=None, path=None, digest=None, kernels=(), timeout=600, check=False):
    """Reach a state, see the module microcode_early_load for what is returned; "failed" is True where it was not reached.

    Refused, Busy, JournalError: nothing was changed.
    """
    with _signals():
        seen, tools, known = _State(host), Host(timeout=timeout), kept.record(host)
        if state == "absent":
            return _absent(seen, tools, known, kernels, check)
        wanted = hex8(cpu.number(revision))
        if wanted is None:
            raise Refused("revision: %s is no number such as 0x02007006" % revision)
        return _present(seen, tools, known, wanted, path, digest, kernels, check)


def _present(seen, tools, known, wanted, path, digest, kernels, check):
    host, chosen = seen.host, seen.choose(kernels)
    if not seen.xen:
        _switched_off(seen)
        if seen.hypervisor.get("xen"):
            host.warn("this host runs Xen, and the entry that it boots next is Linux alone: Xen's options were not looked at")
    if seen.boot.get("reboot_is_kexec"):
        host.warn("reboots of this host go through kexec, which passes by boot loader and reset: the processor keeps what it runs until a reset")
    if seen.boot.get("next_entry"):
        host.warn("the boot loader is told to boot %s once: what was looked at is that entry, not the one of later boots" % seen.boot["next_entry"])
    if not any(kernel["default"] for kernel in chosen) and not kernels:
        raise Refused("the kernel that is booted by default is not among those that were found; see the warnings")
    todo, option = _checked(seen, chosen, path, digest, wanted), _option(seen, tools, known)
    before = dict((kernel["version"], _described(kernel)) for kernel in chosen)
    left = _unfinished(host)
    if not todo and not option and left is None:
        if any(kernel["default"] for kernel in chosen) and seen.early["loads"] != "update":
            raise Refused("the initrd carries %s already, and yet the next boot would not load it: %s" % (
                wanted, "; ".join(host.warnings[-2:]) or "nothing tells why"))
        return _result(seen, seen, chosen, before, known, "the next boot loads %s already" % wanted if chosen else "no kernel was meant")
    if check:
        after = dict(before, **dict((kernel["version"], {"revision": wanted, "size": None, "sha256": None}) for kernel, _source in todo))
        return _result(seen, seen, chosen, before, known, "would make the initrds of %s anew%s" % (
            ", ".join(kernel["version"] for kernel, _source in todo) or "no kernel", ", and set %s" % xen_options.OPTION if option else ""),
            changed=bool(todo or option), now=after, option=option)
    problem = None
    try:
        with journal.run(host, "early_load", to=wanted, kernels=[kernel["version"] for kernel, _source in todo], option=bool(option)) as noted:
            _tidy(seen, tools, known, left)
            for kernel, source in todo:
                image.make(seen, noted, tools, kernel, source, wanted, known)
            if option:
                option.apply(noted)
    except (Failed, Refused, OSError, journal.JournalError) as exc:
        problem = _problem(exc)
    return _ended(seen, chosen, before, known, option, problem, wanted)


def _problem(exc):
    return "%s: %s" % (exc.filename, exc.strerror) if isinstance(exc, OSError) and exc.filename else str(exc)


def _unfinished(host):
    """Events of an earlier run that was interrupted, or None."""
    last = journal.last(host)
    return last["events"] if last and last["interrupted"] and last["action"] == "early_load" else None


def _tidy(seen, tools, known, left):
    """Remove what was kept of kernels that are gone and what an interrupted run left, and run hooks that it did not come to; left: its events."""
    have = set(kernel["version"] for kernel in seen.kernels)
    gone = [version for version in known["kernels"] if version not in have]
    for version in gone:
        entry = known["kernels"].pop(version)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry["kept"])
    if gone:
        kept.write(known)
    paths = [os.path.realpath(kernel["initrd"]) for kernel in seen.kernels if kernel["initrd"]] + [path for path, _program in xen_options.MENUS]
    kept.clean(set(os.path.dirname(path) + kept.FOLDER for path in paths), known)
    begun = dict((event["kernel"], event["initrd"]) for event in left or () if event["event"] == "replacing")
    for version in set(begun) & have - set(event["kernel"] for event in left or () if event["event"] == "replaced"):
        image.hooks(tools, version, begun[version])


def _ended(seen, chosen, before, known, option, problem, wanted):
    """What the module returns, from what is there now."""
    host = seen.host
    try:
        after = _State(host)
    except Refused as exc:
        return dict(_result(seen, seen, chosen, before, known, "%s; what is there now: %s" % (problem or "done", exc), changed=True), failed=True)
    now = dict((kernel["version"], kernel) for kernel in after.kernels)
    none = {"revision": None, "size": None, "sha256": None}
    described = dict((version, _described(now[version]) if version in now else none) for version in before)
    changed = described != before or after.entry != seen.entry
    if problem is None and wanted:
        wrong = [kernel["version"] for kernel in chosen if not image.carries(now.get(kernel["version"], kernel), wanted)]
        if wrong or any(kernel["default"] for kernel in chosen) and after.early["loads"] != "update":
            problem = "the next boot does not load %s, once read back: %s" % (wanted, "; ".join(after.facts["warnings"][-2:]) or "see the facts")
    text = problem or ("the next boot loads %s" % wanted if wanted else "the initrds and options from before are back; what runs stays until the next boot")
    return dict(_result(seen, after, chosen, before, known, text, changed=changed, now=described, option=option), failed=problem is not None)


def _absent(seen, tools, known, kernels, check):
    host, back, void, left = seen.host, [], [], _unfinished(seen.host)
    for kernel in seen.choose(kernels or ["all"]):
        entry = known["kernels"].get(kernel["version"])
        if entry:
            why = _void(seen, kernel, entry)
            (void if why else back).append((kernel, why))
    option = None
    if known["option"] and not kernels:
        edit = xen_options.remove(host, known["option"])
        if edit is None:
            host.warn("%s no longer has what was written there, so that Xen's options are left as they are" % known["option"]["path"])
        if edit or seen.boot.get("system") != "xen.efi" and xen_options.is_set(seen.entry):
            option = _Option(seen, tools, edit, known, wanted=False)
    for kernel, why in void:
        host.warn("kernel %s: the initrd from before is not put back: %s" % (kernel["version"], why))
    chosen = [kernel for kernel, _why in back + void]
    before = dict((kernel["version"], _described(kernel)) for kernel in chosen)
    if not back and not option and left is None:
        return _result(seen, seen, chosen, before, known, "nothing is set or kept that could be taken back")
    if check:
        after = dict(before, **dict((kernel["version"], {"revision": None, "size": os.stat(known["kernels"][kernel["version"]]["kept"]).st_size,
                                                         "sha256": known["kernels"][kernel["version"]]["sha256"]}) for kernel, _why in back))
        return _result(seen, seen, chosen, before, known, "would put back the initrds of %s%s" % (
            ", ".join(kernel["version"] for kernel, _why in back) or "no kernel", ", and take %s away" % xen_options.OPTION if option else ""),
            changed=bool(back or option), now=after, option=option)
    problem = None
    try:
        with journal.run(host, "early_load", to=None, kernels=[kernel["version"] for kernel, _why in back], option=bool(option)) as noted:
            _tidy(seen, tools, known, left)
            if option:
                option.apply(noted)
            known["option"] = None if not kernels else known["option"]
            kept.write(known)
            for kernel, _why in back:
                _back(seen, noted, tools, kernel, known)
    except (Failed, Refused, OSError, journal.JournalError) as exc:
        problem = _problem(exc)
    return _ended(seen, chosen, before, known, option, problem, None)


def _back(seen, noted, tools, kernel, known):
    """Put back the initrd that is kept of a kernel. Failed: the present one is there."""
    place = known["kernels"][kernel["version"]]["kept"]
    new = "%s/%s.%d.new" % (os.path.dirname(place), kernel["version"], os.getpid())
    try:
        kept.second_name(place, new)
        image.place(seen, noted, tools, kernel, new, None)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
    del known["kernels"][kernel["version"]]
    kept.write(known)
    os.unlink(place)


def _void(seen, kernel, entry):
    """Why what is kept must not take its place again, or None."""
    if kernel["initrd"] is None or os.path.realpath(kernel["initrd"]) != entry["initrd"]:
        return "the kernel boots with another file now (%s)" % kernel["initrd"]
    if kept.digest(entry["kept"]) != entry["sha256"]:
        return "%s is gone or was changed" % entry["kept"]
    if kept.digest(entry["initrd"]) not in (entry["ours"], entry["sha256"]):
        return "somebody made it anew since; install the older package or file, and have that revision loaded"
    path = image.kernel_file(seen, kernel)
    if not path or not entry["kernel"] or kept.digest(path) != entry["kernel"]["sha256"]:
        return "the kernel itself was replaced since, whose modules the old initrd does not have"
    return None


def _result(seen, after, chosen, before, known, text, changed=False, option=None, now=None):
    """What is the same in every answer."""
    described = now or before
    old = xen = seen.entry["xen_args"]
    if after is not seen:
        xen = after.entry["xen_args"]
    elif option and xen is not None:  # foretold
        xen = " ".join([word for word in xen.split() if word != xen_options.OPTION] + [xen_options.OPTION] * option.wanted)
    rows = [{"version": kernel["version"], "initrd": kernel["initrd"], "default": kernel["default"], "running": kernel["running"],
             "before": before[kernel["version"]], "after": described[kernel["version"]],
             "kept": known["kernels"].get(kernel["version"], {}).get("kept")} for kernel in chosen]
    return {"changed": changed, "failed": False, "msg": text, "tool": seen.early["tool"], "kernels": rows,
            "options": {"before": old, "after": xen}, "pending": after.facts["pending"], "loads": after.early["loads"],
            "reboot_needed": after.facts["pending"] is not None, "kept": sorted(each["kept"] for each in known["kernels"].values()),
            "diff": _diff(rows, old, xen, option)}


def _diff(rows, old, new, option):
    """Initrds, options and settings as two texts to compare."""
    texts = []
    for word, args in (("before", old), ("after", new)):
        lines = ["%s: revision %s, %s bytes, SHA-256 %s\n" % (
            row["initrd"], row[word]["revision"] or "none or not known", row[word]["size"] or "?", row[word]["sha256"] or "?") for row in rows]
        texts.append("".join(lines) + ("" if args is None else "Xen's options: %s\n" % args))
    found = [{"before_header": "what the next boot loads", "after_header": "what the next boot loads", "before": texts[0], "after": texts[1]}]
    if option and option.edit:
        found.append({"before_header": option.edit.path, "after_header": option.edit.path,
                      "before": (option.edit.old or b"").decode("utf-8", "replace"), "after": (option.edit.new or b"").decode("utf-8", "replace")})
    return found
