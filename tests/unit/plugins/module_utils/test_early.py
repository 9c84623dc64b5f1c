# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Early loading, as far as no program is run: which hosts are refused, what the tools are asked, what is written into settings, what is kept."""
import os
import pathlib

import pytest
import yaml

from ansible_collections.fleet.microcode.plugins.module_utils.early import dracut, image, initramfs_tools, kept, mkinitcpio, order, xen_options
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.fleet import trees

NAMES = ("intel-ucode/06-55-04", "intel-ucode/06-55-04.initramfs")
RECORDINGS = pathlib.Path(trees.__file__).parents[1] / "lab/recordings"


# --- hosts ---

@pytest.mark.parametrize("name, words", [
    ("vm-kvm", "this is a guest (kvm)"), ("xen-guest", "this is a guest (xen)"), ("ct-docker", "this is a guest (docker)"),
    ("arm-ampere", "it is not known whether"),
    ("coreos-edge", "rpm-ostree"), ("microos-edge", "transactional-update initrd"), ("pve-node1", "update-initramfs -u, which calls it"),
    ("alpine-router", "made by mkinitfs; known are dracut, initramfs-tools, mkinitcpio")])
def test_hosts_that_are_refused(tmp_path, name, words):
    trees.build(trees.hosts()[name], tmp_path / name)
    with pytest.raises(order.Refused) as said:
        order.run(Host(str(tmp_path / name)), "present", "0x1", check=True)
    assert words in str(said.value)


def test_where_the_next_boot_loads_it_already_no_tool_is_needed(tmp_path):
    trees.build(trees.hosts()["alpine-router"], tmp_path / "alpine")
    done = order.run(Host(str(tmp_path / "alpine")), "present", "0x0000001e", check=True)
    assert (done["changed"], done["msg"], done["reboot_needed"]) == (False, "the next boot loads 0x0000001e already", True)


def test_a_revision_that_is_no_number_and_a_kernel_that_is_not_there_are_refused(tmp_path):
    trees.build(trees.hosts()["rocky9-app1"], tmp_path / "host")
    host = Host(str(tmp_path / "host"))
    for arguments, words in (({"revision": "newest"}, "newest is no number"), ({"revision": "0x0d000410", "kernels": ["5.5"]}, "no kernel 5.5 is installed")):
        with pytest.raises(order.Refused, match=words):
            order.run(host, "present", check=True, **arguments)


# --- the tools ---

@pytest.mark.parametrize("path, text, vendor, words", [
    ("/etc/default/intel-microcode", "IUCODE_TOOL_INITRAMFS=no\n", "GenuineIntel", "IUCODE_TOOL_INITRAMFS=no"),
    ("/etc/default/amd64-microcode", "AMD64UCODE_INITRAMFS='0' # off\n", "AuthenticAMD", "AMD64UCODE_INITRAMFS=0"),
    ("/etc/default/amd64-microcode", "AMD64UCODE_INITRAMFS=no\n", "GenuineIntel", None),
    ("/etc/default/intel-microcode", "#IUCODE_TOOL_INITRAMFS=no\n", "GenuineIntel", None),
    ("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=no\n", "GenuineIntel", "update_initramfs=no")])
def test_what_debian_was_told_is_respected(machine, path, text, vendor, words):
    why = initramfs_tools.why_not(machine({path: text}), vendor, None)
    assert (why is None) if words is None else (path in why and words in why)


def test_of_dracuts_settings_the_later_file_wins_and_etc_hides_the_distributions(machine):
    files = {"/usr/lib/dracut/dracut.conf.d/50-x.conf": 'early_microcode="no"\n', "/etc/dracut.conf": ""}
    assert dracut.why_not(machine(files), None, None).startswith("/usr/lib/dracut/dracut.conf.d/50-x.conf has")
    assert dracut.why_not(machine(dict(files, **{"/etc/dracut.conf.d/50-x.conf": ""})), None, None) is None
    assert dracut.why_not(machine(dict(files, **{"/etc/dracut.conf.d/99.conf": "early_microcode=yes\n"})), None, None) is None


def test_which_files_dracut_takes(machine):
    one = machine({"/lib/firmware/intel-ucode/06-55-04.initramfs": "", "/lib/firmware/updates/intel-ucode/06-55-04": "", "/boot/intel-ucode.img": ""})
    assert dracut.sources(one, "6.1", NAMES) == ["/lib/firmware/updates/intel-ucode/06-55-04", "/lib/firmware/intel-ucode/06-55-04.initramfs"]
    one = machine({"/etc/dracut.conf.d/a.conf": 'fw_dir="/srv/firmware:/opt/firmware"\n', "/srv/firmware/intel-ucode/06-55-04.xz": ""})
    assert dracut.sources(one, "6.1", NAMES) == ["/srv/firmware/intel-ucode/06-55-04.xz"]
    assert dracut.sources(one, "6.1", ("intel-ucode/06-00-00",)) == ["/boot/intel-ucode.img"]


def test_how_lsinitrd_lists(machine):
    recorded = yaml.safe_load((RECORDINGS / "dracut.yml").read_text())["situations"]
    said = next(each["stdout"] for each in recorded if each["situation"] == "what its early part holds")
    said += "lrwxrwxrwx   1 root     root            7 Nov 22 22:50 bin -> usr/bin\ncrw-r--r--   1 root     root       1,   3 Nov 22 22:50 dev/null\n"
    names = dracut.listing(machine({"/x": ""}, {"lsinitrd /x": said}), "/x")
    assert {"kernel/x86/microcode/GenuineIntel.bin", "early_cpio", "bin", "dev/null"} < names and not [name for name in names if " " in name]
    assert image.main_part(names) == {"bin", "dev/null"}


def test_mkinitcpio_makes_an_image_as_its_preset_says(machine):
    preset = "ALL_kver='/boot/vmlinuz-linux'\nPRESETS=('default' 'fallback')\n" \
        "default_image=\"/boot/i.img\"\nfallback_image=\"/boot/f.img\"\nfallback_options=\"-S autodetect\"\n"
    files = {"/etc/mkinitcpio.d/linux.preset": preset, "/etc/mkinitcpio.conf": "HOOKS=(base autodetect microcode)\n"}
    kernel = {"version": "6.17", "initrd": "/boot/f.img"}
    assert mkinitcpio.command(machine(files), kernel, "/boot/new") == [
        "mkinitcpio", "-k", "/boot/vmlinuz-linux", "-c", "/etc/mkinitcpio.conf", "-g", "/boot/new", "-S", "autodetect"]
    assert mkinitcpio.why_not(machine(files), None, kernel) is None
    assert "no preset" in mkinitcpio.why_not(machine(files), None, dict(kernel, initrd="/boot/other.img"))
    assert "has no microcode" in mkinitcpio.why_not(machine(dict(files, **{"/etc/mkinitcpio.conf": "HOOKS=(base)\n"})), None, kernel)


# --- Xen's option ---

ENTRY = {"kernel": "/boot/vmlinuz", "initrds": ["/boot/initrd"], "args": "ro", "xen": "/boot/efi/EFI/xen/xen.efi", "xen_args": "dom0_mem=1G", "ucode": None}
NAME = "GRUB_CMDLINE_XEN_DEFAULT"
GRUB = [("", '%s="ucode=scan"\n' % NAME), ("A=1", 'A=1\n%s="ucode=scan"\n' % NAME),
        ('#%s="x"\n%s="a b" # c\nB=\n' % (NAME, NAME), '#%s="x"\n%s="a b ucode=scan" # c\nB=\n' % (NAME, NAME)),
        ("%s=''" % NAME, "%s='ucode=scan'" % NAME), ("export %s=loglvl=all\n" % NAME, 'export %s="loglvl=all ucode=scan"\n' % NAME)]
CFG = [("[global]\ndefault=a\n[a]\noptions=x \nkernel=k\n[b]\noptions=y\n", "[global]\ndefault=a\n[a]\noptions=x ucode=scan\nkernel=k\n[b]\noptions=y\n"),
       ("[global]\r\ndefault=a\r\noptions=x\r\n[a]\r\nkernel=k", "[global]\r\ndefault=a\r\noptions=x ucode=scan\r\n[a]\r\nkernel=k"),
       ("[global]\ndefault=a\n[a]\nkernel=k\n", "[global]\ndefault=a\n[a]\noptions=ucode=scan\nkernel=k\n")]


@pytest.mark.parametrize("path, system, old, new", [("/etc/default/grub", "grub") + pair for pair in GRUB] + [
    ("/boot/efi/EFI/xen/xen.cfg", "xen.efi") + pair for pair in CFG])
def test_only_the_option_is_added_and_all_else_stays_byte_for_byte(machine, path, system, old, new):
    edit = xen_options.add(machine({path: old}), system, "fedora", ENTRY)
    assert (edit.path, edit.old.decode(), edit.new.decode()) == (path, old, new)
    known = {"path": path, "before": edit.before, "after": edit.after}
    back = xen_options.remove(machine({path: new}), known)
    assert back.new.decode() == old
    assert xen_options.remove(machine({path: new.replace("ucode=scan", "ucode=1")}), known) is None  # somebody has changed it


@pytest.mark.parametrize("text", ['%s="$OTHER"\n' % NAME, '%s="a\\\nb"\n' % NAME, '%s=a\n%s="$%s b"\n' % (NAME, NAME, NAME), "if x; then %s=a; fi\n" % NAME])
def test_settings_that_are_not_plainly_one_text_are_left_to_who_wrote_them(machine, text):
    with pytest.raises(order.Refused, match="add ucode=scan to it by hand"):
        xen_options.add(machine({"/etc/default/grub": text}), "grub", "fedora", ENTRY)


def test_without_grubs_settings_it_is_said_where_to_look(machine):
    with pytest.raises(order.Refused, match="xen-cmdline"):
        xen_options.add(machine({}), "grub", "rhel", ENTRY)


@pytest.mark.parametrize("change, version, words", [
    ({}, (4, 3), "Xen 4.3 does not know"), ({"xen_args": None}, True, "known to it alone"), ({"ucode": "/boot/efi/u"}, True, "the file /boot/efi/u"),
    ({"xen_args": "ucode=-1"}, (4, 17), "module -1"), ({"xen_args": "ucode=scan ucode=scan=off"}, (4, 17), "loads none")])
def test_options_that_somebody_else_decided(change, version, words):
    with pytest.raises(order.Refused, match=words):
        xen_options.check(dict(ENTRY, **change), version)
    xen_options.check(dict(ENTRY, xen_args="ucode=nmi=false"), (4, 17))


@pytest.mark.parametrize("change, words", [
    ({}, None), ({"xen_args": "dom0_mem=1G  ucode=scan"}, None), ({"xen_args": "ucode=scan"}, "Xen with  rather than dom0_mem=1G"),
    ({"kernel": "/boot/other"}, "the kernel /boot/other"),
    ({"args": "ro quiet"}, "Linux with ro quiet rather than ro"), ({"initrds": []}, "the initrd"), ({"xen": None, "xen_args": None}, "the xen None")])
def test_what_differs_between_two_entries(change, words):
    found = xen_options.differences(ENTRY, dict(ENTRY, **change))
    assert found is None if words is None else found.startswith(words), found
    assert xen_options.differences(ENTRY, None) == "?"


# --- what is kept ---

def test_the_machine_as_it_would_be(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "new").write_text("new")
    (tmp_path / "link").symlink_to("real")
    host, at = Host("/"), str(tmp_path)
    for path in (at + "/real", at + "/link"):
        assert kept.Instead(host, {path: at + "/new"}).text(at + "/link") == "new"
        assert kept.Instead(host, {path: b"bytes"}).text(at + "/real") == "bytes"
    assert kept.Instead(host, {at + "/other": b""}).text(at + "/real") == "old"


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_keeps_the_bytes_when_the_first_is_given_to_another_file(tmp_path, monkeypatch, links):
    def refuse(*_arguments):
        raise PermissionError(1, "FAT knows none")
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for name, text in (("initrd", "old"), ("new", "new"), ("kept", "older")):
        (tmp_path / name).write_text(text)
    kept.second_name(str(tmp_path / "initrd"), str(tmp_path / "kept"))
    kept.second_name(str(tmp_path / "initrd"), str(tmp_path / "kept"))
    kept.rename(str(tmp_path / "new"), str(tmp_path / "initrd"))
    assert dict((path.name, path.read_text()) for path in tmp_path.iterdir()) == {"initrd": "new", "kept": "old"}


def test_what_the_record_does_not_name_is_removed_and_nothing_outside_of_our_folder(tmp_path):
    folder = tmp_path / ".fleet-microcode"
    folder.mkdir()
    for name in ("1.kept", "2.kept", "1.77.new"):
        (folder / name).write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("")
    (tmp_path / "link").symlink_to("elsewhere")
    known = {"kernels": {"1": {"kept": str(folder / "1.kept")}}}
    kept.clean([str(folder), str(tmp_path / "link"), str(tmp_path / "none")], known)
    assert os.listdir(str(folder)) == ["1.kept"] and (tmp_path / "elsewhere/file").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}'])
def test_a_record_that_is_none_is_told_and_taken_for_empty(machine, text):
    one = machine({kept.RECORD: text})
    assert kept.record(one) == {"kernels": {}, "option": None} and "not a record" in one.warnings[0]
