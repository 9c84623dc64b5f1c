# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile input for the reader of Intel microcode: damaged files, made-up bytes, tables and sizes that lie."""
import io
import random

from ansible_collections.fleet.microcode.plugins.module_utils import intel
from ansible_collections.fleet.microcode.plugins.module_utils.update import FormatError, Processor
from ansible_collections.fleet.microcode.tests.fleet import made_intel

PROCESSORS = [Processor("GenuineIntel", signature, mask, None) for signature in (0x50654, 0x906a4, 0) for mask in (None, 0, 1, 0x80)]


def bases():
    """Whole files from which damaged ones are made; all small, so that many can be tried."""
    pair = [(0x906a3, 0x80), (0x906a4, 0x80)]
    return [
        made_intel.update(data_size=976),
        made_intel.update(0x619, 0, 0xd2, "1997-06-06", data_size=2000, old=True),
        made_intel.update(0x906a3, 0x80, 0x43a, extended=pair, data_size=made_intel.fitting(2, 1)),
        made_intel.update(revision=5, data_size=976) + made_intel.update(revision=-3, pf_mask=1, data_size=976),
        made_intel.update(0x906a4, 0x40, 11, min_revision=4, data_size=976)
        + made_intel.update(0x906a3, 0x80, 0x43a, extended=pair * 3, data_size=made_intel.fitting(6, 1)),
    ]


def hostile(rng, files):
    """One input: mostly a damaged file, sometimes one damaged twice, or bytes that begin like an update."""
    kind = rng.randrange(20)
    if kind == 0:
        return rng.getrandbits(8 * 96).to_bytes(96, "little")[:rng.randrange(97)]
    if kind == 1:
        words = [1] + [rng.choice(made_intel.SIZES) for _word in range(11)]
        return made_intel.HEADER.pack(words[0], rng.randrange(-9, 9), *words[2:]) + bytes(rng.randrange(2100))
    data = made_intel.mutate(rng, rng.choice(files))
    return made_intel.mutate(rng, data) if kind < 6 else data


def fuzz(count, seed):
    """Read, verify and pick from count inputs; returns how many were found whole. Any exception but FormatError gets out."""
    rng, files, whole = random.Random(seed), bases(), 0
    for number in range(count):
        data = hostile(rng, files)
        stream = io.BytesIO(data)
        try:
            updates, problem = intel.read(stream)
            checked = intel.verify(stream, updates)
            assert [update._replace(problems=()) for update in checked] == [update._replace(problems=()) for update in updates]
            assert updates or problem
            for processor in PROCESSORS[number % 3 * 4:][:4]:
                picked, why = intel.pick(checked, processor, problem)
                assert picked is None or why is None and not problem and not any(update.problems for update in checked)
        except FormatError:
            continue
        whole += not problem and not any(update.problems for update in checked)
    return whole
