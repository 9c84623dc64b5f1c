# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Microcode files and initrds made of updates as parts.yml describes them. Runs on hosts too."""
import lzma

try:
    from . import made_amd, made_cpio, made_intel
except ImportError:  # beside a program
    import made_amd
    import made_cpio
    import made_intel


def intel_file(updates):
    """The bytes of Intel updates, one after the other."""
    found = b""
    for each in updates:
        others = [tuple(pair) for pair in each.get("extended", ())]
        found += made_intel.update(each["signature"], each["pf_mask"], each["revision"], str(each["date"]), each.get("min_revision", 0),
                                   made_intel.fitting(len(others), each.get("kib")), others)
    return found


def amd_file(updates):
    """The bytes of one container with AMD patches."""
    rows = dict((update["cpuid"], update["equiv"]) for update in updates)
    return made_amd.container(sorted(rows.items()), [
        made_amd.patch(update["patch"], update["equiv"], str(update["date"]), update.get("min_revision", 0), update["size"]) for update in updates])


def microcode(updates):
    """The bytes of a file that holds these updates, all of one vendor."""
    return amd_file(updates) if "patch" in updates[0] else intel_file(updates)


def members(updates):
    """[(name in an early initrd, bytes)] of these updates."""
    kinds = [(made_cpio.AMD, [update for update in updates if "patch" in update]), (made_cpio.INTEL, [update for update in updates if "patch" not in update])]
    return [(name, microcode(those)) for name, those in kinds if those]


def early(found, tool):
    """The uncompressed archives with these members, as the tool writes them."""
    if not found:
        return b""
    if tool == "dracut":  # one archive for all, and a marker in it by which lsinitrd knows it
        return _folder([("early_cpio", b"1\n")] + found)
    # Debian's two hooks put an archive each before what is there: of all in a folder by AMD's, by iucode_tool, which aligns the data, with Intel's
    return b"".join(made_cpio.early([each], align=True) if each[0] == made_cpio.INTEL else _folder([each]) for each in found)


def _folder(found):
    """An archive as cpio writes it of all in a folder, which it begins with."""
    archive = made_cpio.member(".", mode=0o40755) + made_cpio.early(found, padding=0)
    return archive + bytes(-len(archive) % 512)


def file(path, updates):
    """The bytes of a package's file: *.img is an early initrd, *.xz is compressed."""
    data = early(members(updates), "iucode_tool") if path.endswith(".img") else microcode(updates)
    return lzma.compress(data, check=lzma.CHECK_CRC32) if path.endswith(".xz") else data


def zstd_frame(data):
    """A zstd frame of one raw block (RFC 8878), so that no library is needed to make one."""
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + (len(data) << 3 | 1).to_bytes(3, "little") + data


def initrd(updates, tool, main="gzip"):
    """A whole initrd; a few hundred bytes stand for its compressed rest."""
    head = early(members(updates), tool)
    if main == "zstd":
        return head + zstd_frame(b"070701" + bytes(200))
    return made_cpio.with_main(head, 300) if main else head
