# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What early loading would do: the tool that builds initrds, and the revision that each kernel's initrd carries for this processor."""
import re

from . import boot, container, files, hypervisor, late
from .update import FormatError, hex8

TOOLS = ("dracut", "mkinitcpio", "mkinitfs", "genkernel", "booster")
NAMES = ("initrd.img-%s", "initramfs-%s.img", "initramfs-%s", "initrd-%s", "initrd-%s.img")  # Debian; Fedora, Arch; Alpine, Gentoo; SUSE
OFF = r"(^|\s)(dis_ucode_ldr|microcode=(\S*,)?dis_ucode_ldr)(?![^\s,=])"  # LNX-core
MOST = 32  # kernels looked at


def facts(host, processor, entry, xen, release, command_line):
    """(section early, pending): pending is the revision that the next boot would load, where it is newer than what runs.

    entry: from boot.default_entry(); xen: as amd.pick() takes it, of what runs now. kernels: version, initrd, image (another file that
    the microcode is in), revision, carries, running, default; newest first. carries: "update", "none" (nothing for this processor in what is read first), or
    None where that is not known. loads: the same of the next boot, whose loader may be switched off.
    """
    if entry:
        xen = bool(entry["xen"]) and (hypervisor.numbers(host.link(entry["xen"]) or entry["xen"]) or True)
    reader = _Reader(host, processor, xen)
    lines = [command_line, entry["args"] if entry else None]
    off = [re.search(OFF, line or "") is not None for line in lines]
    early = {"tool": _tool(host), "xen_ucode": None, "disabled": True in off or (None if None in lines else False),
             "kernels": _kernels(host, entry, release, reader)}
    loads = update = None
    if entry and xen:
        option = early["xen_ucode"] = entry["ucode"] or boot.xen_ucode(entry["xen_args"])
        loads, update = _xen(host, entry, option, reader)
    elif entry and lines[1] is not None:
        loads, update = ("none", None) if off[1] else _built_in(host, processor, early["kernels"], release) or reader.first(entry["initrds"])[:2]
    early["loads"] = loads
    if update and processor.revision is None:
        host.warn("the next boot has revision %s to load; which one runs is not known, and so not whether that is newer" % hex8(update.revision))
    pending = hex8(update.revision) if update and processor.revision is not None and update.revision > processor.revision else None
    if pending and processor.vendor == "AuthenticAMD" and processor.signature >= 0x800f00:
        host.warn("kernels and Xen that check digests of AMD's patches (AMD-SB-7033) load %s only if they know it: the next boot will show" % pending)
    return early, pending


def _built_in(host, processor, kernels, running):
    """(carries, None) where no initrd counts: the next boot's kernel has no loader, or this processor's file in itself (LNX-core); else None."""
    version = ([each["version"] for each in kernels if each["default"]] or [None])[0]
    text = late.config_text(host, version, bool(version) and version == running)
    if re.search(r"^# CONFIG_MICROCODE(_%s)? is not set" % {"GenuineIntel": "INTEL"}.get(processor.vendor, "AMD"), text, re.M):
        return "none", None
    built = (re.findall(r'^CONFIG_EXTRA_FIRMWARE="(.*)"', text, re.M) or [""])[0].split()
    if set(built) & set(files.names(processor)):
        host.warn("%s has microcode for this processor built in (CONFIG_EXTRA_FIRMWARE) and looks into no initrd: what it loads is not known" % version)
        return None, None
    return None


def _tool(host):
    """The tool that builds initrds here, or None."""
    script = host.text("/usr/sbin/update-initramfs")
    if script is not None:  # dracut has one of its own from Debian's 110 on
        return "dracut" if "dracut" in script else "initramfs-tools"
    found = [name for name in TOOLS if host.which(name)]
    if len(found) > 1:
        host.warn("%s are installed: which one builds the initrds is not known" % " and ".join(found))
    return found[0] if len(found) == 1 else None


def _kernels(host, entry, running, reader):
    """The installed kernels, each with its own initrd."""
    releases, images = set(host.names("/lib/modules") + host.names("/usr/lib/modules")), {}
    for path in ["/boot/" + name for name in host.names("/boot") if re.match(r"(vmlinuz|kernel)-(?!0-rescue)(?!.*\.(old|bak)$)", name)] + (
            [entry["kernel"]] if entry else []):
        info, name = host.stat(path), path.rsplit("/", 1)[1].split("-", 1)[-1]
        if info:
            images.setdefault((info.st_dev, info.st_ino), {})[name not in releases] = path, name  # links: the name that says the release
    mine = host.stat(entry["kernel"]) if entry else None
    kernels = [(boot.version_key(name), path, name, mine is not None and key == (mine.st_dev, mine.st_ino))
               for key, names in images.items() for path, name in [names[min(names)]]]
    if len(kernels) > MOST:
        host.warn("%d kernels are installed; only the %d newest were looked at" % (len(kernels), MOST))
    found = []
    for _key, path, name, default in sorted(kernels, reverse=True)[:MOST]:
        fits = ([each for each in releases if each == name or "/%s/" % each in path]
                or [each for each in releases if each.endswith("-" + name) or host.text("/lib/modules/%s/pkgbase" % each, 256) == name])
        own = next((each for each in ("/boot/" + form % name for form in NAMES) if host.exists(each)), None)
        if default:
            chain = entry["initrds"]
            own = own if own in chain else chain[-1] if chain else None
        else:  # generated menus name images of nothing but microcode first in every entry
            chain = [each for each in (entry["initrds"] if entry else ()) if re.search(r"ucode|-uc\.img$", each)] + [own]
        carries, update, source = reader.first(chain) if own or default else (None, None, None)
        if not entry and carries == "none" and any(host.exists("/boot/" + each) for each in files.IMAGES.get(reader.processor.vendor, ())):
            carries = None  # a loader may read such an image first
        version = fits[0] if len(fits) == 1 else name
        found.append({"version": version, "initrd": own, "image": source if source != own else None,
                      "revision": hex8(update.revision) if update else None, "carries": carries,
                      "running": version == running, "default": default})
    return found


class _Reader(object):
    """Reads what initrds carry for one processor, each file once."""

    def __init__(self, host, processor, xen):
        self.host, self.processor, self.xen, self.seen = host, processor, xen, {}

    def first(self, paths):
        """(carries, Update or None, path) of initrds as they are loaded: the first one with a microcode file counts (LNX-core, XEN)."""
        for path in paths:
            if path not in self.seen:
                self.seen[path] = self.read(path)
            carries, update, further = self.seen[path]
            if not further:
                return carries, update, path
        return "none", None, None

    def read(self, path, packed=True):
        """(carries, Update or None, whether the next initrd is looked into) of an initrd, of microcode that is not packed in one, or (None) of either."""
        stream = self.host.open(path)
        if stream is None:
            self.host.warn("%s could not be opened, so what it carries is not known (root may read it: become)" % path)
            return None, None, False
        with stream:
            try:
                for found in container.read(stream):
                    if found.vendor is None:
                        raise FormatError(found.problem)
                    if found.vendor == self.processor.vendor and packed in (None, bool(found.member)):
                        update, why = container.pick(found.vendor, found.updates, self.processor, self.xen, found.problem)
                        if update:
                            why = "; ".join(container.verify(found.vendor, stream, [update])[0].problems)
                        if why:
                            raise FormatError(why)
                        return "update" if update else "none", update, False
                stream.seek(max(0, stream.seek(0, 2) - 4096))  # Linux goes on only behind an archive that ends with its file
                return "none", None, self.xen or stream.read().rstrip(b"\0").endswith(b"TRAILER!!!")
            except (FormatError, OSError) as exc:
                self.host.warn("%s: what it carries for this processor is not known: %s" % (path, exc))
        return None, None, False


def _xen(host, entry, option, reader):
    """(carries, Update or None) of what Xen would load at the next boot."""
    if option == "scan":
        return reader.first(entry["initrds"])[:2]
    if option == "none" and (reader.xen is True or reader.xen > (4, 20)):
        host.warn("%s may have been built to scan for microcode without ucode=scan: what it loads is not known" % entry["xen"])
        return None, None
    if option and re.match(r"[-/\d]", option):
        modules = [entry["kernel"]] + entry["initrds"]
        number = int(option, 16 if "x" in option else 10) if option[0] != "/" else 0
        path = option if option[0] == "/" else (modules + [None] * number)[number] if number and -number < len(modules) else None
        packed = None if reader.xen is not True and reader.xen >= (4, 22) else False  # from 4.22 on it may be an early cpio too
        return reader.read(path, packed)[:2] if path else ("none", None)
    return option and "none", None
