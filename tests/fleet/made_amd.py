# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""AMD microcode made from a few values: the layout of real containers around bytes that no processor takes."""
import struct

MAGIC, TABLE, PATCH = 0x00414d44, 0, 1
HEADER = struct.Struct("<IIHBBIIIHBBB3x8I")  # the 64 bytes before the data, which are never read


def data_code(date):
    """The BCD word MMDDYYYY of "YYYY-MM-DD"; an int is taken as the word itself."""
    if isinstance(date, int):
        return date
    year, month, day = date.split("-")
    return int(month + day + year, 16)


def patch(patch_id, processor_rev_id, date="2024-01-01", min_revision=0, size=3200, nb_dev_id=0, sb_dev_id=0,
          data_id=0x8004):
    """One patch, header and data; min_revision goes to offset 12, where older patches have a checksum."""
    head = HEADER.pack(data_code(date), patch_id, data_id, 0, 0, min_revision, nb_dev_id, sb_dev_id,
                       processor_rev_id, 0, 0, 0, *[0] * 8)
    return (head + bytes(bytearray(i & 0xff for i in range(max(0, size - len(head))))))[:size]


def section(kind, body, size=None):
    """A section: its type, its length (or the lie given as size), its bytes."""
    return struct.pack("<II", kind, len(body) if size is None else size) + body


def table(rows, end=True):
    """An equivalence table of (cpuid_signature, equiv_id) rows, with the empty row that ends it."""
    rows = [tuple(row) for row in rows] + [(0, 0)] * bool(end)
    return b"".join(struct.pack("<IIIHH", signature, 0, 0, equiv, 0) for signature, equiv in rows)


def container(equivalence=(), patches=(), end=True):
    """One container; a file may hold several, one after the other."""
    return (struct.pack("<I", MAGIC) + section(TABLE, table(equivalence, end))
            + b"".join(section(PATCH, body) for body in patches))
