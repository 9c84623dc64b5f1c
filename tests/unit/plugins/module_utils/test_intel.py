# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The reader of Intel microcode, on updates that are made up."""
import datetime
import io
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import intel
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor, Update
from ansible_collections.fleet.microcode.tests.bench import fuzz_intel
from ansible_collections.fleet.microcode.tests.fleet.made_intel import FIELDS, IFS, SIZES, fitting, mutate, update

PAIR = [(0x906a3, 0x80), (0x906a4, 0x80)]
SKYLAKE = Update(0x50654, 0xb7, 0x2007006, "2023-03-06", 2048, None, 0, None, ())


def read(data, *place):
    return intel.read(io.BytesIO(data), *place)


def verified(data):
    """(updates with their checksums looked at, problem)"""
    stream = io.BytesIO(data)
    updates, problem = intel.read(stream)
    return intel.verify(stream, updates), problem


def problems(data):
    """Everything that is found wrong with a file."""
    updates, problem = verified(data)
    return [text for each in updates for text in each.problems] + [problem] * bool(problem)


def pick(data, signature=0x50654, pf_mask=0x80):
    updates, problem = verified(data)
    return intel.pick(updates, Processor("GenuineIntel", signature, pf_mask, None), problem)


def revision(data, **processor):
    picked, why = pick(data, **processor)
    assert why is None
    return picked and picked.revision


# what a file holds

def test_one_update():
    assert verified(update()) == ([SKYLAKE], None)


def test_every_field():
    data = update(0x806f8, 0x10, 0x2c000410, "2025-05-29", min_revision=0x2c0001d0, data_size=fitting(0, 3), metasize=64, reserved=7)
    assert verified(data) == ([Update(0x806f8, 0x10, 0x2c000410, "2025-05-29", 3072, 0x2c0001d0, 0, None, ())], None)


def test_extended_table_gives_an_update_for_each_signature():
    updates, problem = verified(update(0x906a3, 0x80, 0x43a, extended=[(0x906a4, 0x40), (0xb06a2, 0x80)], min_revision=4))
    assert problem is None
    assert [(each.signature, each.pf_mask) for each in updates] == [(0x906a3, 0x80), (0x906a4, 0x40), (0xb06a2, 0x80)]
    assert set(each[2:] for each in updates) == {(0x43a, "2023-03-06", 2048, 4, 0, None, ())}


def test_signature_that_the_table_repeats_is_listed_once():
    updates = verified(update(0x906a3, 0x80, extended=PAIR))[0]
    assert [(each.signature, each.pf_mask) for each in updates] == PAIR


def test_several_updates_in_the_order_of_the_file():
    data = update(revision=7) + update(0x906a3, 0x80, extended=PAIR, data_size=fitting(2, 4)) + update(revision=5)
    updates, problem = verified(data)
    assert problem is None
    assert [(each.signature, each.revision, each.offset, each.size) for each in updates] == [
        (0x50654, 7, 0, 2048), (0x906a3, 0x2007006, 2048, 4096), (0x906a4, 0x2007006, 2048, 4096), (0x50654, 5, 6144, 2048)]


def test_header_without_sizes_means_2000_and_2048():
    updates, problem = verified(update(0x619, 0, 0xd2, "1997-06-06", data_size=2000, old=True) * 2)
    assert problem is None
    assert [(each.pf_mask, each.size, each.offset, each.problems) for each in updates] == [(0, 2048, 0, ()), (0, 2048, 2048, ())]


def test_pre_production_revision_is_negative():
    assert read(update(revision=-3))[0][0].revision == -3


def test_date_that_is_none():
    assert read(update(date=0x13092011))[0] == [SKYLAKE._replace(date=None)]


def test_part_of_a_file():
    data = b"cpio" * 40 + update(revision=5) + update(revision=6) + bytes(99)
    updates, problem = read(data, 160, 4096)
    assert problem is None and [(each.revision, each.offset) for each in updates] == [(5, 160), (6, 2208)]
    assert intel.verify(io.BytesIO(data), updates) == updates
    assert read(data, 160, 2048) == (updates[:1], None)
    assert "says 2048 bytes, 2047 are left" in read(data, 160, 2047)[1]
    assert read(data[:4000], 160, 9999) == (updates[:1], read(data[:4000], 160)[1])  # not more than there is


# what is no microcode, or not whole

@pytest.mark.parametrize("data,text", [
    (b"", "empty"), (bytes(5000), "zeros"), (b"#!/bin/sh\n" * 300, "text"), (b"short", "text"), (update(hdrver=IFS), "In-Field Scan"),
    (b"DMA\0" + bytes(3000), "header version 0x00414d44"), (update(hdrver=0x80000001), "header version 0x80000001"), (b"\1\0\0\0", "cut off")])
def test_no_microcode_says_what_it_is(data, text):
    updates, problem = read(data)
    assert updates == [] and text in problem


@pytest.mark.parametrize("tail,texts", [
    (update()[:100], ["update 2 at offset 2048", "signature 0x00050654, revision 0x02007006", "says 2048 bytes, 100 are left"]),
    (update()[:30], ["update 2 at offset 2048", "cut off after 30 bytes"]),
    (update(header={"totalsize": 0}), ["update 2 at offset 2048", "says 0 bytes"]),
    (update(header={"totalsize": 47}), ["says 47 bytes"]),
    (update(header={"totalsize": 0xffffffff, "datasize": 0xffffffff}), ["says 4294967295 bytes"]),
    (bytes(16), ["update 2 at offset 2048", "zeros"]),
    (update(hdrver=IFS), ["update 2 at offset 2048", "In-Field Scan"]),
    (b"made by hand\n", ["text"])])
def test_what_follows_an_update_and_is_none(tail, texts):
    updates, problem = read(update() + tail)
    assert updates == [SKYLAKE]
    assert all(text in problem for text in texts + ["Linux then loads nothing"]), problem


@pytest.mark.parametrize("data,text", [
    (update(ldrver=2), "loader version is 2"),
    (update(data_size=2004), "2004 and 2052"),
    (update(data_size=1999, table=b"\0"), "1999 and 2048"),
    (update(header={"datasize": 0, "totalsize": 3072}), "total size 3072 without a data size"),
    (update(header={"datasize": 2004}), "2004 bytes of data are too many for 2048"),
    (update(header={"datasize": 0xfffffffc}), "4294967292 bytes of data"),
    (update(data_size=1984, table=bytes(16)), "extended table of 16 bytes"),
    (update(data_size=1976, table=struct.pack("<6I", 0, 0, 0, 0, 0, 0)), "extended table of 24 bytes counts 0"),
    (update(data_size=1948, table=struct.pack("<13I", 0xffffffff, *[0] * 12)), "counts 4294967295 signatures"),
    (update(data_size=1948, table=struct.pack("<13I", 0x15555557, *[0] * 12)), "counts 357913943 signatures"),  # 12 times it is 20 modulo 2**32
])
def test_update_that_a_loader_refuses_is_listed_with_the_reason(data, text):
    updates, problem = read(update(revision=1) + data + update(revision=3))
    assert problem is None
    assert [each.problems for each in updates[::2]] == [(), ()]
    assert len(updates) == 3 and text in updates[1].problems[0]


def test_table_of_no_signatures_is_odd_but_whole():
    assert problems(update(data_size=1980, table=bytes(20))) == []


@pytest.mark.parametrize("data,expected", [
    (update(checksum=1), ["wrong checksum of header and data"]),
    (update(0x906a3, extended=PAIR[1:], table_checksum=1), ["wrong checksum of the extended table"] * 2),
    (update(0x906a3, extended=PAIR[1:], entry_checksums=[1]), ["wrong checksum of extended signature 0x000906a4"] * 2),
    (update(data_size=fitting(0, 200), checksum=-1), ["wrong checksum of header and data"])])
def test_wrong_checksums(data, expected):
    assert read(data)[0][0].problems == ()
    assert problems(data) == expected
    assert problems(update(revision=1) + data + update(revision=2)) == expected


def test_every_flipped_bit_is_found():
    data = bytearray(update(0x906a3, extended=PAIR, data_size=fitting(2, 1)))
    for place in range(len(data) * 8):
        data[place // 8] ^= 1 << place % 8
        assert problems(bytes(data)), place
        data[place // 8] ^= 1 << place % 8
    assert problems(bytes(data)) == []


@settings(max_examples=30)
@given(st.integers(1, 150), st.randoms(use_true_random=False))
def test_checksums_of_any_size(kib, rng):
    data = bytearray(update(payload=rng.getrandbits(8192).to_bytes(1024, "little"), data_size=fitting(0, kib)))
    assert problems(bytes(data)) == []
    place = rng.randrange(48, len(data), 4)
    for word in (rng.getrandbits(32), 0, 0xffffffff):
        old = data[place:place + 4]
        struct.pack_into("<I", data, place, word)
        assert bool(problems(bytes(data))) == (data[place:place + 4] != old)
        data[place:place + 4] = old


def test_words_that_all_carry():
    assert problems(update(payload=b"\xff", data_size=fitting(0, 300))) == []


# which update a processor gets

@pytest.mark.parametrize("processor,expected", [
    (dict(signature=0x50654, pf_mask=0x80), 9), (dict(signature=0x50654, pf_mask=0x01), 4), (dict(signature=0x50654, pf_mask=0x40), None),
    (dict(signature=0x50655), 9), (dict(signature=0x50656), None), (dict(signature=0x619, pf_mask=0), 2), (dict(signature=0x619), None)])
def test_signature_and_mask_must_match(processor, expected):
    data = (update(pf_mask=0x81, revision=4) + update(pf_mask=0x82, revision=9, extended=[(0x50655, 0x80)]) + update(0x619, 0, 2)
            + update(pf_mask=0x80, revision=7))
    assert revision(data, **processor) == expected


def test_mask_that_is_not_known_does_not_matter_where_all_agree():
    data = update(pf_mask=0x01, revision=9) + update(pf_mask=0x80, revision=8) + update(pf_mask=0x82, revision=9)
    assert revision(data, pf_mask=None) == 9
    assert revision(update(pf_mask=0x80, revision=9), pf_mask=None) == 9
    assert revision(update(0x619, 0, 2), signature=0x619, pf_mask=None) == 2
    assert revision(data, signature=1, pf_mask=None) is None


def test_mask_that_is_not_known_and_matters():
    picked, why = pick(update(pf_mask=0x90, revision=9) + update(pf_mask=0x40, revision=8), pf_mask=None)
    assert picked is None
    assert "0x00000009 for 0x90" in why and "0x00000008 for 0x40" in why and "platform mask" in why


def test_pre_production_alone_is_taken_and_beside_others_is_not_judged():
    assert revision(update(revision=-2)) == -2
    picked, why = pick(update(revision=5) + update(revision=-2))
    assert picked is None and "pre-production" in why
    assert revision(update(revision=5) + update(revision=-2, pf_mask=1)) == 5


@pytest.mark.parametrize("damaged,text", [
    (update(0x706a1, checksum=4), "offset 2048: wrong checksum"), (update(0x706a1, ldrver=3), "offset 2048: loader version"),
    (update()[:-1], "cut off"), (bytes(4), "zeros")])
def test_damage_anywhere_in_the_file_makes_unknown_what_is_loaded(damaged, text):
    """LNX-intel scan_microcode gives nothing unless it got through the whole file; XEN cpu_request_microcode keeps what came before."""
    picked, why = pick(update() + damaged)
    assert picked is None and text in why and "Linux then loads nothing" in why
    assert pick(damaged + update())[0] is None


def test_nothing_for_this_processor_is_no_problem():
    assert pick(update(), signature=1) == (None, None)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from([0, 1, 2, 0x83]), st.integers(0, 9), st.booleans()), min_size=1, max_size=6),
       st.sampled_from([0, 1, 2, 0x80]))
def test_picks_what_the_loaders_walk_comes_to(made, mask):
    data, best = b"", None
    for signature, pf_mask, number, extended in made:  # as LNX-intel scan_microcode and XEN cpu_request_microcode do it
        mine = [(signature, pf_mask)] + [(1, 0x80)] * extended
        data += update(signature, pf_mask, number, extended=mine[1:])
        if any(each == 1 and (other & mask or mask == other == 0) for each, other in mine) and (best is None or number > best):
            best = number
    assert revision(data, signature=1, pf_mask=mask) == best


# any bytes at all

@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 200), st.none() | st.integers(0, 200))
def test_any_bytes_give_updates_or_a_problem(data, start, length):
    for head in (b"", b"\1\0\0\0", struct.pack("<8I", 1, 2, 3, 4, 5, 1, 7, 0), struct.pack("<9I", 1, 2, 3, 4, 5, 1, 7, 4, len(data) + 36)):
        stream = io.BytesIO(head + data)
        updates, problem = intel.read(stream, start, length)
        assert updates or problem
        intel.verify(stream, updates)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(SIZES), min_size=12, max_size=12), st.integers(0, 5000))
def test_any_sizes_in_a_header(words, rest):
    words[0] = 1
    problems(struct.pack("<12I", *words) + bytes(rest))


WORD, MASK = st.integers(0, 0xffffffff), st.integers(0, 255)


@settings(max_examples=100)
@given(st.lists(st.tuples(WORD, MASK, st.integers(-2**31, 2**31 - 1), st.dates(min_value=datetime.date(1990, 1, 1)), WORD,
                          st.lists(st.tuples(WORD, MASK), max_size=90, unique=True)), min_size=1, max_size=4))
def test_what_was_made_is_what_is_read(made):
    data, expected = b"", []
    for signature, mask, number, date, least, extended in made:
        part = update(signature, mask, number, date.isoformat(), least, extended=extended)
        expected += [Update(each, other, number, date.isoformat(), len(part), least or None, len(data), None, ())
                     for each, other in [(signature, mask)] + [pair for pair in extended if pair != (signature, mask)]]
        data += part
    assert verified(data) == (expected, None)


@settings(max_examples=100)
@given(st.integers(0, 6143))
def test_a_cut_file_gives_its_whole_updates_and_a_problem(size):
    data = b"".join(update(revision=number) for number in (1, 2, 3))
    updates, problem = verified(data[:size])
    assert [each.revision for each in updates] == [1, 2, 3][:size // 2048]
    assert (problem is None) == (size in (2048, 4096))


@settings(max_examples=100)
@given(st.randoms(use_true_random=False))
def test_what_is_put_behind_changes_nothing_before(rng):
    whole, tail = update(0x906a3, 0x80, extended=PAIR), mutate(rng, update(revision=3) + update(revision=2))
    assert verified(whole + tail)[0][:2] == verified(whole)[0]


def test_fuzz_in_brief():
    assert 100 < fuzz_intel.fuzz(2000, 7) < 1000


# cost and faults

class Counting(io.BytesIO):
    """Counts what is read."""
    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def test_no_data_is_read_to_list_updates():
    stream = Counting(update(0x906a3, 0x80, extended=PAIR, data_size=fitting(2, 64)) * 10)
    assert len(intel.read(stream)[0]) == 20
    assert stream.taken == 10 * (48 + 20 + 24)  # headers and tables


class Faulty(io.BytesIO):
    """A medium that gives an error from an offset on."""

    def read(self, size=-1):
        if self.tell() >= 2048:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_errors_of_the_medium():
    updates, problem = intel.read(Faulty(update() * 2))
    assert updates == [SKYLAKE] and "Input/output error" in problem
    updates = intel.read(io.BytesIO(update(data_size=fitting(0, 99))))[0]
    assert "Input/output error" in intel.verify(Faulty(bytes(100 << 10)), [updates[0]._replace(offset=2048)])[0].problems[0]


def test_file_that_shrank_since_it_was_read():
    updates = read(update() * 2)[0]
    assert [bool(each.problems) for each in intel.verify(io.BytesIO(update() + update()[:-4]), updates)] == [False, True]


@pytest.mark.parametrize("data,total,text", [
    (4, 0xfffffc00, "4294966272 bytes, 1073741824 are left"),
    ((1 << 30) - 68 - 12 * 80000000, 1 << 30, "counts 80000000 signatures"),
    (0, 2048, "update 2 at offset 2048 is not microcode: zeros")])
def test_a_huge_sparse_file_takes_little_memory(tmp_path, data, total, text):
    head = bytearray(update()[:48])
    struct.pack_into("<2I", head, FIELDS["datasize"], data, total)
    with open(str(tmp_path / "sparse"), "w+b") as stream:
        stream.write(head)
        stream.seek(48 + data)
        stream.write(struct.pack("<I", 80000000) if data else b"")
        stream.truncate(1 << 30)
        tracemalloc.start()
        updates, problem = intel.read(stream)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert text in str([each.problems for each in updates]) + str(problem)
    assert peak < 1 << 20


def test_summing_up_a_large_update_takes_little_memory():
    stream = io.BytesIO(update(data_size=fitting(0, 8 << 10), payload=bytes(range(251))))
    updates = intel.read(stream)[0]
    tracemalloc.start()
    assert intel.verify(stream, updates)[0].problems == ()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("data", [update(extended=[(number, 1) for number in range(5000)]),
                                  b"".join(update(number, data_size=976) for number in range(1, 5001)),
                                  update(extended=[(number, 1) for number in range(4000)]) * 3])
def test_more_signatures_than_any_real_file_are_refused(data):
    updates, problem = read(data)
    assert len(updates) <= 8192
    assert problem and "4096 signatures" in problem or "counts 5000 signatures" in updates[0].problems[0]


def test_an_update_far_larger_than_any_real_one_is_refused_without_reading_it(tmp_path):
    head = bytearray(update()[:48])
    head[28:32], head[32:36] = ((1 << 30) - 48).to_bytes(4, "little"), (1 << 30).to_bytes(4, "little")
    with open(str(tmp_path / "sparse"), "w+b") as stream:
        stream.write(bytes(head))
        stream.truncate(1 << 30)
        updates, problem = intel.read(stream)
        assert problem is None
        assert "far more than any update" in intel.verify(stream, updates)[0].problems[0]
        assert stream.tell() < 1 << 20
