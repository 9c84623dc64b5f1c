# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""AMD microcode containers: what they hold, and which patch a processor would get (format and rules: LNX-amd, XEN amd.c)."""
import struct

from .update import FormatError, Update, bcd_date, hex8

MAGIC = b"DMA\0"
WORDS, ROW, PATCH = struct.Struct("<II"), struct.Struct("<I8xH2x"), struct.Struct("<II4xIIIH")
HEADER = 64  # bytes of a patch before its data
MOST = 8192  # containers, table rows and updates; all that AMD ever published are some hundred
SIZES = {0x14: 1824, 0x15: 4096, 0x16: 3458, 0x17: 3200, 0x19: 5568, 0x1a: 15296}  # Xen's limits; below family 15h Linux's too
FINAL = (0x01000098, 0x0100009f, 0x010000af)  # family 10h hangs when it is updated from these (XEN check_final_patch_levels)
UNREADABLE = (FormatError, OSError, ValueError, struct.error)


def _family(signature):
    return (signature >> 8 & 15) + (signature >> 20 & 255)


def _own(patch_id, processor):
    """The signature in a patch's own number, from family 17h on (LNX-amd ucode_rev_to_cpuid); None before."""
    if processor < 0x8000 or patch_id >> 24 != processor >> 12:
        return None
    return (patch_id & 0xfff00000) >> 4 | 0xf00 | (patch_id & 0xf000) >> 8 | patch_id >> 8 & 15


def _patch(data, offset, size, table):
    """[Update, ...] of one patch: for each row of the table that leads to it, and for the signature in its number."""
    code, patch_id, minimum, north, south, processor = PATCH.unpack(data)
    if processor < 0xa000 or (patch_id ^ minimum) & ~0xff:  # a checksum up to family 12h, a minimum from Zen 3 on (XEN check_min_rev)
        minimum = 0
    own, found, updates = _own(patch_id, processor), table.get(processor, []), []
    for signature in found + [own] * bool(own and own not in found) or [None]:
        problems, limit = [], 0 if signature is None else SIZES.get(_family(signature), 2048)
        if north or south:
            problems.append("for the chipset %s, %s alone: Linux takes neither it nor what follows" % (hex8(north), hex8(south)))
        if signature is None:
            problems.append("nothing loads it: the equivalence table does not lead to processor id 0x%04x" % processor)
        elif _family(signature) != 15 + (processor >> 12):
            problems.append("Linux does not load it: processor id 0x%04x is of another family" % processor)
        elif _family(signature) < 0x15 and size > limit:
            problems.append("nothing loads it: %d bytes, its family takes %d" % (size, limit))
        matching = None if signature is None else "table" if signature != own else "both" if own in found else "patch_id"
        updates.append(Update(signature, None, patch_id, bcd_date(code), size, minimum or None, offset, matching, tuple(problems)))
    return updates


def _table(data):
    """{processor id: [signature, ...]}; the first row of a signature counts, an empty one ends the table (XEN scan_equiv_cpu_table)."""
    table, seen = {}, set()
    for signature, processor in ROW.iter_unpack(data):
        if not signature:
            break
        if signature not in seen:
            seen.add(signature)
            table.setdefault(processor, []).append(signature)
    return table


def read(stream, start=0, length=None):
    """(updates, problem) of a seekable binary file from start on, length bytes or to its end; data is not read, see verify().

    updates: an Update for each signature of each patch in the order of the file; signature and matching are None where no
    processor is known to take a patch. problem: None, or what was found where reading had to stop. Memory stays under 4 MiB.
    """
    updates, table, offset, count = [], None, start, 0
    try:
        end = stream.seek(0, 2)
        end = end if length is None else min(end, start + length)
        if offset >= end:
            raise FormatError("empty")
        while offset < end:
            stream.seek(offset)
            head, where = stream.read(min(8 + PATCH.size, end - offset)), "offset %d: " % offset
            new = head[:4] == MAGIC
            if table is None and not new:
                raise FormatError("is no AMD container: it begins with 0x%s" % head[:4].hex())
            offset += 12 if new else 8
            if offset > end:
                raise FormatError(where + "cut off within the head of a section")
            kind, size = WORDS.unpack_from(head, 4 * new)
            if kind != 1 - new or (size % 16 if new else size < HEADER):
                raise FormatError(where + "damaged: type %d with %d bytes is no %s" % (kind, size, "equivalence table" if new else "patch"))
            if size > end - offset:
                raise FormatError(where + "cut off: %d bytes are there of %d" % (end - offset, size))
            found = [] if new else _patch(head[8:], offset, size, table)
            count += 1 + size // 16 if new else len(found)
            if count > MOST:
                raise FormatError(where + "more rows and patches than any real file has (%d)" % MOST)
            if new:
                stream.seek(offset)
                table = _table(stream.read(size))
            updates += found
            offset += size
    except UNREADABLE as exc:
        return updates, str(exc)
    return updates, None


def verify(stream, updates):
    """The same updates, wrong checksums added to their problems; from family 14h on there is none, only the processor can check."""
    checked = []
    for update in updates:
        if not update.problems and _family(update.signature) < 0x14:
            try:
                stream.seek(update.offset)
                words = struct.unpack("<%dI" % (update.size // 4), stream.read(update.size // 4 * 4))
                wrong = words[3] and (sum(words[16:]) - words[3]) & 0xffffffff and "wrong checksum of its data"
            except UNREADABLE as exc:
                wrong = str(exc)
            update = update._replace(problems=(wrong,) if wrong else ())
        checked.append(update)
    return checked


def _first(updates, among):
    """Those of among in the first container that has any: patches of one container follow each other without a gap."""
    chosen, end, last = [], None, None
    for update in updates:
        if chosen and update.offset not in (end, last):
            break
        end, last = update.offset + update.size + 8, update.offset
        chosen += [update] * (update in among)
    return chosen


class FirmwareFirst(str):
    """Why nothing is loaded, where it is for want of a revision that firmware has to bring; which one is min_revision, an int."""

    min_revision = None


def _newest(updates):
    return max(updates, key=lambda update: update.revision)


def pick(updates, processor, problem=None, xen=False):
    """(the Update that Linux, or Xen, would choose, None), (None, why it is not known), or (None, None): none is for the processor.

    updates and problem: what read() gave for one file or initrd. The one chosen may be no newer than what runs. Since late 2025
    a file may hold two patches for a processor (EntrySign); the newer then declares the revision that firmware must have brought,
    for want of which the reason is a FirmwareFirst.
    xen: its version as a tuple, True where not known.
    """
    runs, family = processor.revision, _family(processor.signature)
    fits = [update for update in updates if update.signature == processor.signature]
    wrong = [update.problems[0] for update in fits if update.problems]
    if wrong or problem:
        return None, "damaged; only an intact file helps: " + (wrong + [problem])[0]
    if not fits:
        return None, None
    if family == 0x10 and runs in FINAL:
        return None, "it runs %s, from which it must not be updated" % hex8(runs)
    if xen and _newest(fits).size > SIZES.get(family, 2048):
        return None, "its patch of %d bytes is longer than Xen takes for this family" % _newest(fits).size
    if xen and family == 0x1a and _newest(fits).size > 2048 and (xen is True or xen < (4, 20)):  # XEN, Misc setup for Fam1Ah processors
        return None, "only Xen from 4.20 on is known to take patches of %d bytes for this family" % _newest(fits).size
    by = "table" if xen or family < 0x17 else "patch_id"
    fits = [update for update in fits if update.matching in (by, "both")]
    if not fits:
        return None, "%s does not load it: the %s does not name this processor" % (("Xen", "equivalence table") if xen else ("Linux", "patch's number"))
    needs = [update for update in fits if update.min_revision]
    if needs and runs is None:
        return None, "it loads from revision %s on, and what runs is not known" % hex8(needs[-1].min_revision)
    ready = [update for update in fits if not update.min_revision or runs >= update.min_revision]
    if not ready:
        why = FirmwareFirst("it loads from revision %s on, which newer firmware brings; %s runs" % (hex8(needs[-1].min_revision), hex8(runs)))
        why.min_revision = needs[-1].min_revision
        return None, why
    if xen:
        choices = [_newest(ready), _newest(fits)]
    else:  # newer kernels choose by what firmware brought, older ones do not; early loading takes the last, late loading the newest
        ready, fits = _first(updates, [update for update in ready if update.min_revision] or ready), _first(updates, fits)
        choices = [ready[-1], _newest(ready), fits[-1], _newest(fits)]
    results = set(runs if runs is not None and (update not in ready or update.revision < runs) else update.revision for update in choices)
    if len(results) > 1:
        several = [hex8(update.revision) + (" from %s on" % hex8(update.min_revision) if update.min_revision else "") for update in set(choices)]
        return None, "it holds several patches for this processor, and not every version of %s takes the same: %s" % (
            "Xen" if xen else "Linux", ", ".join(sorted(several)))
    return choices[0], None
