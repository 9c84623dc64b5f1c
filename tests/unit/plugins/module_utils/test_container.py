# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import bz2
import gzip
import io
import lzma
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import container, listing
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor
from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_intel
from ansible_collections.fleet.microcode.tests.fleet.made_cpio import AMD, INTEL, early, with_main

INTEL_FILE = made_intel.update(0x50654, 0xb7, 0x2007006, data_size=976)
AMD_FILE = made_amd.container([(0x870f10, 0x8710)], [made_amd.patch(0x08701034, 0x8710)])
XEON, RYZEN = Processor("GenuineIntel", 0x50654, 0x80, 0x2000050), Processor("AuthenticAMD", 0x870f10, None, 0x08701021)


def read(data):
    return container.read(io.BytesIO(data))


def brief(containers):
    return [(each.member, each.vendor, [update.revision for update in each.updates], each.problem) for each in containers]


def opened(folder, name, data):
    """(bytes or None, warnings) of a file through open_file."""
    (folder / name).write_bytes(data)
    host = Host(str(folder))
    stream = container.open_file(host, "/" + name)
    if stream is None:
        return None, host.warnings
    with stream:
        return stream.read(), host.warnings


def test_files_of_both_vendors_and_initrds_are_told_apart():
    assert brief(read(INTEL_FILE)) == [(None, "GenuineIntel", [0x2007006], None)]
    assert brief(read(AMD_FILE)) == [(None, "AuthenticAMD", [0x08701034], None)]
    for image in (early([(AMD, AMD_FILE), (INTEL, INTEL_FILE)], align=True), b"\0" * 512 + early([(AMD, AMD_FILE), (INTEL, INTEL_FILE)])):
        assert brief(read(with_main(image))) == [(AMD, "AuthenticAMD", [0x08701034], None), (INTEL, "GenuineIntel", [0x2007006], None)]
    assert brief(read(early({INTEL: INTEL_FILE}))) == [(INTEL, "GenuineIntel", [0x2007006], None)]


@pytest.mark.parametrize("data", [
    gzip.compress(b"x" * 99), bz2.compress(b"x" * 99), lzma.compress(b"x" * 99), lzma.compress(b"x" * 99, lzma.FORMAT_ALONE), b"\x28\xb5\x2f\xfd" + b"x" * 99,
    b"\x02\x21\x4c\x18" + b"x" * 99, early({"etc/fstab": b"x"}), with_main(early({"kernel/firmware/acpi/dsdt.aml": b"x"})),
])
def test_an_initrd_without_microcode_holds_none_and_that_is_no_problem(data):
    assert read(data) == []


@pytest.mark.parametrize("data, said", [
    (b"", "empty"), (b"# README\n", "neither Intel nor AMD microcode, nor an initrd: it begins with 2320524541444d45"), (b"\0" * 4096, "begins with 00000000"),
    (b"\x7fELF\2\1\1", "neither"), (b"M", "neither"), (INTEL_FILE[4:], "neither"),
])
def test_what_is_none_of_them_is_said_to_be_none(data, said):
    assert [(each.vendor, each.updates) for each in read(data)] == [(None, [])] and said in read(data)[0].problem


def test_problems_within_are_handed_on():
    assert "In-Field Scan" in read(made_intel.update(hdrver=2, data_size=976))[0].problem
    assert brief(read(AMD_FILE[:-1]))[0][:3] == (None, "AuthenticAMD", []) and "cut off" in read(AMD_FILE[:-1])[0].problem
    broken = read(early([(AMD, AMD_FILE[:99]), (INTEL, INTEL_FILE)]))
    assert [each.vendor for each in broken] == ["AuthenticAMD", "GenuineIntel"] and "cut off" in broken[0].problem and broken[1].problem is None


def test_a_damaged_early_archive_gives_what_was_found_and_the_problem():
    found = read(early({AMD: AMD_FILE}) + early({INTEL: INTEL_FILE})[:-700])
    assert [each.vendor for each in found] == ["AuthenticAMD", None] and "is cut off" in found[1].problem


def test_a_failing_disk_is_a_problem_and_no_crash():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")
    assert container.read(Failing(AMD_FILE)) == [(None, None, [], "cannot be read: Input/output error")]


def test_each_vendor_is_picked_and_verified_by_its_own_reader():
    updates = dict((vendor, read(data)[0].updates) for vendor, data in (("GenuineIntel", INTEL_FILE), ("AuthenticAMD", AMD_FILE)))
    assert container.pick("GenuineIntel", updates["GenuineIntel"], XEON)[0].revision == 0x2007006
    assert container.pick("AuthenticAMD", updates["AuthenticAMD"], RYZEN)[0].revision == 0x08701034
    assert container.pick("GenuineIntel", updates["GenuineIntel"], RYZEN) == (None, None)
    assert container.pick("AuthenticAMD", updates["AuthenticAMD"], XEON) == (None, None)
    for vendor in updates:
        assert container.pick(vendor, updates[vendor], XEON._replace(signature=None)) == (None, "which processor this is, is not known")
    spoilt = INTEL_FILE[:-1] + b"!"
    checked = container.verify("GenuineIntel", io.BytesIO(spoilt), updates["GenuineIntel"])
    assert "checksum" in checked[0].problems[0] and container.pick("GenuineIntel", checked, XEON)[0] is None
    assert container.verify("AuthenticAMD", io.BytesIO(AMD_FILE), updates["AuthenticAMD"]) == updates["AuthenticAMD"]


def test_a_problem_and_xen_reach_the_reader():
    own = read(made_amd.container([], [made_amd.patch(0x08701034, 0x8710)]))[0].updates  # not in the table, by which Xen goes
    assert container.pick("AuthenticAMD", own, RYZEN)[0] and "Xen" in container.pick("AuthenticAMD", own, RYZEN, xen=True)[1]
    for vendor, data, processor in (("GenuineIntel", INTEL_FILE, XEON), ("AuthenticAMD", AMD_FILE, RYZEN)):
        picked, why = container.pick(vendor, read(data)[0].updates, processor, problem="cut off at the end")
        assert picked is None and "cut off at the end" in why


def choose(data, processor, xen=False):
    picked, why = container.choose(io.BytesIO(data), processor, xen)
    return picked.revision if picked else why


def test_what_a_processor_would_get_from_a_file_or_an_initrd():
    image = with_main(early([(AMD, AMD_FILE), (INTEL, INTEL_FILE)]))
    assert choose(INTEL_FILE, XEON) == choose(image, XEON) == 0x2007006
    assert choose(AMD_FILE, RYZEN) == choose(image, RYZEN) == choose(image, RYZEN, xen=True) == 0x08701034
    assert choose(AMD_FILE, XEON) is choose(early({AMD: AMD_FILE}), XEON) is choose(gzip.compress(b"x"), XEON) is None
    assert "neither" in choose(b"text", XEON) and "cut off" in choose(image[:-len(image) // 2], XEON)
    assert "cut off" in choose(early({AMD: AMD_FILE, INTEL: INTEL_FILE[:-1]}), XEON)


def test_damage_to_the_update_that_would_be_loaded_is_found():
    assert "checksum" in choose(early({INTEL: INTEL_FILE[:-1] + b"!"}), XEON)
    assert "checksum" in choose(made_intel.update(0x50657, data_size=976) + INTEL_FILE[:-1] + b"!", XEON)


def test_packed_firmware_is_unpacked(tmp_path):
    assert opened(tmp_path, "a.bin.xz", lzma.compress(AMD_FILE, check=lzma.CHECK_CRC32)) == (AMD_FILE, [])
    assert opened(tmp_path, "b.bin.xz", lzma.compress(AMD_FILE, preset=9)) == (AMD_FILE, [])
    assert opened(tmp_path, "plain.bin", AMD_FILE) == (AMD_FILE, [])
    large = bytes(8 << 20)
    assert opened(tmp_path, "c.xz", lzma.compress(large, preset=0)) == (large, [])


def test_what_follows_the_first_packed_stream_does_not_count(tmp_path):  # nor does it for a kernel, LNX-core: firmware_loader
    assert opened(tmp_path, "a.xz", lzma.compress(AMD_FILE) + lzma.compress(INTEL_FILE))[0] == AMD_FILE


@pytest.mark.parametrize("data, said", [
    (b"", "cut off"), (lzma.compress(AMD_FILE)[:-1], "cut off"), (b"not packed at all", "cannot be unpacked"),
    (lzma.compress(AMD_FILE)[:40] + b"\0" * 99, "cannot be unpacked"),
    (gzip.compress(AMD_FILE), "cannot be unpacked"), (lzma.compress(bytes((8 << 20) + 1), preset=0), "unpacks to more than 8388608 bytes"),
    (lzma.compress(AMD_FILE, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]), "cannot be unpacked"),
])
def test_what_cannot_be_unpacked_is_named(tmp_path, data, said):
    found, warnings = opened(tmp_path, "x.bin.xz", data)
    assert found is None and len(warnings) == 1 and warnings[0].startswith("/x.bin.xz: ") and said in warnings[0]


def test_unpacking_takes_little_memory(tmp_path):
    (tmp_path / "x.xz").write_bytes(lzma.compress(b"\0" * (40 << 20), preset=0))
    host = Host(str(tmp_path))
    tracemalloc.start()
    assert container.open_file(host, "/x.xz") is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_a_python_that_cannot_unpack_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "lzma", None)
    monkeypatch.setattr(container, "zstd", None)
    assert "xz, which this Python was built without" in opened(tmp_path, "a.xz", lzma.compress(AMD_FILE))[1][0]
    assert "zstd, which Python reads from 3.14 on; what it holds is not known" in opened(tmp_path, "a.bin.zst", b"\x28\xb5\x2f\xfd")[1][0]


def test_zstd_is_unpacked_where_python_can(tmp_path, monkeypatch):
    zstd = container.zstd
    if zstd is None:
        zstd = pytest.importorskip("backports.zstd", reason="no zstd in this Python: 3.14 has it, or the package backports.zstd")
        monkeypatch.setattr(container, "zstd", zstd)
    assert opened(tmp_path, "a.bin.zst", zstd.compress(AMD_FILE)) == (AMD_FILE, [])
    assert "cut off" in opened(tmp_path, "b.bin.zst", zstd.compress(AMD_FILE)[:-1])[1][0]
    assert "cannot be unpacked" in opened(tmp_path, "c.bin.zst", AMD_FILE)[1][0]
    assert "more than 8388608" in opened(tmp_path, "d.bin.zst", zstd.compress(bytes(17 << 20)))[1][0]


def test_what_is_not_there_or_no_file_is_none(tmp_path):
    host = Host(str(tmp_path))
    assert container.open_file(host, "/missing.xz") is None and host.warnings == []
    os.mkfifo(str(tmp_path / "pipe.xz"))
    assert container.open_file(host, "/pipe.xz") is None and "not a regular file" in host.warnings[0]


def test_listing_gives_an_entry_for_each_signature_and_walks_folders(tmp_path):
    folder = tmp_path / "firmware"
    (folder / "intel-ucode").mkdir(parents=True)
    (folder / "intel-ucode" / "06-55-04").write_bytes(INTEL_FILE[:-1] + b"!")
    (folder / "amd.bin.xz").write_bytes(lzma.compress(AMD_FILE))
    (folder / "README").write_bytes(b"text")
    (folder / "initrd").write_bytes(gzip.compress(b"x"))
    (folder / "again").symlink_to(".")
    (folder / "name.xz").symlink_to("amd.bin.xz")
    host = Host(str(tmp_path))
    found = listing.containers(host, ["/firmware/", "/firmware/missing"])
    assert [(each["path"], each["vendor"], len(each["entries"])) for each in found] == [
        ("/firmware/README", None, 0), ("/firmware/amd.bin.xz", "AuthenticAMD", 1), ("/firmware/initrd", None, 0),
        ("/firmware/intel-ucode/06-55-04", "GenuineIntel", 1), ("/firmware/name.xz", "AuthenticAMD", 1)]
    assert host.warnings == ["/firmware/missing: nothing is there"]
    assert found[0]["problem"] and found[2]["problem"] is None
    assert found[1]["entries"] == [{"signature": "0x00870f10", "pf_mask": None, "revision": "0x08701034", "date": "2024-01-01", "size": 3200,
                                    "min_revision": None, "valid": True, "problems": []}]
    assert found[3]["entries"][0]["pf_mask"] == "0x000000b7" and not found[3]["entries"][0]["valid"]
    assert listing.containers(host, ["/firmware/intel-ucode/06-55-04"], checksums=False)[0]["entries"][0]["valid"]


@settings(max_examples=60)
@given(st.sampled_from([b"", b"DMA\0", b"\1\0\0\0", b"070701", b"\0", b"\x1f\x8b"]), st.binary(max_size=200))
def test_any_bytes_are_one_of_them(start, data):
    for each in read(start + data):
        assert each.vendor in (None, "GenuineIntel", "AuthenticAMD") and (each.updates or each.problem or each.member or start)


def test_all_of_debians_files_are_listed_and_valid(debian_microcode):
    host = Host(str(debian_microcode))
    found = listing.containers(host, ["/lib/firmware/intel-ucode", "/lib/firmware/amd-ucode"])
    assert len(found) > 100 and host.warnings == []
    assert [each["path"] for each in found if each["problem"] or not each["entries"] or not all(entry["valid"] for entry in each["entries"])] == []
    assert set(each["vendor"] for each in found) == {"GenuineIntel", "AuthenticAMD"}
