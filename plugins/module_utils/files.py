# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Candidate files: microcode on the disk that could concern this processor; no other file is opened."""
import contextlib
import hashlib

from . import amd, container, distro
from .update import hex8

IMAGES = {"GenuineIntel": ("intel-ucode.img", "intel-uc.img"), "AuthenticAMD": ("amd-ucode.img", "amd-uc.img")}  # ready early cpio: Arch, Alpine; Gentoo
CAVEATS = "/usr/share/microcode_ctl/ucode_with_caveats/"
LIMIT = 64 << 20  # bytes of a file whose digest is taken; all of a vendor's microcode together has a third of it


def names(processor):
    """Where below a firmware folder the kernel and Xen look for this processor's microcode (LNX-core, XEN)."""
    if processor.signature is None:
        return ()
    family = (processor.signature >> 8 & 15) + (processor.signature >> 20 & 255 if processor.signature >> 8 & 15 == 15 else 0)
    if processor.vendor == "AuthenticAMD":
        return ("amd-ucode/microcode_amd%s.bin" % ("_fam%.2xh" % family if family >= 0x15 else ""),)
    model = processor.signature >> 4 & 15 | (processor.signature >> 12 & 0xf0)
    name = "intel-ucode/%02x-%02x-%02x" % (family, model, processor.signature & 15)
    return name, name + ".initramfs"  # Debian's name for files that must not be late-loaded (DEB-I)


def folders(host, release):
    """Firmware folders, first one wins for a late load; then RHEL's folders of files with caveats."""
    custom = host.text("/sys/module/firmware_class/parameters/path", 4096)
    bases = [custom] if custom and custom.startswith("/") else []
    for base in ("/lib/firmware", "/usr/lib/firmware"):
        bases += [base + "/updates/%s" % release, base + "/updates", base + "/%s" % release, base] if release else [base + "/updates", base]
    return bases + [CAVEATS + name for name in host.names(CAVEATS)]


def facts(host, processor, release, xen):
    """Section files: one dict for each file that holds, or by its name should hold, an update for this processor."""
    found, seen = [], set()
    bases = [base for base in folders(host, release) if host.is_dir(base)]
    # the kernel looks for a packed file only where no folder has a plain one (_request_firmware in its firmware loader)
    paths = [base + "/" + name + suffix for suffix in ("", ".zst", ".xz") for base in bases for name in names(processor)]
    for path in paths + ["/boot/" + name for name in IMAGES.get(processor.vendor, ())]:
        info = host.stat(path)
        if info and (info.st_dev, info.st_ino) not in seen:  # a merged /usr and links show one file twice
            seen.add((info.st_dev, info.st_ino))
            found.append(file(host, path, processor, xen))
    owners = distro.packages(host, [each["path"] for each in found])
    for each in found:
        each["package"] = owners.get(each["path"])
    return found


def file(host, path, processor, xen):
    """What one file holds for the processor. revision None: nothing where problem is None too, else not known.

    min_revision beside a problem is what firmware must bring before the file can be loaded.
    """
    caveat = path[len(CAVEATS):].split("/")[0] if path.startswith(CAVEATS) else None
    entry = {"path": path, "revision": None, "date": None, "min_revision": None, "problem": None, "sha256": _sha256(host, path), "package": None,
             "early_only": ".initramfs" in path or path.startswith("/boot/"), "caveat": caveat}
    stream = container.open_file(host, path) if entry["sha256"] else None
    if stream is None:
        entry["problem"] = "could not be read"  # open_file and _sha256 have warned why
        return entry
    with contextlib.closing(stream):
        picked, why = container.choose(stream, processor, xen)
    if picked:
        entry.update(revision=hex8(picked.revision), date=picked.date, min_revision=hex8(picked.min_revision))
    elif why:
        entry.update(problem=str(why), min_revision=hex8(why.min_revision) if isinstance(why, amd.FirmwareFirst) else None)
        host.warn("%s: %s" % (path, why))
    return entry


def _sha256(host, path):
    """The file's SHA-256 in hex, or None; what a plan pins, so that the last host loads what the first one did."""
    stream = host.open(path)
    if stream is None:
        return None
    digest, size = hashlib.sha256(), 0
    with stream:
        try:
            for data in iter(lambda: stream.read(1 << 16), b""):
                digest.update(data)
                size += len(data)
                if size > LIMIT:
                    host.warn("%s: more than %d bytes, far beyond what a vendor's file holds; not read" % (path, LIMIT))
                    return None
        except OSError as exc:
            host.warn("%s: %s" % (path, exc.strerror))
            return None
    return digest.hexdigest()
