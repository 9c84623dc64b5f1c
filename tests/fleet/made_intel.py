# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Intel microcode updates made up for tests and demos: right in form, with a payload that no processor would take.

A file is updates one after the other: update(...) + update(...).
"""
import struct

PAYLOAD = b"MADE-UP MICROCODE FOR TESTS. "
HEADER = struct.Struct("<IiI9I")  # hdrver revision date | signature cksum ldrver pf datasize totalsize metasize min_rev reserved
FIELDS = dict((name, 4 * place) for place, name in enumerate((
    "hdrver", "revision", "date", "signature", "cksum", "ldrver", "pf_mask", "datasize", "totalsize", "metasize",
    "min_revision", "reserved")))  # where in the header each word lies
IFS = 2  # header version of an In-Field Scan image


def words_sum(data):
    """Sum of the little-endian 32-bit words of data, modulo 2**32; an odd tail counts as if zeros followed it."""
    data = bytes(data) + bytes(-len(data) % 4)
    return sum(struct.unpack("<%dI" % (len(data) // 4), data)) & 0xffffffff


def update(signature=0x50654, pf_mask=0xb7, revision=0x2007006, date="2023-03-06", min_revision=0, data_size=None,
           extended=(), *, old=False, hdrver=1, ldrver=1, metasize=0, reserved=0, payload=PAYLOAD, header=None,
           checksum=0, table_checksum=0, entry_checksums=(), table=None):
    """The bytes of one update; all checksums are right unless something is added to them.

    data_size       bytes of data; None for as many as fill the smallest whole that has such a table and a multiple of
                    1024 bytes, at least 2048, as loaders want it; see fitting()
    extended        [(signature, pf_mask), ...] of the extended table; the vendor's tables repeat the header's signature first
    date            "YYYY-MM-DD", or the header's word as an int
    old             datasize and totalsize are 0 in the header, which means 2000 and 2048
    hdrver          IFS for an In-Field Scan image
    header          {field of FIELDS: word} written over the header before its checksum is made, "cksum" included
    checksum, table_checksum, entry_checksums (one for each of extended)
                    what to add to the right checksum
    table           bytes to stand in place of the extended table
    """
    if isinstance(date, str):
        year, month, day = date.split("-")
        date = int(month + day + year, 16)
    data_size = fitting(len(extended)) if data_size is None else data_size
    data = (payload * (data_size // len(payload) + 1))[:data_size]
    room = len(table) if table is not None else 20 + 12 * len(extended) if extended else 0
    sizes = (0, 0) if old else (data_size, 48 + data_size + room)
    if old and (data_size, room) != (2000, 0):
        raise ValueError("an update of the old form has 2000 bytes of data and no extended table")
    head = bytearray(HEADER.pack(hdrver, revision, date, signature, 0, ldrver, pf_mask, *sizes, metasize, min_revision, reserved))
    for name, word in (header or {}).items():
        struct.pack_into("<I", head, FIELDS[name], word & 0xffffffff)
    if "cksum" not in (header or {}):
        struct.pack_into("<I", head, FIELDS["cksum"], -words_sum(bytes(head) + data) + checksum & 0xffffffff)
    if table is None and extended:
        right = words_sum(head[12:20]) + words_sum(head[24:28])  # signature + cksum + pf_mask
        table = bytearray(struct.pack("<5I", len(extended), 0, 0, 0, 0))
        for place, (other, mask) in enumerate(extended):
            spoilt = entry_checksums[place] if place < len(entry_checksums) else 0
            table += struct.pack("<3I", other, mask, right - other - mask + spoilt & 0xffffffff)
        struct.pack_into("<I", table, 4, -words_sum(table) + table_checksum & 0xffffffff)
    return bytes(head) + data + bytes(table or b"")


def fitting(count=0, kib=None):
    """The data_size with which an update with count extended signatures is kib KiB long; the fewest KiB from 2 on if None."""
    table = 20 + 12 * count if count else 0
    return 1024 * (kib or max(2, -(-(96 + table) // 1024))) - 48 - table


def repair(data, offset=0):
    """The same bytes with the checksums of the update at offset made right for what its header says now."""
    data = bytearray(data)
    if len(data) < offset + 48:
        return bytes(data)
    size, total = struct.unpack_from("<II", data, offset + FIELDS["datasize"])
    size, total = (size, total) if size else (2000, 2048)
    struct.pack_into("<I", data, offset + FIELDS["cksum"], 0)
    end = min(offset + 48 + size, len(data))
    struct.pack_into("<I", data, offset + FIELDS["cksum"], -words_sum(data[offset:end]) & 0xffffffff)
    table, stop = offset + 48 + size, min(offset + total, len(data))
    if stop - table >= 20:
        main = words_sum(data[offset + 12:offset + 20]) + words_sum(data[offset + 24:offset + 28])
        for place in range(table + 20, stop - 11, 12):
            struct.pack_into("<I", data, place + 8, main - words_sum(data[place:place + 8]) & 0xffffffff)
        struct.pack_into("<I", data, table + 4, 0)
        struct.pack_into("<I", data, table + 4, -words_sum(data[table:stop]) & 0xffffffff)
    return bytes(data)


SIZES = (0, 1, 4, 20, 44, 47, 48, 976, 1000, 1024, 1996, 2000, 2001, 2004, 2048, 3072, 4096, 0x7fffffff, 0x80000000, 0xfffffc00,
         0xffffffd0, 0xffffffff)  # what a hostile header would say


def offsets(data):
    """Where the updates of a file begin, as far as their headers lead from one to the next."""
    found, place = [], 0
    while place + 48 <= len(data):
        found.append(place)
        size, total = struct.unpack_from("<II", data, place + FIELDS["datasize"])
        place += max(48, total if size else 2048)
    return found


def mutate(random, data):
    """The bytes with one thing changed that tells readers apart: random is a random.Random, data a file of whole updates."""
    data = bytearray(data)
    places = offsets(data)
    if not places:
        return bytes(data) + bytes(random.randrange(3000))
    place = random.choice(places)
    stop = ([other for other in places if other > place] + [len(data)])[0]
    size = struct.unpack_from("<I", data, place + FIELDS["datasize"])[0] or 2000
    table = place + 48 + size
    kind = random.randrange(18)
    if kind == 0:  # a bit anywhere
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif kind == 1:  # a bit of a header
        data[place + random.randrange(48)] ^= 1 << random.randrange(8)
    elif kind == 2:  # cut off, anywhere or at a size that looks right
        del data[random.choice((random.randrange(len(data)), random.randrange(len(data)) // 1024 * 1024, place + random.randrange(48))):]
    elif kind == 3:  # something behind
        data += random.choice((bytes(random.choice((1, 4, 16, 47, 48, 1024, 2048))), b"text " * random.randrange(300),
                               random.getrandbits(8 * 1500).to_bytes(1500, "little"), data[:random.randrange(len(data))]))
    elif kind in (4, 5, 6):  # a header field, with checksums to match or not
        field = random.choice(sorted(FIELDS))
        word = struct.unpack_from("<I", data, place + FIELDS[field])[0]
        word = random.choice((0, 1, 2, word + 1, word - 1, word ^ 0xff, word << 8, -word, random.choice(SIZES), random.getrandbits(32)))
        struct.pack_into("<I", data, place + FIELDS[field], word & 0xffffffff)
        data = bytearray(repair(data, place)) if kind > 4 else data
    elif kind in (7, 8):  # a size, with checksums to match
        field = random.choice(("datasize", "totalsize"))
        word = random.choice(SIZES + (size + 4, size - 4, size + 1024, size - 1024, stop - place + 1024, stop - place - 1024, len(data)))
        struct.pack_into("<I", data, place + FIELDS[field], word & 0xffffffff)
        data = bytearray(repair(data, place))
    elif kind in (9, 10, 11):  # the extended table, with checksums to match or not
        if stop - table >= 20:
            at = random.choice((table, random.randrange(table, stop - 3)))
            word = random.choice((0, 1, 0xffffffff, struct.unpack_from("<I", data, at)[0] + random.choice((-1, 1)), random.getrandbits(32)))
            struct.pack_into("<I", data, at, word & 0xffffffff)
            data = bytearray(repair(data, place)) if kind > 9 else data
        else:  # none there: let the end of the data be one
            struct.pack_into("<I", data, place + FIELDS["datasize"], max(0, size - random.choice((4, 20, 32, 44, 1024))))
            data = bytearray(repair(data, place))
    elif kind == 12:  # In-Field Scan
        data[place] = IFS
        data = bytearray(repair(data, place))
    elif kind == 13:  # an update twice, perhaps with other contents
        copy = bytearray(data[place:stop])
        if len(copy) > 100 and random.randrange(2):
            copy[60] ^= 1
            copy = bytearray(repair(copy))
        data[stop:stop] = copy
    elif kind == 14:  # zeros or others between updates
        data[stop:stop] = bytes(random.choice((4, 16, 48, 1024, 2048)))
    elif kind == 15 and stop - table >= 32:  # a word of the table and its checksum, so that only the word's own part is wrong
        at = random.randrange(table + 20, stop - 3, 4)
        for each, change in ((at, 1), (table + 4, -1)):
            struct.pack_into("<I", data, each, struct.unpack_from("<I", data, each)[0] + change & 0xffffffff)
    elif kind == 16 and size < 1 << 20:  # more or less data, with sizes and checksums to match
        more = random.choice((-1024, -4, -1, 1, 2, 4, 1024))
        data[place + 48:place + 48] = bytes(max(0, more))
        del data[place + 48:place + 48 + max(0, -more)]
        struct.pack_into("<II", data, place + FIELDS["datasize"], max(0, size + more), max(0, stop - place + more))
        data = bytearray(repair(data, place))
    else:  # a header word that only some look at, with checksums to match
        field, word = random.choice((("ldrver", 0), ("ldrver", 2), ("revision", 0), ("date", 0), ("date", 0x13092011), ("date", 0x01011994),
                                     ("date", 0x0a012020), ("signature", 0), ("pf_mask", 0), ("pf_mask", 0x100), ("metasize", 64),
                                     ("revision", 0x80000001), ("reserved", 5)))
        struct.pack_into("<I", data, place + FIELDS[field], word)
        data = bytearray(repair(data, place))
    return bytes(data)
