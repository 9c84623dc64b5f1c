# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import gzip
import io
import re
import struct
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import amd
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor
from ansible_collections.fleet.microcode.tests.fleet.made_amd import container, data_code, patch, section, table

# linux-firmware amd-ucode/README: family, model, stepping, patch, bytes, minimum base version; of each generation a few
README = [
    (0x10, 0x02, 0x02, 0x01000083, 960, None), (0x10, 0x02, 0x0a, 0x01000084, 960, None), (0x10, 0x05, 0x03, 0x010000c8, 960, None),
    (0x10, 0x0a, 0x00, 0x010000dc, 960, None), (0x11, 0x03, 0x01, 0x02000032, 512, None), (0x12, 0x01, 0x00, 0x03000027, 960, None),
    (0x14, 0x02, 0x00, 0x05000119, 1568, None), (0x15, 0x10, 0x01, 0x06001119, 2592, None), (0x16, 0x00, 0x01, 0x0700010f, 3458, None),
    (0x17, 0x71, 0x00, 0x08701034, 3200, None), (0x17, 0x01, 0x02, 0x0800126f, 3200, None), (0x17, 0xa0, 0x00, 0x08a0000a, 3200, None),
    (0x19, 0x7c, 0x00, 0x0a70c008, 5568, None), (0x19, 0xa0, 0x01, 0x0aa00116, 5568, None), (0x19, 0x44, 0x01, 0x0a404108, 5568, None),
    (0x19, 0xa0, 0x02, 0x0aa0021c, 5568, 0x0aa00218), (0x1a, 0x02, 0x01, 0x0b002161, 14368, 0x0b002140),
    (0x1a, 0x11, 0x00, 0x0b101058, 14368, 0x0b101040), (0x1a, 0x44, 0x01, 0x0b404108, 14368, 0x0b404102),
    (0x1a, 0x68, 0x00, 0x0b608038, 14368, 0x0b608032),
]
# the same: signature, patch for firmware without the fix, patch for firmware with it, minimum base version of that
PAIRS = [
    (0xa00f11, 0x0a0011d5, 0x0a0011de, 0x0a0011d9), (0xa00f12, 0x0a001238, 0x0a001247, 0x0a001242), (0xa10f11, 0x0a101148, 0x0a101158, 0x0a101153),
    (0xa10f12, 0x0a101248, 0x0a101253, 0x0a10124e), (0xaa0f02, 0x0aa00215, 0x0aa0021c, 0x0aa00218),
]
MILAN, OLD, NEW, BASE = PAIRS[0]


def cpuid(family, model, stepping):
    return (family - 15) << 20 | model >> 4 << 16 | 0xf00 | (model & 15) << 4 | stepping


def short(signature):
    """The processor id that AMD's tables give a signature: its family, model and stepping in 16 bits."""
    return (signature >> 20 & 15) << 12 | (signature >> 16 & 15) << 8 | (signature >> 4 & 15) << 4 | signature & 15


def read(data, **place):
    updates, problem = amd.read(io.BytesIO(data), **place)
    return [update.signature for update in updates], updates, problem


def cpu(signature, revision=None):
    return Processor("AuthenticAMD", signature, None, revision)


def milan(*revisions, **options):
    """A container of one processor's patches: 0xa0011de declares its minimum, the others none."""
    minimum = dict([(NEW, BASE)])
    minimum.update(options.get("minimum", {}))
    return container([(MILAN, 0xa011)], [patch(revision, 0xa011, min_revision=minimum.get(revision, 0), size=5568) for revision in revisions])


@pytest.mark.parametrize("family, model, stepping, revision, size, minimum", README)
def test_a_patch_is_listed_as_amd_lists_it(family, model, stepping, revision, size, minimum):
    signature = cpuid(family, model, stepping)
    signatures, updates, problem = read(container([(signature, short(signature))], [patch(revision, short(signature), "2024-02-23", minimum or 0, size)]))
    assert signatures == [signature] and problem is None
    assert (updates[0].revision, updates[0].size, updates[0].min_revision, updates[0].date) == (revision, size, minimum, "2024-02-23")
    assert (updates[0].matching, updates[0].pf_mask, updates[0].problems) == ("both" if family >= 0x17 else "table", None, ())


def test_one_update_for_each_processor_that_the_table_leads_to():
    data = container([(0x100f43, 0x1043), (0x100f42, 0x1041), (0x100f53, 0x1043)], [patch(0x010000c8, 0x1043, size=960), patch(0x010000db, 0x1041, size=960)])
    signatures, updates, problem = read(data)
    assert signatures == [0x100f43, 0x100f53, 0x100f42] and problem is None
    assert [update.revision for update in updates] == [0x010000c8, 0x010000c8, 0x010000db]
    for update in updates:  # the offset is where the patch's own header begins
        assert struct.unpack_from("<I", data, update.offset + 4)[0] == update.revision


def test_the_patch_number_and_the_table_may_name_different_processors():
    listed = read(container([(MILAN, 0xa011), (0xa00f99, 0xa011)], [patch(OLD, 0xa011, size=5568)]))[1]
    assert [(update.signature, update.matching) for update in listed] == [(MILAN, "both"), (0xa00f99, "table")]
    listed = read(container([(0xa00f99, 0xa011)], [patch(OLD, 0xa011, size=5568)]))[1]
    assert [(update.signature, update.matching) for update in listed] == [(0xa00f99, "table"), (MILAN, "patch_id")]
    assert [update.matching for update in read(container([], [patch(OLD, 0xa011, size=5568)]))[1]] == ["patch_id"]
    assert read(container([], [patch(0x08000011, 0x8000), patch(0x07fff011, 0x7fff), patch(0x0a0011d5, 0x8011)]))[0] == [0x800f00, None, None]


def test_a_patch_that_nothing_loads_is_listed_and_said_to_be_none():
    signatures, updates, problem = read(container([(0x100f43, 0x1043)], [patch(0x010000db, 0x1041, size=960), patch(0x010000c8, 0x1043, size=960)]))
    assert signatures == [None, 0x100f43] and problem is None
    assert "0x1041" in updates[0].problems[0] and updates[0].matching is None and not updates[1].problems


def test_odd_dates_and_sizes_are_taken():
    updates = read(container([(0x300f10, 0x3010), (0x700f01, 0x7001)], [
        patch(0x03000027, 0x3010, 0x13092011, size=960), patch(0x0700010f, 0x7001, size=3458), patch(0x07000110, 0x7001, size=3459)]))[1]
    assert [update.date for update in updates] == [None, "2024-01-01", "2024-01-01"]  # DEB-A: month 13
    assert [(update.size, update.problems) for update in updates] == [(960, ()), (3458, ()), (3459, ())]


@pytest.mark.parametrize("revision, processor, word, expected", [
    (NEW, 0xa011, BASE, BASE), (NEW, 0xa011, NEW, NEW), (NEW, 0xa011, 0, None),
    (NEW, 0xa011, 0x0a0012d9, None), (NEW, 0xa011, 0x12345678, None),  # no revision of this processor: a checksum
    (0x0a000010, 0xa000, 0x0a000001, 0x0a000001), (0x09fff010, 0x9fff, 0x09fff001, None),
    (0x0800126f, 0x8012, 0x08001260, None), (0x010000c8, 0x1043, 0x010000c0, None),  # before Zen 3 the word is none
])
def test_a_minimum_is_believed_only_where_it_can_be_one(revision, processor, word, expected):  # XEN check_min_rev
    assert set(update.min_revision for update in read(container([(MILAN, processor)], [patch(revision, processor, min_revision=word)]))[1]) == {expected}


def test_several_containers_one_after_the_other():
    first, second = container([(0x100f43, 0x1043)], [patch(0x010000c8, 0x1043, size=960)]), milan(OLD)
    assert read(first + second + first)[0] == [0x100f43, MILAN, 0x100f43]
    assert read(first + container([]) + second)[0] == [0x100f43, MILAN]
    assert read(container([(0x100f43, 0x1043)]) + container([], [patch(0x010000c8, 0x1043, size=960)]))[0] == [None]  # a table is its container's own


def test_rows_count_up_to_the_empty_one_and_the_first_of_a_processor_counts():
    rows = [(0x100f43, 0x1043), (0x100f43, 0x1041), (0, 0), (0x100f42, 0x1041)]
    assert read(container(rows, [patch(0x010000c8, 0x1043, size=960), patch(0x010000db, 0x1041, size=960)]))[0] == [0x100f43, None]


def test_a_part_of_a_file_is_read_as_a_file():
    data = milan(OLD)
    assert read(b"x" * 7 + data + data, start=7, length=len(data))[0] == [MILAN]
    assert read(data + b"x" * 7, length=len(data))[2] is None
    assert "cut off" in read(data + data, length=len(data) - 1)[2]
    assert read(data, start=len(data))[2] == "empty"


@pytest.mark.parametrize("data, expected, said", [
    (b"", 0, "empty"), (b"DMA", 0, "no AMD container"), (b"GIF89a..........", 0, "no AMD container: it begins with 0x47494638"),
    (b"DMA\0\0\0\0\0\0", 0, "cut off"), (milan(OLD)[:-1], 0, "cut off: 5567 bytes are there of 5568"),
    (milan(OLD, NEW)[:-1], 1, "cut off"), (milan(OLD) + b"\1\0\0", 1, "cut off"), (milan(OLD) + b"\0" * 512, 1, "type 0 with 0 bytes is no patch"),
    (milan(OLD) + b"DMA\0", 1, "cut off"), (milan(OLD) + section(2, b"x" * 64), 1, "type 2 with 64 bytes is no patch"),
    (milan(OLD) + section(1, b"x" * 63), 1, "type 1 with 63 bytes is no patch"),
    (milan(OLD) + section(1, b"x" * 64, 0xffffffff), 1, "64 bytes are there of 4294967295"),
    (b"DMA\0" + section(0, table([(MILAN, 0xa011)]), 0xfffffff0), 0, "cut off: 32 bytes are there of 4294967280"),
    (b"DMA\0" + section(0, b"x" * 17), 0, "damaged"), (b"DMA\0" + section(1, b""), 0, "damaged"),
])
def test_what_comes_before_damage_is_listed_and_the_damage_is_named(data, expected, said):
    signatures, _updates, problem = read(data)
    assert signatures == [MILAN] * expected and said in problem


def test_a_chipset_patch_is_not_taken():
    updates = read(container([(MILAN, 0xa011)], [patch(OLD, 0xa011, nb_dev_id=0x1022)]))[1]
    assert "0x00001022" in updates[0].problems[0] and amd.pick(updates, cpu(MILAN, 1))[0] is None


@pytest.mark.parametrize("signature, processor, size, taken", [
    (0x100f43, 0x1043, 2048, True), (0x100f43, 0x1043, 2049, False), (0x500f10, 0x5010, 1824, True), (0x500f10, 0x5010, 1825, False),
    (0x600f12, 0x6012, 4097, True), (0xa00f11, 0xa011, 1 << 20, True),  # LNX-amd sets no limit from family 15h on
])
def test_a_size_is_refused_only_where_every_loader_refuses_it(signature, processor, size, taken):
    revision = (processor >> 12) << 24 | (processor & 0xfff) << 12 & 0xf00000 | (processor & 0xff) << 8 | 0x11
    updates = read(container([(signature, processor)], [patch(revision, processor, size=size)]))[1]
    assert (not updates[0].problems) is taken and (amd.pick(updates, cpu(signature, 1))[0] is not None) is taken


def test_patches_are_passed_over_and_not_read():
    class Watched(io.BytesIO):
        total = 0

        def read(self, size=-1):
            data = io.BytesIO.read(self, size)
            self.total += len(data)
            return data
    stream = Watched(container([(MILAN, 0xa011)], [patch(OLD, 0xa011, size=5568)] * 50))
    assert len(amd.read(stream)[0]) == 50 and stream.total < 50 * 64


def test_table_counts_that_lie_cost_nothing(tmp_path):
    path = tmp_path / "sparse.bin"
    with open(str(path), "wb") as stream:
        stream.write(b"DMA\0" + section(0, table([(MILAN, 0xa011)]), 1 << 29))
        stream.truncate(1 << 30)
    tracemalloc.start()
    with open(str(path), "rb") as stream:
        updates, problem = amd.read(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert updates == [] and "more rows" in problem and peak < 1 << 20


def test_many_rows_and_patches_cannot_multiply():
    rows = [(0x100000 + number, 0x1043) for number in range(4000)]
    tracemalloc.start()
    _signatures, updates, problem = read(container(rows, [patch(0x010000c8, 0x1043, size=64)] * 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(updates) == 4000 and "more rows and patches" in problem and peak < 4 << 20


def with_checksum(revision, processor, size=960):
    plain = patch(revision, processor, size=size)
    words = struct.unpack("<%dI" % (size // 4), plain)
    return patch(revision, processor, size=size, min_revision=sum(words[16:]) & 0xffffffff)


def test_the_checksum_of_old_families_finds_damage():
    good = with_checksum(0x010000c8, 0x1043)
    for data, wrong in ((good, False), (good[:500] + b"!" + good[501:], True), (patch(0x010000c8, 0x1043, size=960), False)):
        whole = container([(0x100f43, 0x1043)], [data])
        updates = amd.read(io.BytesIO(whole))[0]
        checked = amd.verify(io.BytesIO(whole), updates)
        assert (checked[0].problems != ()) is wrong and checked[0]._replace(problems=()) == updates[0]
        assert (amd.pick(checked, cpu(0x100f43, 1))[0] is None) is wrong


def test_no_checksum_is_looked_for_where_later_families_have_none():
    data = container([(0x500f10, 0x5010), (0x600f12, 0x6012)], [patch(0x05000029, 0x5010, min_revision=1, size=1568),
                                                                patch(0x0600063e, 0x6012, min_revision=0x12345678)]) + milan(NEW)
    updates = amd.read(io.BytesIO(data))[0]
    assert amd.verify(io.BytesIO(data), updates) == updates


class Failing(io.BytesIO):
    def read(self, size=-1):
        raise OSError(5, "Input/output error")


def test_a_failing_disk_is_a_problem_and_no_crash():
    assert amd.read(Failing(milan(OLD))) == ([], "[Errno 5] Input/output error")
    updates = read(container([(0x100f43, 0x1043)], [with_checksum(0x010000c8, 0x1043)]))[1]
    assert "Input/output error" in amd.verify(Failing(b""), updates)[0].problems[0]


def picked(data, signature, revision=None, xen=False):
    updates, problem = amd.read(io.BytesIO(data))
    update, why = amd.pick(updates, cpu(signature, revision), problem, xen)
    assert update is None or why is None
    return update.revision if update else why


@pytest.mark.parametrize("xen", [False, True])
@pytest.mark.parametrize("signature, old, new, base", PAIRS)
def test_of_two_patches_the_one_that_firmware_allows_is_picked(signature, old, new, base, xen):
    data = container([(signature, short(signature))], [patch(old, short(signature), size=5568), patch(new, short(signature), min_revision=base, size=5568)])
    assert picked(data, signature, base, xen) == new  # firmware has the fix
    assert picked(data, signature, new, xen) == new
    assert picked(data, signature, old, xen) == old  # nothing would change, whoever reads the file
    said = picked(data, signature, old - 1, xen)  # new kernels take the old patch; older ones try the new one, which is refused
    assert "several patches" in said and "0x%08x" % old in said and "0x%08x from 0x%08x on" % (new, base) in said
    assert "not known" in picked(data, signature, None, xen) and "0x%08x" % base in picked(data, signature, None, xen)


def test_a_minimum_that_does_not_run_is_told():
    assert "from revision 0x0a0011d9 on" in picked(milan(NEW), MILAN, OLD) and "0x0a0011d5 runs" in picked(milan(NEW), MILAN, OLD)
    assert picked(milan(NEW), MILAN, BASE) == NEW


def test_kernels_differ_where_the_newest_patch_is_not_the_last():
    one, two = 0x0a0011d0, 0x0a0011d2
    assert picked(milan(one, two), MILAN, 0x0a001100) == two
    assert "not every version of Linux" in picked(milan(two, one), MILAN, 0x0a001100)  # early loading takes the last, late loading the newest
    assert picked(milan(two, one), MILAN, 0x0a001100, xen=True) == two
    assert picked(milan(two, one), MILAN, two) == one  # neither is newer than what runs: nothing changes
    assert "not every version of Linux" in picked(milan(NEW, OLD), MILAN, BASE)  # an older kernel takes the last, and does nothing
    assert picked(milan(NEW, OLD), MILAN, NEW) == NEW


def test_linux_stays_with_the_first_container_that_has_a_patch():
    one, two = 0x0a0011d0, 0x0a0011d2
    other = container([(0x100f43, 0x1043)], [patch(0x010000c8, 0x1043, size=960)])
    for data in (milan(one) + milan(two), other + milan(one) + other + milan(two)):
        assert picked(data, MILAN, 0x0a001100) == one and picked(data, MILAN, 0x0a001100, xen=True) == two
    assert "several" in picked(milan(OLD) + milan(NEW), MILAN, BASE)  # a newer kernel passes over the first, an older one stays there
    assert picked(milan(one) + milan(one), MILAN, 0x0a001100) == one


def test_linux_goes_by_the_number_from_family_17h_on_and_xen_by_the_table():
    number, row = container([], [patch(OLD, 0xa011, size=5568)]), container([(0xa00f99, 0xa011)], [patch(OLD, 0xa011, size=5568)])
    assert picked(number, MILAN) == OLD and "equivalence table" in picked(number, MILAN, xen=True)
    assert picked(row, 0xa00f99, xen=True) == OLD and "number" in picked(row, 0xa00f99)
    assert picked(container([(0x600f12, 0x6012)], [patch(0x0600063e, 0x6012)]), 0x600f12) == 0x0600063e
    assert picked(container([], [patch(0x08701034, 0x8710)]), 0x870f10) == 0x08701034


@pytest.mark.parametrize("signature, revision, limit", [
    (0x600f12, 0x0600063e, 4096), (0x700f01, 0x0700010f, 3458), (0x870f10, 0x08701034, 3200), (0xa00f11, OLD, 5568), (0xb00f21, 0x0b002161, 15296),
    (0xc00f00, 0x0c000010, 2048),  # a family that Xen does not know
])
def test_xen_has_limits_that_linux_has_not(signature, revision, limit):
    for size, taken in ((limit, True), (limit + 1, False)):
        data = container([(signature, short(signature))], [patch(revision, short(signature), size=size)])
        assert picked(data, signature) == revision
        assert picked(data, signature, xen=(4, 20)) == (revision if taken else "its patch of %d bytes is longer than Xen takes for this family" % size)


@pytest.mark.parametrize("xen, size, taken", [((4, 17), 14368, False), (True, 14368, False), ((4, 17), 2048, True), ((4, 21), 14368, True)])
def test_xen_knows_family_1ah_from_4_20_on(xen, size, taken):
    data = container([(0xb00f21, short(0xb00f21))], [patch(0x0b002161, short(0xb00f21), size=size)])
    said = picked(data, 0xb00f21, xen=xen)
    assert said == 0x0b002161 if taken else "from 4.20 on" in said


@pytest.mark.parametrize("revision", [0x01000098, 0x0100009f, 0x010000af])
def test_final_revisions_are_never_updated(revision):
    data = container([(0x100f43, 0x1043)], [patch(0x010000c8, 0x1043, size=960)])
    assert "must not be updated" in picked(data, 0x100f43, revision)
    assert picked(data, 0x100f43, revision - 1) == 0x010000c8


def test_nothing_for_a_processor_is_no_mystery():
    assert amd.pick(read(milan(OLD))[1], cpu(0xa00f12)) == (None, None)
    assert amd.pick([], cpu(MILAN)) == (None, None)


def test_a_damaged_file_promises_nothing():
    assert "cut off" in picked(milan(OLD, NEW)[:-1], MILAN, 1)
    assert "cut off" in picked(milan(OLD)[:-1], 0xa00f12, 1)


patches = st.builds(patch, st.sampled_from([OLD, NEW, 0x0a0011d7, 0x0a001238, 0x010000c8]), st.sampled_from([0xa011, 0xa012, 0x1043]),
                    min_revision=st.sampled_from([0, BASE, NEW]), size=st.integers(64, 90))
containers = st.builds(container, st.lists(st.tuples(st.sampled_from([MILAN, 0xa00f12, 0x100f43]), st.sampled_from([0xa011, 0xa012, 0x1043])), max_size=4),
                       st.lists(patches, max_size=5))


@settings(max_examples=60)
@given(st.lists(containers, min_size=1, max_size=3))
def test_every_patch_of_whole_containers_is_listed_where_it_is(whole):
    data = b"".join(whole)
    _signatures, updates, problem = read(data)
    assert problem is None
    heads = re.finditer(re.escape(struct.pack("<I", data_code("2024-01-01"))), data)
    assert sorted(set(update.offset for update in updates)) == [head.start() for head in heads]
    for update in updates:
        assert struct.unpack_from("<I", data, update.offset - 4)[0] == update.size
        assert struct.unpack_from("<I", data, update.offset + 4)[0] == update.revision


@settings(max_examples=60)
@given(st.lists(containers, min_size=1, max_size=3), st.data())
def test_a_file_cut_anywhere_lists_what_lies_before_the_cut(whole, draw):
    data = b"".join(whole)
    complete = read(data)[1]
    cut = draw.draw(st.integers(0, len(data) - 1))
    _signatures, updates, problem = read(data[:cut])
    assert updates == [update for update in complete if update.offset + update.size <= cut]
    assert problem or cut in set(update.offset + update.size for update in complete) or not data[cut:].startswith(struct.pack("<I", 1))


@settings(max_examples=60)
@given(st.lists(containers, min_size=1, max_size=3), st.sampled_from([None, 0, OLD, BASE, NEW]), st.booleans())
def test_what_is_picked_is_for_the_processor_and_allowed(whole, runs, xen):
    updates, problem = amd.read(io.BytesIO(b"".join(whole)))
    update, why = amd.pick(updates, cpu(MILAN, runs), problem, xen)
    if update:
        assert update in updates and update.signature == MILAN and not update.problems and why is None
        assert update.min_revision is None or runs is not None and runs >= update.min_revision
    elif why is None:
        assert MILAN not in [each.signature for each in updates]


@settings(max_examples=60)
@given(st.binary(max_size=200))
@example(b"DMA\0" + b"\0" * 12)
def test_any_bytes_are_told_about(data):
    for prefix in (b"", b"DMA\0\0\0\0\0\0\0\0\0"):
        updates, problem = amd.read(io.BytesIO(prefix + data))
        assert amd.verify(io.BytesIO(prefix + data), updates) is not None
        assert problem or not data or updates or data.startswith(b"DMA\0")


def debian(root):
    for path in sorted((root / "lib/firmware/amd-ucode").glob("*.bin")):
        with open(str(path), "rb") as stream:
            updates, problem = amd.read(stream)
            yield path.name, updates, amd.verify(stream, updates), problem


def test_debians_files_are_read_whole_and_their_checksums_fit(debian_microcode):
    names = []
    for name, updates, checked, problem in debian(debian_microcode):
        names.append(name)
        assert problem is None and checked == updates and not any(update.problems for update in updates)
        assert set(update.matching for update in updates) == {"table" if name[-7:] in ("amd.bin", "15h.bin", "16h.bin") else "both"}
    assert "microcode_amd.bin" in names and "microcode_amd_fam19h.bin" in names


def test_debians_old_files_hold_what_amds_list_says(debian_microcode):
    listed = set((update.signature, update.revision, update.size) for _name, updates, _checked, _problem in debian(debian_microcode) for update in updates)
    assert listed.issuperset((cpuid(*row[:3]), row[3], row[4]) for row in README if row[0] < 0x17)  # those patches are final


def test_debians_changelog_names_the_same_patches(debian_microcode):
    entries = []
    for log in sorted((debian_microcode / "usr/share/doc/amd64-microcode").glob("changelog*.gz")):
        with gzip.open(str(log), "rt", encoding="utf-8", errors="replace") as stream:
            entries += re.findall(r"Family=0x(\w+) Model=0x(\w+) Stepping=0x(\w+): Patch=0x(\w+)", stream.read())
    said = {}
    for family, model, stepping, revision in entries:  # newest entry first; one release may add a second patch
        said.setdefault(cpuid(int(family, 16), int(model, 16), int(stepping, 16)), int(revision, 16))
    held = {}
    for _name, updates, _checked, _problem in debian(debian_microcode):
        for update in updates:
            held.setdefault(update.signature, set()).add(update.revision)
    assert len(said) > 20 and [hex(signature) for signature in said if said[signature] not in held.get(signature, ())] == []
