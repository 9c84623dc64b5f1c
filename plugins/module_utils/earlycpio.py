# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Early cpio archives: what an initrd carries uncompressed before its compressed part (find_cpio_data in lib/earlycpio.c of Linux, and XEN)."""
import binascii
import struct

HEADER = 110  # bytes: 6 of magic, 13 fields of 8 hexadecimal digits
FIELDS = struct.Struct(">4xI16xI16xI4x")  # mode, file size, name size
BLOCK = 4096  # bytes of padding looked at in one step
MOST = 20000  # members and blocks of padding; Debian's largest initrd has some 3,000 modules
END = b"TRAILER!!!"


def find(stream, names):
    """({name: (offset, size)}, problem) of the first regular file of each name in the archives at the head of a seekable binary file.

    Stops at compressed data, or once all names are found; file data is passed over, not read. No early cpio: {}. problem: None, or
    why the walk ended before the archives did; what was found before it counts, since a kernel ends there too. OSError: reading failed.
    """
    end = stream.seek(0, 2)
    found, offset, whole = {}, 0, True
    need = HEADER + max(map(len, names)) + 1
    for _step in range(MOST):
        if end - offset <= HEADER or len(found) == len(names):
            break
        stream.seek(offset)
        head = stream.read(need)
        if head[:1] == b"\0":  # a header begins at a multiple of 4; zeros may stand before it
            stream.seek(offset)
            block = stream.read(BLOCK)
            offset += max(4, len(block) - len(block.lstrip(b"\0")) & ~3)
            continue
        if head[:6] not in (b"070701", b"070702"):
            break
        try:
            mode, size, length = FIELDS.unpack(binascii.unhexlify(head[6:HEADER]))
        except ValueError:
            return found, "the cpio header at offset %d is damaged; a kernel looks no further" % offset
        name = head[HEADER:HEADER + length].split(b"\0")[0]
        data = offset + HEADER + length + 3 & ~3
        following = data + size + 3 & ~3
        if following > end:
            return found, "the cpio member at offset %d is cut off: it ends at %d, the file at %d; a kernel looks no further" % (offset, following, end)
        for wanted in names:
            if name == wanted.encode() and mode >> 12 == 8 and wanted not in found:
                found[wanted] = data, size
        offset, whole = following, name == END
    else:
        return found, "more than %d cpio members and blocks of padding; not looked at beyond offset %d" % (MOST, offset)
    return found, None if whole or len(found) == len(names) else "the cpio archive that ends at offset %d has no trailer: cut off or damaged" % offset
