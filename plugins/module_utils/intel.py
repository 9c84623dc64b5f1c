# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Intel microcode: what a file holds, whether it is whole, which update a processor would get.

The checks are the loaders' own (LNX-intel and XEN intel.c, *_sanity_check); what one of the two refuses is a problem.
"""
import struct
from collections import OrderedDict, namedtuple

from .update import FormatError, Update, bcd_date, hex8

HEADER, TABLE, EXTENDED = struct.Struct("<IiIIIIIIIIII"), struct.Struct("<IIIII"), struct.Struct("<III")
Header = namedtuple("Header", "version revision date signature checksum loader pf_mask data total metadata min_revision reserved")
MOST = 4096  # signatures in a table or a file; all that Intel ever published are fewer
LARGEST = 16 << 20  # bytes of an update; Intel's largest file has 3.3 MB (DEB-I)
CHUNK = 1 << 15
LANES = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * (CHUNK // 8), "little")
UNREADABLE = (FormatError, OSError, ValueError)
DAMAGE = "; Linux then loads nothing from the file, Xen what comes before at most; it takes an intact file"


def _at(stream, offset, size):
    """Exactly size bytes from offset on."""
    stream.seek(offset)
    data = stream.read(size)
    if len(data) < size:
        raise FormatError("%d bytes are missing from offset %d on" % (size - len(data), offset + len(data)))
    return data


def _header(data):
    """(Header, bytes of data, bytes of the whole update): no data size stands for 2000 and 2048."""
    head = Header(*HEADER.unpack(data))
    return head, head.data or 2000, head.total if head.data else 2048


def _table(stream, offset, size):
    """[(signature, pf_mask, checksum), ...] of an extended table."""
    count = TABLE.unpack(_at(stream, offset, TABLE.size))[0] if size >= TABLE.size else 0
    if size != TABLE.size + count * EXTENDED.size or count > MOST:
        raise FormatError("extended table of %d bytes counts %d signatures" % (size, count))
    data = _at(stream, offset + TABLE.size, count * EXTENDED.size)
    return [EXTENDED.unpack_from(data, place) for place in range(0, len(data), EXTENDED.size)]


def _sum(stream, offset, size):
    """Sum of 32-bit words modulo 2**32; a chunk's words are 64-bit lanes of one integer, which is folded in halves."""
    total = 0
    for place in range(offset, offset + size, CHUNK):
        lanes = int.from_bytes(_at(stream, place, min(CHUNK, offset + size - place)), "little")
        lanes, bits = (lanes & LANES) + (lanes >> 32 & LANES), CHUNK * 4
        while bits >= 64:
            lanes, bits = (lanes & (1 << bits) - 1) + (lanes >> bits), bits // 2
        total += lanes
    return total & 0xffffffff


def _strange(data):
    """What these bytes are that do not begin an update."""
    if not data.strip(b"\0"):
        return "zeros"
    if not data.strip(bytes(bytearray(range(32, 127))) + b"\t\r\n"):
        return "text"
    version = int.from_bytes(data[:4], "little")
    return "an In-Field Scan image (header version 2)" if version == 2 else "header version %s, not 1" % hex8(version)


def _entry(stream, offset, head, data, total):
    """An Update for each signature, the header's own first."""
    found, problems, table = [(head.signature, head.pf_mask)], [], total - HEADER.size - data
    if head.loader != 1:
        problems.append("loader version is %d, not 1" % head.loader)
    if total % 1024 or data % 4:
        problems.append("sizes %d and %d are no multiples of 4 and 1024" % (data, total))
    if not head.data and head.total not in (0, total):
        problems.append("total size %d without a data size: only Linux takes it for %d" % (head.total, total))
    if table < 0:
        problems.append("%d bytes of data are too many for %d in all" % (data, total))
    elif table:
        try:
            found += [entry[:2] for entry in _table(stream, offset + HEADER.size + data, table)]
        except FormatError as exc:
            problems.append(str(exc))
    rest = head.revision, bcd_date(head.date), total, head.min_revision or None, offset, None, tuple(problems)
    return [Update(*(entry + rest)) for entry in OrderedDict.fromkeys(found)]  # tables repeat the header's signature


def read(stream, start=0, length=None):
    """(updates, problem) of a seekable binary file, from start on, length bytes or to its end; no data is read.

    updates: an Update for each signature, in the order of the file. problem: None, or where reading had to stop and why.
    """
    updates, number, offset = [], 0, start
    try:
        end = stream.seek(0, 2)
        end = end if length is None else min(end, start + length)
        if offset >= end:
            raise FormatError("empty")
        while offset < end:
            number += 1
            where = "update %d at offset %d " % (number, offset)
            first = _at(stream, offset, min(HEADER.size, end - offset))
            if first[:4] != b"\1\0\0\0":
                raise FormatError(where + "is not microcode: " + _strange(first))
            if len(first) < HEADER.size:
                raise FormatError(where + "is cut off after %d bytes" % len(first))
            head, data, total = _header(first)
            if not HEADER.size <= total <= end - offset:
                raise FormatError(where + "is cut off or damaged: its header (signature %s, revision %s) says %d bytes, %d are left"
                                  % (hex8(head.signature), hex8(head.revision), total, end - offset))
            updates += _entry(stream, offset, head, data, total)
            if len(updates) > MOST:
                raise FormatError(where + "is beyond %d signatures, no real file has so many" % MOST)
            offset += total
    except UNREADABLE as exc:
        return updates, str(exc) + (DAMAGE if updates else "")
    return updates, None


def verify(stream, updates):
    """The same updates; those without problems are given one for each wrong checksum. This reads the data."""
    wrong = {}
    for update in updates:
        if not update.problems and update.offset not in wrong:
            wrong[update.offset] = tuple(_wrong(stream, update.offset))
    return [update._replace(problems=wrong.get(update.offset, update.problems)) for update in updates]


def _wrong(stream, offset):
    """Problems of an update's checksums: header and data, extended table, each signature there."""
    try:
        head, data, total = _header(_at(stream, offset, HEADER.size))
        table = offset + HEADER.size + data
        if total > LARGEST:
            raise FormatError("%d bytes, far more than any update of Intel's has; its checksum was not taken" % total)
        if _sum(stream, offset, HEADER.size + data):
            yield "wrong checksum of header and data"
        if table < offset + total:
            if _sum(stream, table, offset + total - table):
                yield "wrong checksum of the extended table"
            main = head.signature + head.pf_mask + head.checksum
            for entry in _table(stream, table, offset + total - table):
                if (sum(entry) - main) & 0xffffffff:
                    yield "wrong checksum of extended signature %s" % hex8(entry[0])
    except UNREADABLE as exc:
        yield str(exc)


def pick(updates, processor, problem=None):
    """(the Update that Linux and Xen would choose, None), (None, why it is not known), or (None, None): none is for it.

    updates, problem: of one file, from read(). What runs now is not compared. A mask not known is taken for one that the file has.
    """
    mine, picked = [update for update in updates if update.signature == processor.signature], []
    for mask in [1 << bit >> 1 for bit in range(9)] if processor.pf_mask is None else [processor.pf_mask]:
        fits = [update for update in mine if update.pf_mask & mask or update.pf_mask == mask]
        revisions = sorted(set(update.revision for update in fits))
        if revisions[1:] and revisions[0] < 0:  # unsigned in LNX-intel, the later one in XEN compare_revisions
            return None, "one of several revisions is pre-production (negative): Linux and Xen choose differently"
        picked += [update for update in fits if update.revision == revisions[-1]][:1]
    broken = [update for update in updates if update.problems]
    if picked and broken and not problem:
        problem = "update at offset %d: %s%s" % (broken[0].offset, broken[0].problems[0], DAMAGE)
    if len(set(update.revision for update in picked)) > 1 and not problem:
        problem = "which revision depends on the platform mask, not known here: " + ", ".join(sorted(set(
            "%s for 0x%02x" % (hex8(update.revision), update.pf_mask) for update in picked)))
    return (None, problem) if problem or not picked else (picked[0], None)
