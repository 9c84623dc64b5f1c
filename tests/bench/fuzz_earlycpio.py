# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile input for the walk through early cpio archives: damaged headers, sizes that overflow, archives cut and spliced."""
import io
import random

from ansible_collections.fleet.microcode.plugins.module_utils import earlycpio
from ansible_collections.fleet.microcode.plugins.module_utils.update import FormatError
from ansible_collections.fleet.microcode.tests.fleet.made_cpio import AMD, INTEL, early, member, with_main

NUMBERS = (b"00000000", b"00000001", b"0000006E", b"7FFFFFFF", b"80000000", b"FFFFFFF0", b"FFFFFFFF",
           b"-0000001", b"+0000001", b"0x000001", b"0_000001", b"\0" * 8)
NAMES = (INTEL, AMD)


def bases():
    """Whole images from which damaged ones are made; all small, so that many can be tried."""
    plain, aligned = early({INTEL: b"intel" * 9}, padding=4), early([(AMD, b"amd" * 7), (INTEL, b"i" * 60)], align=True, padding=64, magic="070702")
    return [plain, aligned, with_main(plain, 64), aligned + b"\0" * 64 + plain, b"\0" * 8 + early({"etc/x": b"y"}, padding=0) + with_main(aligned, 64),
            member(AMD, b"x") + member(AMD, b"second") + member(INTEL, b"z", fill=5)]


def hostile(rng, images):
    """One input: an image with bits flipped, fields of a header replaced, cut, or with a piece of another one in it."""
    data = bytearray(rng.choice(images))
    for _time in range(rng.randrange(1, 4)):
        kind, place = rng.randrange(5), rng.randrange(len(data) or 1)
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind in (1, 2):
            head = bytes(data).find(b"07070", place)
            if head >= 0:
                field = head + 6 + 8 * rng.choice((1, 6, 6, 11, 11, rng.randrange(13)))
                data[field:field + 8] = rng.choice(NUMBERS)
        elif kind == 3:
            del data[place:]
        else:
            other = rng.choice(images)
            start = rng.randrange(len(other))
            data[place:place + rng.randrange(40)] = other[start:start + rng.randrange(200)]
    return bytes(data)


def fuzz(count, seed):
    """Walk through count inputs; returns how many were walked without a problem. Any exception but FormatError gets out."""
    rng, images, whole = random.Random(seed), bases(), 0
    for _number in range(count):
        data = hostile(rng, images)
        try:
            found, problem = earlycpio.find(io.BytesIO(data), NAMES)
        except FormatError:
            continue
        for name, (offset, size) in found.items():
            assert 110 < offset <= offset + size <= len(data) and data.rfind(name.encode(), 0, offset) >= 0
        whole += problem is None
    return whole
