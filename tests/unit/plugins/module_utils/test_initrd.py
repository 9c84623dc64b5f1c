# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import initrd
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor
from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_cpio, made_intel

CPU = Processor("GenuineIntel", 0x50654, 0x80, 0x2000050)
ZEN = Processor("AuthenticAMD", 0x00a00f11, None, 0x0a001137)
NEW, OLD = "6.1.0-50-amd64", "6.1.0-9-amd64"


def intel(revision=0x2007006, **fields):
    return made_intel.update(revision=revision, **fields)


def early(data, name=made_cpio.INTEL):
    """An image of nothing but microcode, such as intel-ucode.img."""
    return made_cpio.early({name: data})


def image(data=None, main=4096):
    """An initrd as initramfs-tools or dracut builds it: microcode, if any, then what is compressed."""
    return made_cpio.with_main(early(data) if data else b"", main)


def entry(kernel="/boot/vmlinuz-" + NEW, *initrds, **more):
    """What boot.default_entry() returns."""
    return dict({"kernel": kernel, "initrds": list(initrds), "args": "ro quiet", "xen": None, "xen_args": None, "ucode": None}, **more)


def debian(new=intel(), old=intel(0x2000064)):
    return {"/boot/vmlinuz-" + NEW: NEW, "/boot/vmlinuz-" + OLD: OLD, "/boot/initrd.img-" + NEW: image(new), "/boot/initrd.img-" + OLD: image(old),
            "/boot/System.map-" + NEW: "", "/boot/vmlinuz-%s.old" % OLD: "", "/boot/vmlinuz-0-rescue-0123": "", "/lib/modules/%s/x" % NEW: "",
            "/lib/modules/%s/x" % OLD: "", "/usr/sbin/update-initramfs": "#!/bin/sh\n"}


DEFAULT = entry("/boot/vmlinuz-" + NEW, "/boot/initrd.img-" + NEW)


def told(machine, files, default=DEFAULT, processor=CPU, xen=False, running=OLD, line="ro quiet"):  # pylint: disable=dangerous-default-value
    """(section early, pending, warnings)."""
    host = machine(files)
    return initrd.facts(host, processor, default, xen, running, line) + (host.warnings,)


def test_each_kernel_with_what_its_initrd_carries(machine):
    early_section, pending, warnings = told(machine, debian())
    assert early_section == {"tool": "initramfs-tools", "xen_ucode": None, "disabled": False, "loads": "update", "kernels": [
        {"version": NEW, "initrd": "/boot/initrd.img-" + NEW, "image": None, "revision": "0x02007006", "carries": "update", "running": False, "default": True},
        {"version": OLD, "initrd": "/boot/initrd.img-" + OLD, "image": None, "revision": "0x02000064", "carries": "update", "running": True, "default": False}]}
    assert pending == "0x02007006" and warnings == []


@pytest.mark.parametrize("runs, pending", [(0x2000050, "0x02007006"), (0x2007005, "0x02007006"), (0x2007006, None), (0x2007007, None)])
def test_only_what_is_newer_is_pending(machine, runs, pending):
    assert told(machine, debian(), processor=CPU._replace(revision=runs))[1:] == (pending, [])


def test_what_is_not_known_to_run_makes_nothing_pending(machine):
    pending, warnings = told(machine, debian(), processor=CPU._replace(revision=None))[1:]
    assert pending is None and "0x02007006" in warnings[0] and "which one runs is not known" in warnings[0]


@pytest.mark.parametrize("line, args, disabled, pending", [
    ("ro", "ro", False, True), ("ro dis_ucode_ldr", "ro", True, True), ("ro", "dis_ucode_ldr ro", True, False),
    ("ro", "microcode=dbg,dis_ucode_ldr", True, False),
    ("ro", "xdis_ucode_ldr dis_ucode_ldrs microcode.dis_ucode_ldr", False, True), (None, "ro", None, True), ("ro", None, None, False),
    ("dis_ucode_ldr", None, True, False),
])
def test_a_loader_that_is_switched_off_loads_nothing(machine, line, args, disabled, pending):
    early_section, awaited, _warnings = told(machine, debian(), dict(DEFAULT, args=args), line=line)
    assert early_section["disabled"] is disabled and (awaited is not None) == pending
    assert early_section["loads"] == ("update" if pending else "none" if args else None)


def test_without_a_default_entry_the_kernels_are_still_told(machine):
    early_section, pending, _warnings = told(machine, debian(), None)
    assert [each["revision"] for each in early_section["kernels"]] == ["0x02007006", "0x02000064"] and pending is None
    assert early_section["disabled"] is None and not any(each["default"] for each in early_section["kernels"])


# --- what is carried ---

@pytest.mark.parametrize("data, carries, revision, warning", [
    (image(intel()), "update", "0x02007006", None), (image(), "none", None, None), (image(intel(signature=0x306c3)), "none", None, None),
    (image(intel(pf_mask=0x01)), "none", None, None), (image(intel(checksum=1)), None, None, "wrong checksum"), (image(intel()[:1000]), None, None, "cut off"),
    (early(intel())[:700], None, None, "cut off"), (b"", None, None, "empty"), (b"\xff" * 2000, None, None, "neither"),
    (image(intel(0x2000064) + intel()), "update", "0x02007006", None),
    (image(made_intel.update(signature=0x306c3, checksum=1) + intel()), "update", "0x02007006", None),
])
def test_none_is_told_apart_from_not_known(machine, data, carries, revision, warning):
    early_section, pending, warnings = told(machine, dict(debian(), **{"/boot/initrd.img-" + NEW: data}))
    kernel = early_section["kernels"][0]
    assert (kernel["carries"], kernel["revision"], pending) == (carries, revision, revision)
    assert len(warnings) == (warning is not None) and (warning or "") in "".join(warnings)


@pytest.mark.parametrize("images, revision", [
    ([early(intel()), image()], "0x02007006"), ([early(intel(0x2000064)), image(intel())], "0x02000064"),  # the first one counts, newer or not
    ([early(b"x", made_cpio.AMD), image(intel())], "0x02007006"), ([image(), early(intel())], None),  # nothing is found behind compressed data
    ([early(intel(signature=0x306c3)), image(intel())], None), ([made_cpio.early({"early_cpio": b"1"}), image(intel())], "0x02007006"),
])
def test_linux_takes_the_first_microcode_file_in_the_order_of_the_initrds(machine, images, revision):
    files = dict(debian(), **{"/boot/first.img": images[0], "/boot/initrd.img-" + NEW: images[1]})
    default = entry("/boot/vmlinuz-" + NEW, "/boot/first.img", "/boot/initrd.img-" + NEW)
    early_section, pending, _warnings = told(machine, files, default)
    assert early_section["kernels"][0]["revision"] == pending == revision


def test_amd(machine):
    container = made_amd.container([(0x00a00f11, 0xa011)], [made_amd.patch(0x0a0011d5, 0xa011)])
    files = dict(debian(), **{"/boot/initrd.img-" + NEW: made_cpio.with_main(early(container, made_cpio.AMD))})
    early_section, pending, warnings = told(machine, files, processor=ZEN)
    assert [each["carries"] for each in early_section["kernels"]] == ["update", "none"] and pending == "0x0a0011d5"
    assert len(warnings) == 1 and "AMD-SB-7033" in warnings[0]  # what the next boot's kernel knows, only it can tell


@pytest.mark.parametrize("path, config, processor, loads", [
    ("/boot/config-" + NEW, "CONFIG_MICROCODE=y\nCONFIG_EXTRA_FIRMWARE=\"i915/x.bin intel-ucode/06-55-04\"\n", CPU, None),
    ("/boot/config-" + NEW, "CONFIG_MICROCODE=y\nCONFIG_EXTRA_FIRMWARE=\"intel-ucode/06-55-07\"\n", CPU, "update"),  # of another processor
    ("/boot/config-" + NEW, "# CONFIG_MICROCODE is not set\n", CPU, "none"),
    ("/lib/modules/%s/config" % NEW, "CONFIG_MICROCODE=y\n# CONFIG_MICROCODE_INTEL is not set\n", CPU, "none"),
    ("/boot/config-" + NEW, "CONFIG_MICROCODE=y\n# CONFIG_MICROCODE_AMD is not set\n", CPU, "update"),
    ("/boot/config-" + OLD, "# CONFIG_MICROCODE is not set\n", CPU, "update"),  # the next boot's kernel decides
])
def test_a_kernel_without_loader_or_with_microcode_in_itself_takes_none_from_its_initrd(machine, path, config, processor, loads):
    early_section, pending, warnings = told(machine, dict(debian(), **{path: config}), processor=processor)
    assert early_section["loads"] == loads and (pending is not None) == (loads == "update")
    assert early_section["kernels"][0]["carries"] == "update" and len(warnings) == (loads is None)


def test_with_an_unknown_loader_an_image_beside_the_initrd_may_be_read_first(machine):
    files = {"/boot/vmlinuz-linux": "k", "/boot/initramfs-linux.img": image(), "/boot/amd-ucode.img": b"x"}
    assert told(machine, files, None)[0]["kernels"][0]["carries"] == "none"
    assert told(machine, dict(files, **{"/boot/intel-ucode.img": early(intel())}), None)[0]["kernels"][0]["carries"] is None


def test_no_initrd_at_all(machine):
    files = {"/boot/vmlinuz-" + NEW: "", "/lib/modules/%s/x" % NEW: ""}
    assert told(machine, files, entry())[0]["kernels"][0]["carries"] == "none"  # that none is loaded is known
    assert told(machine, files, None)[0]["kernels"][0]["carries"] is None


def test_of_a_large_initrd_only_the_head_is_read(machine, tmp_path, monkeypatch):
    host, taken = machine(debian()), []
    with open(str(tmp_path / "boot" / ("initrd.img-" + NEW)), "r+b") as stream:
        stream.truncate(1 << 30)

    class Counted(io.FileIO):
        def read(self, size=-1):
            data = io.FileIO.read(self, size)
            taken.append(len(data))
            return data
    monkeypatch.setattr(host, "open", lambda path: Counted(host.locate(path)) if "initrd" in path else None)
    assert initrd.facts(host, CPU, DEFAULT, False, OLD, "ro")[1] == "0x02007006"
    assert 0 < sum(taken) < 64 << 10


# --- each distribution's names ---

def test_arch_names_images_of_microcode_before_each_kernels_initrd(machine):
    files = {"/boot/vmlinuz-linux": "a", "/boot/vmlinuz-linux-lts": "b", "/boot/initramfs-linux.img": image(), "/boot/initramfs-linux-lts.img": image(),
             "/boot/initramfs-linux-fallback.img": image(), "/boot/intel-ucode.img": early(intel()), "/boot/amd-ucode.img": early(b"x", made_cpio.AMD),
             "/usr/lib/modules/6.17.8-arch1-1/pkgbase": "linux\n", "/usr/lib/modules/6.12.58-1-lts/pkgbase": "linux-lts\n", "/usr/bin/mkinitcpio": ""}
    os_links = entry("/boot/vmlinuz-linux", "/boot/amd-ucode.img", "/boot/intel-ucode.img", "/boot/initramfs-linux.img")
    host = machine(files)
    os.symlink("usr/lib", host.root + "/lib")
    early_section, pending = initrd.facts(host, CPU, os_links, False, "6.17.8-arch1-1", "rw")
    assert early_section["tool"] == "mkinitcpio" and pending == "0x02007006"
    assert {"version": "6.17.8-arch1-1", "initrd": "/boot/initramfs-linux.img", "image": "/boot/intel-ucode.img",
            "revision": "0x02007006", "carries": "update", "running": True,
            "default": True} in early_section["kernels"]
    assert {"version": "6.12.58-1-lts", "initrd": "/boot/initramfs-linux-lts.img", "image": "/boot/intel-ucode.img",
            "revision": "0x02007006", "carries": "update", "running": False,
            "default": False} in early_section["kernels"]


@pytest.mark.parametrize("kernel, image_name, release", [
    ("vmlinuz-6.12.0-124.el10.x86_64", "initramfs-6.12.0-124.el10.x86_64.img", "6.12.0-124.el10.x86_64"), ("vmlinuz-lts", "initramfs-lts", "6.12.50-0-lts"),
    ("vmlinuz-6.4.0-150600.23-default", "initrd-6.4.0-150600.23-default", "6.4.0-150600.23-default"),
    ("kernel-genkernel-x86_64-6.6.58-gentoo", "initramfs-genkernel-x86_64-6.6.58-gentoo", "genkernel-x86_64-6.6.58-gentoo"),
    ("vmlinuz-6.6.58-gentoo-dist", "initramfs-6.6.58-gentoo-dist.img", "6.6.58-gentoo-dist"),
])
def test_names_of_other_distributions(machine, kernel, image_name, release):
    files = {"/boot/" + kernel: "k", "/boot/" + image_name: image(intel()), "/lib/modules/%s/x" % release: "", "/lib/modules/5.4.1/x": ""}
    kernels = told(machine, files, None, running=release)[0]["kernels"]
    assert kernels == [{"version": release, "initrd": "/boot/" + image_name, "image": None,
                        "revision": "0x02007006", "carries": "update", "running": True, "default": False}]


def test_gentoo_with_an_image_of_microcode_named_first(machine):
    files = {"/boot/kernel-6.6.58-gentoo": "k", "/boot/initramfs-6.6.58-gentoo.img": image(), "/boot/intel-uc.img": early(intel()), "/usr/bin/genkernel": ""}
    early_section, pending, _warnings = told(machine, files, entry("/boot/kernel-6.6.58-gentoo", "/boot/intel-uc.img", "/boot/initramfs-6.6.58-gentoo.img"))
    assert pending == "0x02007006" and early_section["tool"] == "genkernel" and early_section["kernels"][0]["initrd"] == "/boot/initramfs-6.6.58-gentoo.img"
    assert early_section["kernels"][0]["image"] == "/boot/intel-uc.img"


def test_a_kernel_on_the_efi_system_partition(machine):
    base = "/efi/0123/%s/" % NEW
    files = {base + "linux": "k", base + "initrd.img": image(intel()), "/lib/modules/%s/x" % NEW: "", "/usr/bin/dracut": ""}
    early_section, pending, _warnings = told(machine, files, entry(base + "linux", base + "initrd.img"), running=NEW)
    assert early_section["kernels"] == [{"version": NEW, "initrd": base + "initrd.img", "image": None,
                                         "revision": "0x02007006", "carries": "update", "running": True,
                                         "default": True}]
    assert pending == "0x02007006" and early_section["tool"] == "dracut"


def test_a_link_to_a_kernel_is_no_second_one(machine, tmp_path):
    """As XCP-ng names its kernel in the menu."""
    host = machine({"/boot/vmlinuz-4.19.0+1": "k", "/boot/initrd-4.19.0+1.img": image(intel()), "/lib/modules/4.19.0+1/x": ""})
    os.symlink("vmlinuz-4.19.0+1", str(tmp_path / "boot/vmlinuz-4.19-xen"))
    os.symlink("initrd-4.19.0+1.img", str(tmp_path / "boot/initrd-4.19-xen.img"))
    default = entry("/boot/vmlinuz-4.19-xen", "/boot/initrd-4.19-xen.img", xen="/boot/xen-4.17.5-3.gz", xen_args="ucode=scan")
    early_section, pending = initrd.facts(host, CPU, default, True, "4.19.0+1", "ro")
    assert early_section["kernels"] == [{"version": "4.19.0+1", "initrd": "/boot/initrd-4.19-xen.img", "image": None,
                                         "revision": "0x02007006", "carries": "update",
                                         "running": True, "default": True}] and pending == "0x02007006"


@pytest.mark.parametrize("files, tool", [
    ({"/usr/sbin/update-initramfs": "#!/bin/sh\n", "/usr/sbin/mkinitramfs": ""}, "initramfs-tools"),
    ({"/usr/sbin/update-initramfs": "#!/bin/sh\nexec dracut --force\n", "/usr/bin/dracut": ""}, "dracut"),  # Debian's dracut brings such a script
    ({"/usr/sbin/update-initramfs": "#!/bin/sh\n", "/usr/bin/dracut": ""}, "initramfs-tools"),  # dracut-core alone installs no hook
    ({"/usr/bin/dracut": "", "/etc/initramfs-tools/initramfs.conf": "MODULES=most\n"}, "dracut"),  # configuration outlives its package
    ({"/sbin/mkinitfs": ""}, "mkinitfs"), ({"/usr/bin/booster": ""}, "booster"), ({}, None), ({"/usr/bin/dracut": "", "/usr/bin/mkinitcpio": ""}, None),
])
def test_which_tool_builds_initrds(machine, files, tool):
    early_section, _pending, warnings = told(machine, files, None)
    assert early_section["tool"] == tool and len(warnings) == (len(files) == 2 and tool is None)


# --- Xen ---

def xen(xen_args, *initrds, **more):
    return entry("/boot/vmlinuz-" + NEW, *(initrds or ("/boot/initrd.img-" + NEW,)), **dict({"xen": "/boot/xen-4.17-amd64.gz", "xen_args": xen_args}, **more))


@pytest.mark.parametrize("default, option, pending, warning", [
    (xen("ucode=scan"), "scan", True, None), (xen("dom0_mem=2G"), "none", False, None), (xen("ucode=scan=no"), "off", False, None),
    (xen("ucode=scan", "/boot/plain.img", "/boot/initrd.img-" + NEW), "scan", True, None),  # each module is looked into, packed or not
    (xen("ucode=1", "/boot/raw.bin"), "1", True, None), (xen("ucode=-1", "/boot/plain.img", "/boot/raw.bin"), "-1", True, None),
    (xen("ucode=0", "/boot/raw.bin"), "0", False, None), (xen("ucode=2", "/boot/raw.bin"), "2", False, None),
    (xen("ucode=-2", "/boot/raw.bin"), "-2", False, None),
    (xen("ucode=0x1", "/boot/raw.bin"), "0x1", True, None), (xen("ucode=010", "/boot/raw.bin"), "010", False, None), (xen("ucode=1"), "1", False, None),
    (xen("ucode=off", ucode="/boot/raw.bin"), "/boot/raw.bin", True, None), (xen(None), None, False, None),
    (xen("", xen="/boot/xen-4.21.gz"), "none", False, "built to scan"), (xen("", xen="/boot/xen.gz"), "none", False, "built to scan"),
    (xen("ucode=1", "/boot/plain.img", xen="/boot/xen-4.21.gz"), "1", False, None), (xen("ucode=1", xen="/boot/xen-4.22.gz"), "1", True, None),
    (xen("ucode=scan", args="dis_ucode_ldr"), "scan", True, None),  # Linux's option is nothing to Xen
])
def test_on_xen_its_own_option_decides(machine, default, option, pending, warning):
    files = dict(debian(), **{"/boot/raw.bin": intel(), "/boot/plain.img": image(), "/boot/xen.gz": "", "/boot/xen-4.17-amd64.gz": ""})
    files.update({"/boot/xen-4.21.gz": "", "/boot/xen-4.22.gz": ""})
    early_section, awaited, warnings = told(machine, files, default, xen=True)
    assert early_section["xen_ucode"] == option and (awaited == "0x02007006") == pending and (awaited is None) != pending
    assert early_section["loads"] == ("update" if pending else None if warning or option is None else "none")
    assert len(warnings) == (warning is not None) and (warning or "") in "".join(warnings)


def test_xens_version_is_known_by_the_name_behind_a_link(machine, tmp_path):
    host = machine(dict(debian(), **{"/boot/xen-4.17.5-3.gz": ""}))
    os.symlink("xen-4.17.5-3.gz", str(tmp_path / "boot/xen.gz"))
    assert initrd.facts(host, CPU, xen("", xen="/boot/xen.gz"), True, OLD, "ro")[1] is None and host.warnings == []


def test_dom0_that_will_boot_without_xen(machine):
    early_section, pending, _warnings = told(machine, debian(), xen=True)
    assert early_section["xen_ucode"] is None and pending == "0x02007006"


# --- bad input ---

def test_an_initrd_that_root_alone_may_read(machine, monkeypatch):
    host = machine(debian())
    monkeypatch.setattr(host, "open", lambda path: None)
    early_section, pending = initrd.facts(host, CPU, DEFAULT, False, OLD, "ro")
    assert [each["carries"] for each in early_section["kernels"]] == [None, None] and pending is None
    assert len(host.warnings) == 2 and all("become" in each for each in host.warnings)


def test_pipes_folders_and_link_loops_in_place_of_initrds(machine, tmp_path):
    host = machine({"/boot/vmlinuz-%d" % number: "" for number in range(4)})
    os.mkfifo(str(tmp_path / "boot/initrd.img-0"))
    os.mkdir(str(tmp_path / "boot/initrd.img-1"))
    os.symlink("initrd.img-2", str(tmp_path / "boot/initrd.img-2"))
    os.symlink("/dev/zero", str(tmp_path / "boot/initrd.img-3"))
    early_section, pending = initrd.facts(host, CPU, entry("/boot/vmlinuz-0", "/boot/initrd.img-0"), False, OLD, "ro")
    assert [each["carries"] for each in early_section["kernels"]] == [None] * 4 and pending is None


def test_hundreds_of_kernels(machine):
    early_section, _pending, warnings = told(machine, {"/boot/vmlinuz-6.1.%d" % number: "" for number in range(200)}, None)
    versions = [each["version"] for each in early_section["kernels"]]
    assert versions == ["6.1.%d" % number for number in range(199, 167, -1)] and "200 kernels" in warnings[0]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_initrd_raises(machine, data):
    content = bytearray(data.draw(st.sampled_from([image(intel()), early(intel()), intel(), b"\0" * 600, b""])))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=6)):
        content[place:place + 1] = bytes([value])
    content = bytes(content[:data.draw(st.sampled_from([110, 600, 700, 1 << 20]))])
    option = data.draw(st.sampled_from(["ucode=scan", "ucode=1", "ucode=-1", "", None]))
    files = dict(debian(), **{"/boot/initrd.img-" + NEW: content})
    for default in (DEFAULT, xen(option)):
        early_section, pending, warnings = told(machine, files, default, data.draw(st.sampled_from([CPU, ZEN])))
        kernel = early_section["kernels"][0]
        assert (kernel["carries"] == "update") == (kernel["revision"] is not None) and (kernel["carries"] is not None or warnings)
        assert pending is None or int(pending, 16) > 0
