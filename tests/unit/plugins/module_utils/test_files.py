# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import hashlib
import lzma
import os

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import files
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor
from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_cpio, made_intel

XEON = Processor("GenuineIntel", 0x50654, 0x80, 0x2000050)
MILAN = Processor("AuthenticAMD", 0xa00f11, None, 0xa0011d5)
BASE = "/lib/firmware/intel-ucode/"


def found(host, processor=XEON, release="6.1.0-41-amd64"):
    return dict((entry["path"], entry) for entry in files.facts(host, processor, release, False))


@pytest.mark.parametrize("signature, name", [(0x50654, "06-55-04"), (0x906a4, "06-9a-04"), (0xf49, "0f-04-09"), (0x306f2, "06-3f-02"), (0x6b1, "06-0b-01")])
def test_intel_names_are_family_model_and_stepping_in_hex(signature, name):
    assert files.names(XEON._replace(signature=signature)) == ("intel-ucode/" + name, "intel-ucode/" + name + ".initramfs")


@pytest.mark.parametrize("signature, name", [
    (0x100f43, "microcode_amd.bin"), (0x500f10, "microcode_amd.bin"), (0x600f20, "microcode_amd_fam15h.bin"), (0x830f10, "microcode_amd_fam17h.bin"),
    (0xa00f11, "microcode_amd_fam19h.bin"), (0xb00f21, "microcode_amd_fam1ah.bin"),
])
def test_amd_names_are_by_family(signature, name):
    assert files.names(MILAN._replace(signature=signature)) == ("amd-ucode/" + name,)


def test_a_file_is_told_with_digest_date_and_minimum(machine):
    data = made_intel.update(signature=0x50654, pf_mask=0xb7, revision=0x2007006, date="2023-03-06", min_revision=0x2006b06)
    entry = found(machine({BASE + "06-55-04": data}))[BASE + "06-55-04"]
    assert entry == {"path": BASE + "06-55-04", "revision": "0x02007006", "date": "2023-03-06", "min_revision": "0x02006b06", "problem": None,
                     "sha256": hashlib.sha256(data).hexdigest(), "package": None, "early_only": False, "caveat": None}


def test_debians_initramfs_names_are_for_early_loading_only(machine):
    entry = found(machine({BASE + "06-55-04.initramfs": made_intel.update()}))[BASE + "06-55-04.initramfs"]
    assert entry["early_only"] is True


def test_rhels_caveats_are_named(machine):
    folder = files.CAVEATS + "intel-06-55-04/"
    entry = found(machine({folder + "intel-ucode/06-55-04": made_intel.update(), folder + "readme": "text"}))[folder + "intel-ucode/06-55-04"]
    assert entry["caveat"] == "intel-06-55-04"


def test_a_ready_image_is_a_candidate_for_early_loading_only(machine):
    image = made_cpio.early({made_cpio.INTEL: made_intel.update() + made_intel.update(signature=0x50657)})
    entry = found(machine({"/boot/intel-ucode.img": image, "/boot/amd-ucode.img": b"x"}))
    assert list(entry) == ["/boot/intel-ucode.img"]
    assert (entry["/boot/intel-ucode.img"]["revision"], entry["/boot/intel-ucode.img"]["early_only"]) == ("0x02007006", True)


def test_only_files_that_can_concern_this_processor_are_opened(machine, monkeypatch):
    host = machine({BASE + "06-55-04": made_intel.update(), BASE + "06-55-07": made_intel.update(signature=0x50657), BASE + "06-55-04_DUPLICATE": b"x",
                    "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin": b"x"})
    opened = []
    monkeypatch.setattr(host, "open", lambda path, real=host.open: opened.append(path) or real(path))
    found(host)
    assert set(path for path in opened if "ucode" in path) == {BASE + "06-55-04"}


def test_a_merged_usr_shows_each_file_once(machine, tmp_path):
    host = machine({"/usr" + BASE + "06-55-04": made_intel.update(), "/usr/lib/firmware/6.1/intel-ucode": None})
    os.symlink("usr/lib", str(tmp_path / "lib"))
    os.symlink("../../intel-ucode/06-55-04", str(tmp_path / "usr/lib/firmware/6.1/intel-ucode/06-55-04"))  # as microcode_ctl links them
    assert len(found(host, release="6.1")) == 1


def test_files_come_in_the_order_in_which_a_late_load_looks_for_them(machine):
    packed = lzma.compress(made_intel.update(revision=0x2007007))
    host = machine({"/lib/firmware/updates/intel-ucode/06-55-04.xz": packed, BASE + "06-55-04": made_intel.update()})
    assert list(found(host)) == [BASE + "06-55-04", "/lib/firmware/updates/intel-ucode/06-55-04.xz"]


@pytest.mark.parametrize("data, reason", [
    (b"", "empty"), (b"\0" * 2048, "neither"), (made_intel.update()[:-100], "cut off"),
    (made_intel.update()[:1000] + b"\xff" + made_intel.update()[1001:], "checksum"), (b"some text", "neither Intel nor AMD"),
])
def test_a_damaged_file_is_listed_without_a_revision_and_explained(machine, data, reason):
    host = machine({BASE + "06-55-04": data})
    entry = found(host)[BASE + "06-55-04"]
    assert entry["revision"] is None
    assert reason in entry["problem"]
    assert host.warnings == [BASE + "06-55-04: " + entry["problem"]]


def test_a_wrong_checksum_of_any_update_spoils_the_file(machine):
    host = machine({BASE + "06-55-04": made_intel.update(pf_mask=0x01, checksum=1) + made_intel.update()})  # Linux checks them all
    entry = found(host)[BASE + "06-55-04"]
    assert entry["revision"] is None and "wrong checksum" in entry["problem"]


@pytest.mark.parametrize("data", [made_intel.update(signature=0x50657), made_intel.update(pf_mask=0x01)])
def test_a_file_that_holds_nothing_for_this_processor_is_no_problem(machine, data):
    host = machine({BASE + "06-55-04": data})
    entry = found(host)[BASE + "06-55-04"]
    assert (entry["revision"], entry["problem"], host.warnings) == (None, None, [])


def test_fifo_loop_and_sparse_giant(machine, tmp_path):
    host = machine({BASE: None})
    os.mkfifo(str(tmp_path / "lib/firmware/intel-ucode/06-55-04"))
    os.symlink("06-55-04.initramfs", str(tmp_path / "lib/firmware/intel-ucode/06-55-04.initramfs"))
    with open(str(tmp_path / "lib/firmware/intel-ucode/06-55-04.xz"), "wb") as stream:
        stream.truncate(1 << 30)
    assert [entry["revision"] for entry in found(host).values()] == [None, None]
    text = "\n".join(host.warnings)
    assert "not a regular file" in text
    assert "symbolic links" in text
    assert "far beyond" in text


def test_a_packed_amd_container(machine):
    data = made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011de, 0xa011)])
    path = "/usr/lib/firmware/amd-ucode/microcode_amd_fam19h.bin.xz"
    packed = lzma.compress(data, check=lzma.CHECK_CRC32)
    entry = found(machine({path: packed}), MILAN)[path]
    assert (entry["revision"], entry["sha256"]) == ("0x0a0011de", hashlib.sha256(packed).hexdigest())


def test_a_file_that_waits_for_firmware_says_for_which_revision(machine):
    data = made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011de, 0xa011, min_revision=0xa0011d9)])
    entry = found(machine({"/lib/firmware/amd-ucode/microcode_amd_fam19h.bin": data}), MILAN).popitem()[1]
    assert (entry["revision"], entry["min_revision"], type(entry["problem"])) == (None, "0x0a0011d9", str)
