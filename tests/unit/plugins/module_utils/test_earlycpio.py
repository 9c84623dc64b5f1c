# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import io
import subprocess
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import amd, earlycpio, intel
from ansible_collections.fleet.microcode.tests.fleet.made_cpio import AMD, INTEL, early, member, with_main

BOTH = [INTEL, AMD]


def find(data, names=tuple(BOTH)):
    """{name: bytes found}, problem"""
    found, problem = earlycpio.find(io.BytesIO(data), names)
    return dict((name, data[offset:offset + size]) for name, (offset, size) in found.items()), problem


class Watched(object):
    """A binary file that counts the bytes read from it and remembers how far they reached."""

    def __init__(self, stream):
        self.stream, self.bytes, self.reach = stream, 0, 0
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size):
        data = self.stream.read(size)
        self.bytes += len(data)
        self.reach = max(self.reach, self.stream.tell())
        return data


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", [0, 512, 4096])
@pytest.mark.parametrize("magic", ["070701", "070702"])
def test_members_of_an_early_initrd_are_found(align, padding, magic):
    image = with_main(early([(AMD, b"amd microcode"), (INTEL, b"intel")], align, padding, magic))
    assert find(image) == ({AMD: b"amd microcode", INTEL: b"intel"}, None)
    if align:
        assert [offset % 16 for offset, _size in earlycpio.find(io.BytesIO(image), BOTH)[0].values()] == [0, 0]


def test_archives_in_a_row_are_all_walked_and_the_first_match_counts():
    one, two, three = early({AMD: b"first"}), early({"kernel/firmware/acpi/dsdt.aml": b"table"}, padding=4), early({AMD: b"second", INTEL: b"intel"})
    assert find(with_main(one + two + b"\0" * 8192 + three)) == ({AMD: b"first", INTEL: b"intel"}, None)
    assert find(b"\0" * 512 + one)[0] == {AMD: b"first"}


def test_a_header_counts_only_at_a_multiple_of_four():
    assert find(b"\0" * 12 + early({AMD: b"x"}))[0] and find(b"\0" * 12 + b"\0" + early({AMD: b"x"})) == ({}, None)
    assert find(b"\0" * 9 + early({AMD: b"x"})) == find(b"\0" * 10 + early({AMD: b"x"})) == ({}, None)


def test_names_filled_with_nul_are_the_same_names():
    assert find(member(AMD, b"data", fill=3) + member("TRAILER!!!", mode=0, fill=5)) == ({AMD: b"data"}, None)


@pytest.mark.parametrize("other", [
    member(AMD, mode=0o40755), member(AMD, b"/etc/shadow", mode=0o120777),
    member(AMD + ".old", b"old"), member("./" + AMD, b"other"), member("x" + AMD, b"other"),
])
def test_only_a_regular_file_of_that_very_name_counts(other):
    assert find(other + early({AMD: b"right"})) == ({AMD: b"right"}, None)
    assert find(other + early({})) == ({}, None)


@pytest.mark.parametrize("data", [
    b"", b"0", with_main(b""), b"\x28\xb5\x2f\xfd" + b"x" * 500, b"070707" + b"0" * 200, b"\xc7\x71" + b"x" * 200, b"\0" * 2000,
    with_main(early({"etc/passwd": b"x"})),
])
def test_no_early_microcode_is_nothing_to_complain_about(data):
    assert find(data) == ({}, None)


def header(field, text):
    """An archive whose third member has this text in one of its 13 fields, or in its magic (field -1)."""
    head = bytearray(member(INTEL, b"intel"))
    place = 6 + 8 * field if field >= 0 else 0
    head[place:place + len(text)] = text
    return member("kernel", mode=0o40755) + member(AMD, b"amd!") + bytes(head) + early({})


@pytest.mark.parametrize("field, text, said", [
    (6, b"0000000g", "damaged"), (6, b"+0000005", "damaged"), (6, b" 0000005", "damaged"), (6, b"0_000005", "damaged"), (0, b"\0" * 8, "damaged"),
    (6, b"FFFFFFFF", "cut off"), (11, b"FFFFFFFF", "cut off"), (11, b"7FFFFFF0", "cut off"), (-1, b"070707", "no trailer"), (-1, b"\x1f\x8b\x08", "no trailer"),
])
def test_what_comes_before_damage_is_found_and_the_damage_is_named(field, text, said):
    found, problem = find(header(field, text))
    assert found == {AMD: b"amd!"} and said in problem


def test_a_file_cut_off_in_its_data_is_not_found():  # a kernel does not take it either
    data = member(AMD, b"x" * 1000)
    assert find(data)[0] and find(data[:-1])[0] == {} and "cut off" in find(data[:-1])[1]


def test_once_all_is_found_the_rest_does_not_matter():
    assert find(member(AMD, b"x") + b"rubbish" * 40, [AMD]) == ({AMD: b"x"}, None)


def test_a_size_of_zero_is_found():
    assert find(early({AMD: b""})) == ({AMD: b""}, None)


def test_only_the_head_of_a_large_initrd_is_read(tmp_path):
    path, size = tmp_path / "initrd.img", 15 << 20
    head = early([(INTEL, b"i" * size), ("etc/early", b"e")])
    with open(str(path), "wb") as stream:
        stream.write(with_main(head))
        stream.truncate(100 << 20)
    with open(str(path), "rb") as stream:
        watched = Watched(stream)
        found, problem = earlycpio.find(watched, BOTH)
    assert found[INTEL][1] == size and problem is None
    assert watched.bytes < 16384 and watched.reach < len(head) + 4096


@pytest.mark.parametrize("block", [b"\0" * 4096, b"\0\1\0\0" * 1024, member("x") * 20])
def test_an_endless_walk_is_ended(tmp_path, block):
    path = tmp_path / "endless.img"
    with open(str(path), "wb") as stream:
        for _number in range(3000 if block[0:1] == b"0" else 64):
            stream.write(block)
        if not block.strip(b"\0"):
            stream.truncate(1 << 30)
    tracemalloc.start()
    with open(str(path), "rb") as stream:
        found, problem = earlycpio.find(stream, BOTH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {} and "more than 20000" in problem and peak < 1 << 20


names = st.sampled_from([INTEL, AMD, "kernel/x86/microcode/.enuineIntel.align.01", "etc/fstab", "lib/modules/x.ko"])
archives = st.lists(st.tuples(names, st.binary(max_size=40)), max_size=6)


@settings(max_examples=80)
@given(st.lists(st.tuples(archives, st.booleans(), st.sampled_from([0, 4, 512])), min_size=1, max_size=3), st.booleans())
def test_whatever_is_packed_is_found(groups, compressed):
    image, expected = b"", {}
    for members, align, padding in groups:
        image += early(members, align, padding)
        for name, data in members:
            if name in BOTH:
                expected.setdefault(name, data)
    assert find(with_main(image) if compressed else image) == (expected, None)


@settings(max_examples=80)
@given(archives, st.data())
def test_a_cut_never_makes_other_things_found(members, draw):
    image = early(members)
    cut = draw.draw(st.integers(0, len(image)))
    whole, (found, _problem) = find(image)[0], find(image[:cut])
    assert all(whole[name] == data for name, data in found.items())


@settings(max_examples=80)
@given(st.binary(max_size=300), st.integers(0, 109), st.binary(min_size=1, max_size=8))
def test_any_bytes_are_walked_without_an_error(tail, place, spoilt):
    head = bytearray(member("kernel", mode=0o40755))
    head[place:place + len(spoilt)] = spoilt
    for data in (tail, bytes(head) + tail, early({AMD: b"x"}) + bytes(head) + tail):
        found, problem = earlycpio.find(io.BytesIO(data), BOTH)
        assert all(0 < offset <= offset + size <= len(data) for offset, size in found.values())
        assert problem is None or isinstance(problem, str)


def test_an_image_made_by_iucode_tool_holds_the_file_it_was_made_of(debian_microcode, tmp_path):
    tool, image = debian_microcode / "usr/sbin/iucode_tool", tmp_path / "early.img"
    source = next(path for path in sorted((debian_microcode / "lib/firmware/intel-ucode").iterdir()) if path.name == "06-55-04")
    subprocess.run([str(tool), "-q", "--write-earlyfw=" + str(image), str(source)], check=True)
    data = image.read_bytes()
    assert find(with_main(data) + b"\0" * 100)[0] == {INTEL: source.read_bytes()}
    listed = subprocess.run([str(tool), "-tr", "-L", str(image)], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
    offset, size = earlycpio.find(io.BytesIO(data), BOTH)[0][INTEL]
    updates, problem = intel.read(io.BytesIO(data), offset, size)
    assert problem is None and offset % 16 == 0
    for update in updates:
        assert "sig 0x%08x, pf_mask 0x%02x, %s, rev 0x%04x, size %d" % (update[:2] + (update.date, update.revision, update.size)) in listed


def test_our_own_images_are_read_by_iucode_tool(debian_microcode, tmp_path):
    source = (debian_microcode / "lib/firmware/intel-ucode/06-55-04").read_bytes()
    for align in (False, True):
        image = tmp_path / ("%s.img" % align)
        image.write_bytes(early([(AMD, b"x" * 99), (INTEL, source)], align))
        listed = subprocess.run([str(debian_microcode / "usr/sbin/iucode_tool"), "-tr", "-L", str(image)], check=True, stdout=subprocess.PIPE).stdout
        assert b"sig 0x00050654" in listed


def test_amd_microcode_in_a_row_as_debians_hook_puts_it(debian_microcode):
    files = [path.read_bytes() for path in sorted((debian_microcode / "lib/firmware/amd-ucode").glob("microcode_amd*.bin"))]
    image = with_main(early({AMD: b"".join(files)}))
    offset, size = earlycpio.find(io.BytesIO(image), BOTH)[0][AMD]
    updates, problem = amd.read(io.BytesIO(image), offset, size)
    assert problem is None and len(updates) == sum(len(amd.read(io.BytesIO(data))[0]) for data in files) > 40
