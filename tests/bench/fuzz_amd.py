# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile input for the reader of AMD containers: damaged files, sections that lie about their length, tables and numbers made up."""
import io
import random
import struct

from ansible_collections.fleet.microcode.plugins.module_utils import amd
from ansible_collections.fleet.microcode.plugins.module_utils.update import FormatError, Processor
from ansible_collections.fleet.microcode.tests.fleet import made_amd

SIZES = (0, 1, 12, 15, 16, 17, 63, 64, 65, 80, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff)  # where arithmetic goes wrong
WORDS = (made_amd.MAGIC, 0, 1, 2, 0xa011, 0xa00f11, 0x0a0011de)
PROCESSORS = [Processor("AuthenticAMD", signature, None, runs) for signature in (0xa00f11, 0x100f43, 0x500f10, 0)
              for runs in (None, 0, 0x0a0011d9, 0x01000098, 0xffffffff)]


def bases():
    """Whole files from which damaged ones are made; all small, so that many can be tried."""
    milan = [(0xa00f11, 0xa011), (0xa00f12, 0xa012)]
    one = made_amd.container(milan, [made_amd.patch(0x0a0011d5, 0xa011, size=80), made_amd.patch(0x0a0011de, 0xa011, min_revision=0x0a0011d9, size=80)])
    old = made_amd.container([(0x100f43, 0x1043), (0x100f53, 0x1043), (0x500f10, 0x5010)],
                             [made_amd.patch(0x010000c8, 0x1043, 0x13092011, 12345, 96), made_amd.patch(0x05000029, 0x5010, size=66)])
    return [one, old, old + one, one + made_amd.container() + old, made_amd.container(milan * 20, [made_amd.patch(0x0a001238, 0xa012, size=64)] * 3)]


def hostile(rng, files):
    """One input: a file with bits flipped, words replaced, cut, or with a piece of another one in it; or bytes that begin like one."""
    data = bytearray(rng.choice(files))
    if rng.randrange(12) == 0:
        data[16:] = rng.getrandbits(8 * 120).to_bytes(120, "little")[:rng.randrange(121)]
    for _time in range(rng.randrange(1, 4)):
        kind, place = rng.randrange(5), rng.randrange(len(data) or 1)
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and len(data) >= 4:
            struct.pack_into("<I", data, min(place & ~3, len(data) - 4), rng.choice(SIZES + WORDS))
        elif kind == 2 and len(data) >= 12:
            struct.pack_into("<I", data, rng.choice((4, 8)), rng.choice(SIZES))
        elif kind == 3:
            del data[place:]
        else:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[place:place + rng.randrange(40)] = other[start:start + rng.randrange(200)]
    return bytes(data)


def fuzz(count, seed):
    """Read, verify and pick from count inputs; returns how many were found whole. Any exception but FormatError gets out."""
    rng, files, whole = random.Random(seed), bases(), 0
    for number in range(count):
        data = hostile(rng, files)
        stream = io.BytesIO(data)
        try:
            updates, problem = amd.read(stream)
            checked = amd.verify(stream, updates)
            assert [update._replace(problems=()) for update in checked] == [update._replace(problems=()) for update in updates]
            for update in updates:
                assert 12 < update.offset <= update.offset + update.size <= len(data)
                assert (update.signature is None) == (update.matching is None)
            for processor in PROCESSORS[number % 5::5]:
                picked, why = amd.pick(checked, processor, problem, number % 2 == 1)
                if picked:
                    assert why is None and not problem and picked in checked and not picked.problems and picked.signature == processor.signature
        except FormatError:
            continue
        whole += not problem and not any(update.problems for update in checked)
    return whole
