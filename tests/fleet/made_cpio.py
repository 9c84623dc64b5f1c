# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Early initrds made from names and bytes, as initramfs-tools, dracut and iucode_tool put them before the compressed one."""
import zlib

HEADER = 110  # bytes of a member before its name
INTEL = "kernel/x86/microcode/GenuineIntel.bin"
AMD = "kernel/x86/microcode/AuthenticAMD.bin"


def member(name, data=b"", mode=0o100644, magic="070701", fill=0):
    """One member; fill is a number of NUL bytes added to the name's own one, as dracut-cpio aligns data with."""
    raw = name.encode() + b"\0" * (1 + fill)
    check = sum(bytearray(data)) & 0xffffffff if magic == "070702" else 0
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), check)
    head = (magic + "".join("%08X" % field for field in fields)).encode() + raw
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def early(members, align=False, padding=512, magic="070701", trailer=True):
    """An uncompressed newc archive of {name: bytes} or [(name, bytes)], each folder before what is in it.

    align: data of each file at a multiple of 16, through a folder with a long name before it, as iucode_tool does.
    padding: the whole is filled with NUL bytes to a multiple of it.
    """
    archive, folders = b"", []
    for name, data in members.items() if isinstance(members, dict) else members:
        for depth in range(1, name.count("/") + 1):
            folder = "/".join(name.split("/")[:depth])
            if folder not in folders:
                folders.append(folder)
                archive += member(folder, mode=0o40755, magic=magic)
        if align:
            folder, _slash, file = name.rpartition("/")
            filler = "%s/.%s.align." % (folder, file[1:].rpartition(".")[0])
            head = -(-(HEADER + len(name) + 1) // 4) * 4
            archive += member(filler + "0123456789abcdef"[:-(len(archive) + HEADER + len(filler) + 1 + head) % 16], mode=0o40755, magic=magic)
        archive += member(name, data, magic=magic)
    if trailer:
        archive += member("TRAILER!!!", mode=0, magic=magic)
    return archive + b"\0" * (-len(archive) % (padding or 1))


def with_main(head, size=4096):
    """head, followed by what looks like a compressed initrd of about size bytes."""
    main = zlib.compressobj(9, zlib.DEFLATED, 31)
    noise = bytes(bytearray((i * i * 31 + (i >> 3)) & 0xff for i in range(size)))
    return head + main.compress(noise) + main.flush()
