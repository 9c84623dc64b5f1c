# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Initrds, as all tools that build them need them: what processor this is, what microcode there is for it, writing, listing."""
import io
import lzma
import os
import re
import stat
import struct
import zlib
from collections import namedtuple

from ansible_collections.fleet.microcode.plugins.module_utils import intel
from ansible_collections.fleet.microcode.tests.fleet import made_cpio, made_microcode

# bytes that the compressed rest has on a real machine, with all drivers or with few (LAB); here a few hundred stand for them, but so much has to be free
MAIN, FEW = 20 << 20, 6 << 20
Member = namedtuple("Member", "name mode data")
Chosen = namedtuple("Chosen", "update bundle number data")  # bundle and number say where it came from


def processor(machine):
    """(vendor, family, model, stepping) of the first CPU, as /proc/cpuinfo has it."""
    text = machine.text("/proc/cpuinfo") or ""
    found = [re.search(r"(?m)^%s\s*: (.*)$" % word, text) for word in ("vendor_id", "cpu family", "model", "stepping")]
    return tuple(match and (match.group(1) if number == 0 else int(match.group(1))) for number, match in enumerate(found))


def file_name(machine):
    """Where below the firmware folder this processor's microcode lies, or None."""
    vendor, family, model, stepping = processor(machine)
    if vendor == "GenuineIntel":
        return "intel-ucode/%02x-%02x-%02x" % (family, model, stepping)
    return "amd-ucode/microcode_amd%s.bin" % ("_fam%02xh" % family if family >= 0x15 else "") if vendor == "AuthenticAMD" else None


def content(machine, path):
    """The bytes of a file, unpacked where its name ends in .xz."""
    with open(machine.at(path), "rb") as stream:
        data = stream.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def names(machine, folder):
    """Files in a folder, sorted."""
    place = machine.at(folder)
    return sorted(each for each in os.listdir(place) if os.path.isfile(os.path.join(place, each))) if os.path.isdir(place) else []


def signature(machine):
    """What CPUID says of this Intel processor; None of another."""
    vendor, family, model, stepping = processor(machine)
    if vendor != "GenuineIntel":
        return None
    return (family - 15 << 20 if family > 15 else 0) | min(family, 15) << 8 | model >> 4 << 16 | (model & 15) << 4 | stepping


def newest(bundles):
    """[Chosen] of Intel files' bytes: for each signature and mask the update with the newest revision, in the order of signatures, as iucode_tool has them."""
    found = {}
    for bundle, data in enumerate(bundles, 1):
        offsets = []
        for each in intel.read(io.BytesIO(data))[0]:
            offsets += [each.offset] * (each.offset not in offsets)
            known = found.get((each.signature, each.pf_mask))
            if known is None or known.update.revision < each.revision:
                found[each.signature, each.pf_mask] = Chosen(each, bundle, len(offsets), data[each.offset:each.offset + each.size])
    return sorted(found.values(), key=lambda each: (each.update.signature, each.bundle, each.number))


def joined(chosen):
    """The bytes of all of these, each once."""
    parts = []
    for each in chosen:
        parts += [each.data] * (each.data not in parts)
    return b"".join(parts)


def main_part(files, compression):
    """The compressed rest: a cpio archive with these small files."""
    folders = sorted({"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)})
    archive = b""
    for name in [None] + sorted(folders + list(files)):
        archive += made_cpio.member(name or ".", files.get(name, b""), 0o100644 if name in files else 0o40755)
    archive += made_cpio.member("TRAILER!!!", mode=0)
    if compression == "zstd":
        return made_microcode.zstd_frame(archive)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(archive) + packer.flush()


def write(machine, path, data, mode=0o644, main=MAIN):
    """Write an initrd into the file of that name. OSError (ENOSPC) leaves it empty."""
    handle = os.open(machine.at(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(handle, "wb") as stream:
        machine.check_space(path, len(data) + main)
        stream.write(data)


def archives(data):
    """([[Member], ...] of the uncompressed archives of an initrd, [Member] of the compressed rest: none where it is absent or unknown)."""
    found, offset, current = [], 0, []
    while offset < len(data):
        if data[offset:offset + 6] not in (b"070701", b"070702"):
            if data[offset:offset + 1] == b"\0":
                offset += 4
                continue
            rest = unpacked(data[offset:])
            return found, archives(rest)[0][0] if rest and rest[:4] == b"0707" and len(rest) > 110 else []
        fields = [int(data[offset + 6 + place * 8:offset + 14 + place * 8], 16) for place in range(13)]
        name = data[offset + 110:offset + 110 + fields[11] - 1].rstrip(b"\0").decode()
        start = offset + 110 + fields[11] + 3 & ~3
        offset = start + fields[6] + 3 & ~3
        if name == "TRAILER!!!":
            found.append(current)
            current = []
        else:
            current.append(Member(name, fields[1], data[start:start + fields[6]]))
    return found + [current] * bool(current), []


def unusable(images, packed=True):
    """What the kernel says of images (bytes of each) that it cannot unpack, "" where it finds nothing to say and yet no /init, or None where all is well.

    packed: they have to bring a compressed rest, as all do but those that say otherwise (LNX-core: init/initramfs.c, lib/decompress_*.c).
    """
    data, offset, rest, inside = b"".join(image + bytes(-len(image) % 4) for image in images[:-1]) + images[-1], 0, not packed, False
    while offset < len(data):
        head = data[offset:offset + 110]
        if head[:6] in (b"070701", b"070702"):
            if len(head) < 110:
                break
            try:
                size, length = int(head[54:62], 16), int(head[94:102], 16)
            except ValueError:
                return "no cpio magic"
            name = data[offset + 110:offset + 110 + length].rstrip(b"\0")
            rest, inside = rest or name == b"init", name != b"TRAILER!!!"
            offset = (offset + 110 + length + 3 & ~3) + size + 3 & ~3
        elif inside and head[:1] != b"\0":
            return "no cpio magic"
        elif head[:1] == b"\0":
            offset += 1
        elif head[:2] == b"\x1f\x8b":
            packer = zlib.decompressobj(31)
            try:
                packer.decompress(data[offset:])
            except zlib.error:
                return "uncompression error"
            if not packer.eof:
                return "read error"
            rest, offset = True, len(data) - len(packer.unused_data)
        elif head[:4] == b"\x28\xb5\x2f\xfd":
            end = offset + 12 + (struct.unpack("<I", head[9:12] + b"\0")[0] >> 3) if len(head) >= 12 else len(data) + 1
            if end > len(data):
                return "ZSTD-compressed data is probably corrupt"
            rest, offset = True, end
        else:
            return "invalid magic at start of compressed archive"
    return None if rest and not inside and offset <= len(data) else ""


def carried(machine, path, name):
    """What an image of nothing but microcode has under that name; no bytes where it has not, or is not there."""
    if machine.text(path) is None:
        return b""
    return next((each.data for members in archives(content(machine, path))[0] for each in members if each.name == name), b"")


def unpacked(data):
    """What gzip, or a zstd frame of one raw block, holds; None for anything else."""
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return data[12:12 + (struct.unpack("<I", data[9:12] + b"\0")[0] >> 3)]
    return None


def listed(member, links=2):
    """A member as cpio -tv lists it; links: how many a folder has."""
    return "%s %3d root     root     %8d Jan  1  1970 %s" % (
        stat.filemode(member.mode), links if stat.S_ISDIR(member.mode) else 1, len(member.data), member.name)
