# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import boot

EFIVARS = "/sys/firmware/efi/efivars/"
PLAIN = "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n"
# what grub-mkconfig 2.06 and 2.14 write before the entries; %s: the default
HEADER = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="%s"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
if [ "${prev_saved_entry}" ]; then
  set saved_entry="${prev_saved_entry}"
  save_env saved_entry
  set boot_once=true
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
if loadfont $font ; then
  set gfxmode=auto
  load_video
fi
### END /etc/grub.d/00_header ###
"""
BTRFS = HEADER.replace('if [ "${next', """\
if [ "${env_block}" ] ; then
  set env_block="(${root})${env_block}"
  export env_block
  load_env -f "${env_block}"
fi
if [ "${next""", 1)
LINUX = """\
menuentry '%(title)s' --class debian --class os $menuentry_id_option '%(ident)s' {
\tload_video
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  0a1b-2c3d
\telse
\t  search --no-floppy --fs-uuid --set=root 0a1b-2c3d
\tfi
\techo\t'Loading Linux %(version)s ...'
\tlinux\t%(base)svmlinuz-%(version)s root=UUID=0a1b-2c3d ro  quiet
\techo\t'Loading initial ramdisk ...'
\tinitrd\t%(early)s%(base)sinitrd.img-%(version)s
}
"""
XEN = """\
menuentry '%(title)s' --class xen $menuentry_id_option 'xen-%(ident)s' {
\techo\t'Loading Xen 4.17-amd64 ...'
        if [ "$grub_platform" = "pc" -o "$grub_platform" = "" ]; then
            xen_rm_opts=
        else
            xen_rm_opts="no-real-mode edd=off"
        fi
\tmultiboot2\t%(base)sxen-4.17-amd64.gz placeholder dom0_mem=2G ucode=scan ${xen_rm_opts}
\techo\t'Loading Linux %(version)s ...'
\tmodule2\t%(base)svmlinuz-%(version)s placeholder root=UUID=0a1b-2c3d ro
\techo\t'Loading initial ramdisk ...'
\tmodule2\t--nounzip   %(early)s%(base)sinitrd.img-%(version)s
}
"""
FOOTER = """\
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"""
NEW, OLD = "6.1.0-50-amd64", "6.1.0-9-amd64"


def debian(default="0", header=HEADER, base="/boot/", early="", xen=False):
    """A grub.cfg as Debian's grub-mkconfig writes it for two kernels."""
    def item(form, title, ident, version):
        return form % {"title": title, "ident": ident, "version": version, "base": base, "early": early}

    def family(form, title):
        inner = "".join(item(form, "%s, version %s" % (title, version), version + "-advanced", version) for version in (NEW, OLD))
        return item(form, title, "simple", NEW) + "submenu 'Advanced options for %s' $menuentry_id_option 'advanced' {\n%s}\n" % (title, inner)
    return header % default + family(LINUX, "Debian") + (family(XEN, "Debian, with Xen") if xen else "") + FOOTER


def environment(**values):
    text = "# GRUB Environment Block\n" + "".join("%s=%s\n" % item for item in values.items())
    return text + "#" * (1024 - len(text))


def grub(text, folder="/boot/grub", mounts=PLAIN, sysfs=True, **values):
    """The files of a machine that GRUB boots."""
    files = {"%s/%s-%s" % ("/boot", name, version): name + version for name in ("vmlinuz", "initrd.img") for version in (NEW, OLD)}
    files.update({"/boot/xen-4.17-amd64.gz": "xen", "/boot/ucode.img": "early", folder + "/grub.cfg": text, folder + "/grubenv": environment(**values),
                  "/proc/self/mountinfo": mounts})
    return dict(files, **{"/sys/firmware/acpi": None} if sysfs else {})


@pytest.fixture
def default(machine):
    """default(files, commands): what default_entry() says; the warnings are left in default.warnings."""
    def ask(files, commands=None):
        host = machine(files, commands)
        entry = boot.default_entry(host)
        ask.warnings = host.warnings
        return entry
    return ask


def variable(name, text):
    return {EFIVARS + name + "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f": b"\6\0\0\0" + (text + "\0").encode("utf-16-le")}


# --- GRUB ---

@pytest.mark.parametrize("chosen, values, version", [
    ("0", {}, NEW), ("", {}, NEW), ("7", {}, NEW), ("no such title", {}, NEW), ("1>1", {}, OLD), ("advanced>%s-advanced" % OLD, {}, OLD),
    ("Advanced options for Debian>Debian, version " + OLD, {}, OLD), ("advanced>9", {}, NEW), ("0", {"next_entry": "1>1"}, OLD),
    ("${saved_entry}", {}, NEW), ("${saved_entry}", {"saved_entry": "1>%s-advanced" % OLD}, OLD),
    ("${saved_entry}", {"saved_entry": "1>1", "prev_saved_entry": "0"}, OLD), ("${saved_entry}", {"saved_entry": "1>1", "next_entry": "0"}, NEW),
])
def test_grub_takes_the_entry_by_number_id_or_title(default, chosen, values, version):
    entry = default(grub(debian(chosen), **values))
    assert entry == {"kernel": "/boot/vmlinuz-" + version, "initrds": ["/boot/initrd.img-" + version], "args": "root=UUID=0a1b-2c3d ro quiet",
                     "xen": None, "xen_args": None, "ucode": None}
    assert default.warnings == []


@pytest.mark.parametrize("condition, taken", [
    ("[ a = a ]", True), ("[ a == b ]", False), ("[ a != b ]", True), ("[ a != a ]", False), ("[ ! a = a ]", False), ("[ ! a = b ]", True),
    ("[ -n \"\" ]", False),
    ("[ -z \"\" ]", True), ("[ a = b -o a = a ]", True), ("[ a = a -a a = b ]", False), ("[ a = b -o a = a -a x ]", True), ("[ \"$unset\" ]", False),
    ("[ '' = \"\" ]", True),
    ("[ -f $prefix/grub.cfg ]", True), ("[ -s ${prefix}/gone ]", False), ("[ \"a'b\" = a\\'b ]", True), ("[ x$feature_menuentry_id = xy ]", True),
    ("[ '$a' = $a ]", False),
])
def test_conditions(default, condition, taken):
    text = debian("0") + "if %s; then set default='1>1'; fi\n" % condition
    assert default(grub(text))["kernel"].endswith(OLD) is taken


def test_a_title_with_a_greater_than_sign_is_no_submenu(default):
    text = (HEADER % "one >> two") + "".join(LINUX % {"title": title, "ident": version, "version": version, "base": "/boot/", "early": ""}
                                             for title, version in (("other", NEW), ("one > two", OLD)))
    assert default(grub(text))["kernel"].endswith(OLD)


@pytest.mark.parametrize("wanted", ["1", "0>1", "1>0", "1>0>2"])
def test_a_submenu_boots_its_first_entry_and_what_stands_behind_an_entry_is_ignored(default, wanted):  # as grub-emu does
    assert default(grub(debian(wanted)))["initrds"] == ["/boot/initrd.img-" + NEW]


@pytest.mark.parametrize("files, reason", [
    (grub(debian("2-gone")), "no entry"),  # grub-emu 2.06, 2.12 and 2.14 take entry 2 for it, others look for the whole name
    (grub(debian("0") + "if cpuid -l; then set default=2; fi\n"), "known to GRUB alone"),
    (grub(debian("0") + "if cpuid -l; then true; elif [ a = b ]; then true; else set default=2; fi\n"), "known to GRUB alone"),
    (grub(debian("0") + "if cpuid -l; then if [ a ]; then set default=2; fi; fi\n"), "known to GRUB alone"),
    (grub(debian("0") + "if [ a ]; then true; else if cpuid -l; then set default=2; fi; fi\n"), ""),
    (grub("if [ -e (hd1)/x ]; then\nmenuentry 'before' {\nlinux /x\n}\nfi\n" + debian("1>1")), "known to GRUB alone"),
    (grub(debian("0").replace("initrd\t", "if hwmatch list 3; then initrd /boot/x; fi\ninitrd ")), ""),
    (grub(debian("0").replace("linux\t", "if hwmatch list 3; then true; else linux\t").replace("\techo\t'Loading init", "fi\n\techo 'init")),
     "known to GRUB alone"),
    (grub(debian("0").replace("vmlinuz-" + NEW, "vmlinuz-gone")), "is not there"),
    (grub((HEADER % 0) + "menuentry 'Windows' {\n\tchainloader +1\n}\n"), "loads no Linux"),
    (dict(grub(debian()), **{"/boot/grub2/grub.cfg": debian()}), "which one firmware starts is not known"),
    ({"/boot/grub/grub.cfg": "configfile (hd0)/x\n"}, "boot loaders found: none"),
    ({}, "mounted"),
    (dict(grub(debian()), **{"/boot/grub/grubenv": "short"}), "known to GRUB alone"),
])
def test_what_cannot_be_told_is_none_and_says_why(default, files, reason):
    entry = default(files)
    if not reason:  # what could not be judged does not matter: never reached, or overridden behind it
        assert entry["initrds"] == ["/boot/initrd.img-" + NEW]
    else:
        assert entry is None
        assert len(default.warnings) == 1 and reason in default.warnings[0]


def test_entries_that_may_be_there_do_not_disturb_those_before_or_named(default):
    maybe = "fwsetup --is-supported\nif [ \"$?\" = 0 ]; then\n\tmenuentry 'UEFI Firmware Settings' {\n\t\tfwsetup\n\t}\nfi\n"
    assert default(grub(debian("1>1") + maybe))["kernel"].endswith(OLD)
    assert default(grub((HEADER % ("advanced>%s-advanced" % OLD)) + maybe + debian("0")[len(HEADER % "0"):]))["kernel"].endswith(OLD)
    assert default(grub((HEADER % "2>1") + maybe + debian("0")[len(HEADER % "0"):])) is None


def test_a_custom_menu_counts(default):
    custom = "set default=mine\nmenuentry 'mine' {\n linux /boot/vmlinuz-%s single\n}\n" % OLD
    entry = default(dict(grub(debian()), **{"/boot/grub/custom.cfg": custom}))
    assert (entry["kernel"], entry["initrds"], entry["args"]) == ("/boot/vmlinuz-" + OLD, [], "single")


@pytest.mark.parametrize("base", ["/", "/@/boot/", "/@rootfs/boot/", "/BOOT/debian_x@/", "/ROOT/pve-1@/boot/", "(hd0,gpt2)/", "($root)/boot/"])
def test_files_are_found_wherever_boot_is_mounted(default, base):
    assert default(grub(debian(base=base)))["initrds"] == ["/boot/initrd.img-" + NEW]


def test_a_file_that_may_be_either_of_two_is_not_guessed(default):
    files = grub(debian(base="/"))
    files["/vmlinuz-" + NEW] = "another one"
    assert default(files) is None and "may be /boot/vmlinuz" in default.warnings[0]


def test_several_initrds_keep_their_order(default):
    assert default(grub(debian(early="/boot/ucode.img ")))["initrds"] == ["/boot/ucode.img", "/boot/initrd.img-" + NEW]


@pytest.mark.parametrize("extra, options", [({}, ""), ({"/sys/firmware/efi/fw_platform_size": "64"}, " no-real-mode edd=off")])
def test_xen_by_its_title(default, extra, options):
    entry = default(dict(grub(debian("Debian, with Xen", xen=True, base="/")), **extra))
    assert entry == {"kernel": "/boot/vmlinuz-" + NEW, "initrds": ["/boot/initrd.img-" + NEW], "args": "root=UUID=0a1b-2c3d ro",
                     "xen": "/boot/xen-4.17-amd64.gz", "xen_args": "dom0_mem=2G ucode=scan" + options, "ucode": None}


def test_a_default_that_misses_its_title_boots_the_first_entry(default):
    """As seen where /etc/default/grub.d/xen.cfg was evaluated without a distributor's name."""
    assert default(grub(debian(" GNU/Linux, with Xen", xen=True)))["xen"] is None


def test_grub_gives_xen_the_first_file_of_a_module_line_only(default):
    entry = default(grub(debian("Debian, with Xen", xen=True, early="/boot/ucode.img ")))
    assert entry["initrds"] == ["/boot/ucode.img"]
    assert default.warnings == ["GRUB loads for Xen only the first file of a module line, not /boot/initrd.img-" + NEW]
    separate = debian("Debian, with Xen", xen=True).replace("initrd.img-%s\n}" % NEW, "initrd.img-%s\n\tmodule2 --nounzip /boot/ucode.img\n}" % NEW)
    assert default(grub(separate))["initrds"] == ["/boot/initrd.img-" + NEW, "/boot/ucode.img"] and default.warnings == []


INITRDLESS = """\
\tif [ "${initrdfail}" = 1 ]; then
\t  linux\t/boot/vmlinuz-%(version)s root=UUID=x ro
\t  initrd\t/boot/initrd.img-%(version)s
\telse
\t  linux\t/boot/vmlinuz-%(version)s root=PARTUUID=x ro panic=-1
\tfi
\tinitrdfail
}
""" % {"version": NEW}


@pytest.mark.parametrize("values, initrds", [({}, []), ({"initrdfail": "1"}, ["/boot/initrd.img-" + NEW])])
def test_ubuntu_may_boot_without_an_initrd(default, values, initrds):
    assert default(grub((HEADER % 0) + "menuentry 'Ubuntu' {\n" + INITRDLESS, **values))["initrds"] == initrds


def test_the_environment_in_btrfs_header_is_asked_for(default):
    """SUSE's GRUB, and 2.14: saved_entry and next_entry are not in the file."""
    files = grub(debian("${saved_entry}", BTRFS), folder="/boot/grub2", env_block="512+1")
    assert default(files) is None and "known to GRUB alone" in default.warnings[0]
    entry = default(files, {"grub2-editenv - list": "env_block=512+1\nsaved_entry=1>1\n"})
    assert entry["kernel"].endswith(OLD) and default.warnings == []
    assert default(files, {"grub2-editenv - list": (1, "", "no")}) is None


# --- boot loader entries under GRUB ---

FEDORA = """\
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set boot_once=true
else
   set default="${saved_entry}"
fi
insmod increment
if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then
  if  [ "${boot_counter}" = "0" -o "${boot_counter}" = "-1" ]; then
    set default=1
    set boot_counter=-1
  else
    decrement boot_counter
  fi
fi
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=/dev/mapper/rl-root ro "
fi
insmod blscfg
blscfg
if [ "$grub_platform" = "efi" ]; then
  fwsetup --is-supported
  if [ "$?" = 0 ]; then
\tmenuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
\t\tfwsetup
\t}
  fi
fi
"""


def bls(names, text=FEDORA, **values):
    """A machine with one entry for each name, its kernel beside it."""
    files = {"/boot/grub2/grub.cfg": text, "/boot/grub2/grubenv": environment(**values), "/proc/self/mountinfo": PLAIN, "/sys/firmware/acpi": None}
    for name in names:
        files["/boot/vmlinuz-" + name] = files["/boot/initramfs-%s.img" % name] = name
        files["/boot/loader/entries/0123-%s.conf" % name] = (
            "# made by kernel-install\ntitle Fedora (%s)\nversion %s\nlinux /vmlinuz-%s\ninitrd /initramfs-%s.img $tuned_initrd\n"
            "options $kernelopts $tuned_params\ngrub_users $grub_users\ngrub_arg --unrestricted\n" % (name, name, name, name))
    return files


RELEASES = ["6.9.12-200.fc40.x86_64", "6.10.3-100.fc40.x86_64", "6.10.3-200.fc40.x86_64", "0-rescue"]


@pytest.mark.parametrize("values, version", [
    ({}, RELEASES[2]), ({"saved_entry": "0123-" + RELEASES[0]}, RELEASES[0]), ({"saved_entry": "Fedora (%s)" % RELEASES[1]}, RELEASES[1]),
    ({"saved_entry": "1"}, RELEASES[1]), ({"next_entry": "0123-" + RELEASES[1]}, RELEASES[1]), ({"saved_entry": "0123-gone"}, RELEASES[2]),
    ({"boot_counter": "0", "boot_success": "0"}, RELEASES[1]), ({"boot_counter": "2", "boot_success": "0"}, RELEASES[2]),
])
def test_boot_loader_entries(default, values, version):
    entry = default(bls(RELEASES, **values))
    assert (entry["kernel"], entry["initrds"]) == ("/boot/vmlinuz-" + version, ["/boot/initramfs-%s.img" % version])
    assert entry["args"].strip() == "root=/dev/mapper/rl-root ro" and default.warnings == []


def test_kernelopts_of_the_environment_come_first(default):
    assert default(bls(RELEASES, kernelopts="root=/dev/vda1 ro dis_ucode_ldr"))["args"].strip() == "root=/dev/vda1 ro dis_ucode_ldr"


def test_versions_sort_as_loaders_sort_them():
    names = ["a-1~rc1-1", "a-1-1", "a-1-1.fc9", "a-1-1.fc10", "a-1.1-1", "a-1.9-10", "a-1.10-2", "b-0-1"]
    assert sorted(reversed(names), key=boot.version_key) == names


# --- other loaders ---

def systemd_boot(conf="", base="/boot", **entries):
    files = {base + "/EFI/systemd/systemd-bootx64.efi": "", base + "/loader/loader.conf": conf, EFIVARS + "x": b""}
    for name, text in entries.items():
        files["%s/loader/entries/%s.conf" % (base, name.replace("_", "."))] = "title\tArch\nlinux   /vmlinuz-%s\n" % name + text
        files[base + "/vmlinuz-" + name] = name
    return files


def test_systemd_boot_follows_its_configuration(default):
    entries = {"arch": "initrd  /intel-ucode.img\ninitrd  /initramfs.img\noptions root=x\noptions rw\n", "lts": ""}
    images = {"/boot/intel-ucode.img": "", "/boot/initramfs.img": "1"}
    entry = default(dict(systemd_boot("timeout 3\n#default lts.conf\ndefault arch*\n", **entries), **images))
    assert entry == {"kernel": "/boot/vmlinuz-arch", "initrds": ["/boot/intel-ucode.img", "/boot/initramfs.img"], "args": "root=x rw", "xen": None,
                     "xen_args": None, "ucode": None}


@pytest.mark.parametrize("conf, variables, kernel", [
    ("default a.conf\n", {}, "a"), ("default a.conf", {"LoaderEntryDefault": "b.conf"}, "b"), ("default b.conf", {"LoaderEntryOneShot": "a.conf"}, "a"),
    ("default @saved", {"LoaderEntryLastBooted": "a.conf"}, "a"), ("default gone.conf", {}, "b"), ("", {}, "b"),
])
def test_systemd_boot_is_overridden_by_efi_variables(default, conf, variables, kernel):
    files = systemd_boot(conf, "/efi", a="", b="")
    for name, text in variables.items():
        files.update(variable(name, text))
    assert default(files)["kernel"] == "/efi/vmlinuz-" + kernel


def test_an_entry_that_boot_counting_gave_up_is_passed_over(default):
    files = systemd_boot(a="", b="")
    files["/boot/loader/entries/b+0-3.conf"] = files.pop("/boot/loader/entries/b.conf")
    files["/boot/loader/entries/a+2-1.conf"] = files.pop("/boot/loader/entries/a.conf")
    assert default(files)["kernel"] == "/boot/vmlinuz-a"


@pytest.mark.parametrize("change, reason", [
    ({EFIVARS + "x": None}, "EFI variables"),  # a folder in its place: removed below
    ({"/boot/EFI/Linux/arch.efi": "MZ"}, "which of 2 entries"),
    ({"/boot/EFI/Linux/0.efi": "MZ"}, "which of 2 entries"), ({"/boot/loader/loader.conf": "default " + "*a" * 30}, "pattern"),
    ({"/boot/loader/entries/z.conf": "title z\nsort-key z\nlinux /z\n"}, "which of 2 entries"),
    ({"/boot/loader/entries/z.conf": "title shell\nefi /shell.efi\n"}, "which of 2 entries"),
])
def test_systemd_boot_is_not_guessed(machine, change, reason):
    files = dict(systemd_boot(a=""), **change)
    if change == {EFIVARS + "x": None}:
        del files[EFIVARS + "x"]
    host = machine(files)
    assert boot.default_entry(host) is None and reason in host.warnings[0]


def test_xen_efi(default):
    config = ("[global]\ndefault=xen\n\n[xen]\noptions=console=vga loglvl=all ucode=scan\nkernel=vmlinuz root=/dev/x ro\nramdisk=initrd.img\nucode=ucode.bin\n"
              "[old]\nkernel=gone\n")
    files = {"/boot/efi/EFI/xen/" + name: name for name in ("xen.efi", "vmlinuz", "initrd.img", "ucode.bin")}
    entry = default(dict(files, **{"/boot/efi/EFI/xen/xen.cfg": config}))
    base = "/boot/efi/EFI/xen/"
    assert entry == {"kernel": base + "vmlinuz", "initrds": [base + "initrd.img"], "args": "root=/dev/x ro", "xen": base + "xen.efi",
                     "xen_args": "console=vga loglvl=all ucode=scan", "ucode": base + "ucode.bin"}
    assert default(dict(files, **{base + "xen.cfg": "[global]\ndefault=gone\n"})) is None


ALPINE = """DEFAULT menu.c32
PROMPT 0
TIMEOUT 10
# LABEL commented
LABEL virt
  MENU LABEL Linux virt
  LINUX vmlinuz-virt
%sLABEL lts
  MENU DEFAULT
  MENU LABEL Linux lts
  LINUX vmlinuz-lts
  INITRD intel-ucode.img,initramfs-lts
  APPEND root=UUID=x modules=sd-mod,ext4 quiet
"""


@pytest.mark.parametrize("text, kernel, initrds", [
    (ALPINE % "", "lts", ["/boot/intel-ucode.img", "/boot/initramfs-lts"]), (ALPINE.replace("menu.c32", "virt") % "", "virt", []),
    ((ALPINE % "").replace("  MENU DEFAULT\n", ""), "virt", []), (ALPINE.replace("DEFAULT", "ONTIMEOUT virt\nDEFAULT", 1) % "", "virt", []),
    (ALPINE.replace("menu.c32", "virt") % "  APPEND initrd=/boot/initramfs-lts quiet\n", "virt", ["/boot/initramfs-lts"]),
    (ALPINE.replace("menu.c32", "gone") % "", None, None), ("", None, None), ("DEFAULT menu.c32\n", None, None),
])
def test_extlinux(default, text, kernel, initrds):
    files = {"/boot/extlinux.conf": text}
    files.update(("/boot/" + name, name) for name in ("vmlinuz-lts", "vmlinuz-virt", "intel-ucode.img", "initramfs-lts"))
    entry = default(files)
    assert (entry and (entry["kernel"], entry["initrds"])) == (kernel and ("/boot/vmlinuz-" + kernel, initrds))


def test_rhel_8_reads_the_menu_beside_its_efi_program(default):
    files = bls(RELEASES)
    for name in ("grub.cfg", "grubenv"):
        files["/boot/efi/EFI/redhat/" + name] = files["/boot/grub2/" + name].replace(RELEASES[2], RELEASES[0])
    files["/sys/firmware/efi/fw_platform_size"] = "64"
    files["/boot/efi/EFI/redhat/grubenv"] = environment(saved_entry="0123-" + RELEASES[0])
    assert default(files)["kernel"].endswith(RELEASES[0])


# --- section boot ---

@pytest.mark.parametrize("files, line, system", [
    (grub(debian()), "BOOT_IMAGE=/vmlinuz root=UUID=x ip=dhcp", "grub"), (bls(RELEASES), "", "bls"), (systemd_boot(a=""), "", "systemd-boot"),
    ({"/efi/EFI/Linux/arch.efi": "MZ"}, "", "uki"), ({"/boot/efi/EFI/xen/xen.cfg": "[global]"}, "", "xen.efi"),
    ({"/etc/kernel/proxmox-boot-uuids": "7A1C-4E0B\n", "/boot/grub/grub.cfg": debian()}, "", "proxmox-boot-tool"),
    (dict(bls(RELEASES), **{"/run/ostree-booted": ""}), "", "ostree"), (bls(RELEASES), "root=x ostree=/ostree/boot.1/fedora/0", "ostree"),
    (dict(grub(debian(), mounts=PLAIN.replace("ext4", "btrfs").replace("rw,rel", "ro,rel")), **{"/usr/sbin/transactional-update": ""}), "",
     "transactional-update"),
    (dict(grub(debian()), **{"/usr/sbin/transactional-update": ""}), "", "grub"),
    (dict(grub(debian(), mounts=PLAIN.replace("ext4", "btrfs")), **{"/usr/sbin/transactional-update": ""}), "", "grub"),
    (grub(debian()), "netroot=iscsi:10.0.0.1::::iqn.x rd.iscsi.initiator=iqn.y ip=dhcp", "grub"),  # the firmware's disk, with GRUB on it
    (grub(debian()), "root=/dev/nfs nfsroot=10.0.0.1:/srv ip=dhcp", "network"), ({}, "initrd=x BOOTIF=01-52-54-00-12-34-56", "network"),
    ({}, "root=live:http://10.0.0.1/root.img", "network"), ({}, "quiet", None), ({"/boot/extlinux/extlinux.conf": "DEFAULT linux\n"}, None, "extlinux"),
    (dict(systemd_boot(a=""), **grub(debian())), "", "grub"),  # no loader left its name: GRUB came before them
    (dict(systemd_boot(a=""), **dict(grub(debian()), **variable("LoaderInfo", "systemd-boot 252.22"))), "", "systemd-boot"),
    ({"/boot/EFI/systemd/systemd-bootx64.efi": "", "/boot/grub/grub.cfg": debian()}, "", None),
])
def test_the_boot_system(machine, files, line, system):
    found = boot.facts(machine(files), line)
    assert found["system"] == system
    assert (found["why_not"] is None) == (found["one_time_entry"] is True)


def mounted(kind, source="/dev/sda2", number="8:2", options="rw,relatime", place="/boot"):
    return PLAIN + "30 22 %s / %s %s shared:2 - %s %s rw\n" % (number, place, options, kind, source)


@pytest.mark.parametrize("change, verdict, reason", [
    ({}, True, None), ({"mounts": mounted("xfs")}, True, None), ({"mounts": mounted("vfat", "/dev/nvme0n1p1", "259:1")}, True, None),
    ({"mounts": mounted("ext4", options="ro,noatime")}, False, "read-only"), ({"mounts": mounted("btrfs")}, False, "cannot write"),
    ({"mounts": mounted("zfs", "bpool/BOOT/x", "0:30")}, False, "cannot write"), ({"mounts": mounted("ext4", "/dev/md0", "9:0")}, False, "on RAID"),
    ({"mounts": mounted("ext4", "/dev/mapper/vg-boot", "253:1"), "/sys/dev/block/253:1/dm/uuid": "LVM-abc"}, False, "on LVM"),
    ({"mounts": mounted("ext4", "/dev/mapper/x", "253:1"), "/sys/dev/block/253:1/dm/uuid": "CRYPT-LUKS2-abc"}, None, "not known"),
    ({"mounts": mounted("ext4", "/dev/mapper/x", "253:1"), "/sys/dev/block/253:1/dm/uuid": "part1-mpath-abc"}, True, None),
    ({"mounts": mounted("ext4", "/dev/root"), "/sys/dev/block/8:2/uevent": "MAJOR=8\nDEVNAME=sda2\n"}, True, None),
    ({"mounts": mounted("ext4", "/dev/root")}, None, "not known"), ({"mounts": mounted("f2fs")}, None, "not known"),
    ({"mounts": mounted("ext4", "/dev/disk/x", "9:0"), "/sys/dev/block/9:0/md/level": "raid1"}, False, "on RAID"),
    ({"mounts": mounted("autofs", "systemd-1", "0:30") + mounted("ext4")}, True, None),  # what is mounted last is what is there
    ({"mounts": mounted("ext4", "/dev/md0", place="/boot-not")}, True, None), ({"mounts": ""}, None, "neither"),
    ({"mounts": "", "/etc/fstab": "# disks\n/dev/sda2 / ext4 defaults 0 1\n"}, True, None),
    ({"mounts": "", "/etc/fstab": "UUID=1-2 / ext4 defaults 0 1\n"}, None, "not known"),
    ({"mounts": "", "/etc/fstab": "UUID=1-2 / btrfs subvol=@ 0 1\n"}, False, "cannot write"),
    ({"/boot/grub/grubenv": ""}, False, "no environment block"), ({"/boot/grub/grubenv": environment()[:1000]}, False, "no environment block"),
    ({"/boot/grub/grubenv": "x" * 1024}, False, "no environment block"), ({"/boot/grub/grubenv": None}, False, "no environment block"),
    ({"text": debian().replace("next_entry", "other")}, False, "does not look at next_entry"),
    ({"text": debian(header=BTRFS), "mounts": mounted("btrfs"), "env_block": "512+1"}, True, None),
    ({"text": debian(header=BTRFS), "mounts": mounted("btrfs")}, False, "cannot write"),
    ({"mounts": mounted("btrfs"), "env_block": "512+1"}, False, "cannot write"),  # a menu from before
    ({"text": debian(header=BTRFS), "mounts": mounted("btrfs", "/dev/md1", "9:1"), "env_block": "512+1"}, False, "on RAID"),
])
def test_whether_grub_can_boot_an_entry_just_once(machine, change, verdict, reason):
    change = dict(change)
    files = grub(change.pop("text", debian()), mounts=change.pop("mounts", PLAIN), **{key: change.pop(key) for key in ("env_block",) if key in change})
    files.update(change)
    if files["/boot/grub/grubenv"] is None:
        del files["/boot/grub/grubenv"]
    found = boot.facts(machine(files), "")
    assert found["one_time_entry"] is verdict and (reason or "") in (found["why_not"] or "") and (found["why_not"] is None) == (verdict is True)


def test_an_environment_block_behind_a_link_is_judged_where_it_lies(machine, tmp_path):
    files = grub(debian(), folder="/boot/grub2", mounts=mounted("vfat", "/dev/sda1", place="/boot/efi") + mounted("ext4", "/dev/md0", "9:0"))
    files["/boot/efi/EFI/redhat/grubenv"] = files.pop("/boot/grub2/grubenv")
    host = machine(files)
    os.symlink("../efi/EFI/redhat/grubenv", str(tmp_path / "boot/grub2/grubenv"))
    assert boot.facts(host, "")["one_time_entry"] is True


@pytest.mark.parametrize("files, named", [
    (grub(debian()), None), (grub(debian(), next_entry="1>1"), "1>1"), (grub(debian(), next_entry=""), None),
    (dict(systemd_boot(a=""), **variable("LoaderEntryOneShot", "a.conf")), "a.conf"),
])
def test_an_armed_entry_is_told(machine, files, named):
    assert boot.facts(machine(files), "")["next_entry"] == named


KEXEC = {"/etc/default/kexec": "# kexec-tools\nLOAD_KEXEC=true\n", "/etc/init.d/kexec-load": ""}


@pytest.mark.parametrize("files, verdict", [
    ({"/sys/kernel/kexec_loaded": "1\n"}, True), ({"/sys/kernel/kexec_loaded": "0\n"}, False), ({}, None), ({"/sys/kernel/mm": None}, False),
    (KEXEC, True), (dict(KEXEC, **{"/run/systemd/system/x": "", "/sys/kernel/kexec_loaded": "0\n"}), False),
    (dict(KEXEC, **{"/run/systemd/system/x": "", "/sys/kernel/kexec_loaded": "1\n"}), True), ({"/etc/default/kexec": "LOAD_KEXEC=true\n"}, None),
    (dict(KEXEC, **{"/etc/default/kexec": "LOAD_KEXEC=false\n", "/sys/kernel/mm": None}), False),
    (dict(KEXEC, **{"/etc/default/kexec": "#LOAD_KEXEC=true\n"}), None),
])
def test_whether_a_reboot_is_a_kexec(machine, files, verdict):
    assert boot.facts(machine(files), "")["reboot_is_kexec"] is verdict


def test_a_reboot_target_that_is_kexecs(machine, tmp_path):
    host = machine({"/sys/kernel/kexec_loaded": "0", "/etc/systemd/system/x": ""})
    os.symlink("/usr/lib/systemd/system/kexec.target", str(tmp_path / "etc/systemd/system/reboot.target"))
    assert boot.facts(host, "")["reboot_is_kexec"] is True


# --- Xen's option ---

@pytest.mark.parametrize("line, option", [
    (None, None), ("", "none"), ("dom0_mem=2G console=vga", "none"), ("ucode=scan", "scan"), ("a ucode=scan b", "scan"), ("ucode=-1", "-1"), ("ucode=2", "2"),
    ("ucode=0x1", "0x1"), ("ucode=scan=no,nmi=off", "off"), ("ucode=no-scan", "off"), ("ucode=nmi=off,scan", "scan"), ("ucode=scan=yes", "scan"),
    ("ucode=scan ucode=nmi=off", "scan"), ("ucode=scan ucode=scan=0", "off"), ("ucode=scan,-1", "-1"), ("ucode=1 ucode=scan", "scan"),
    ("noucode=scan", "none"), ("ucode=nonsense", "none"), ("ucode=nmi=off", "none"), ("ucode=", "none"),
    ("ucode=" + "9" * 5000, "none"),
])
def test_xen_ucode(line, option):
    assert boot.xen_ucode(line) == option


# --- bad input ---

@pytest.mark.parametrize("text", [
    "menuentry 'x' {\n" * 3000, "}\n" * 3000 + debian(), "{ " * 5000, "if [ a ]; then\n" * 3000 + "menuentry", "fi\n" * 3000, "else\n" * 100, "submenu",
    "menuentry", "menuentry {\n}\n", "set default='\nmenuentry 'x {\n",
    'set default="\\', "linux", "menuentry x {\nlinux\n}\n", "menuentry x {\nmodule2\nmultiboot2\n}\n",
    "menuentry x {\nmultiboot2 /boot/ucode.img\nif cpuid -l; then module2 /x; fi\nmodule2 /x\n}\n", "linux /x\n" * 9 + "module /x\n" * 9,
    "menuentry x {\nmultiboot2 /boot/ucode.img\nmodule2 --nounzip\nmodule2\n}\n", "if [ ]; then set default=1; fi\nmenuentry x {\n}\n", "blscfg\n" * 99,
    "[ -s", "if\n",
    "source $prefix/grub.cfg\n" * 20 + "menuentry x {\n}\n", "$" * 99999,
    "\\" * 200000, "menuentry '" + "'\"" * 60000, "''" * 130000, "\"\"" * 130000, "\"" + "\\x" * 120000, "a=1 " * 50000, "menuentry \0 {\nlinux \0\n}\n",
    "menuentry x {\nlinux /boot/ucode.img $a\n}\n" * 2000, "set default=" + ">" * 9999 + "\nmenuentry x {\n}\n", "x" * (300 << 10),
    "menuentry\n" + "\n" * (255 << 10),
])
def test_a_broken_menu_is_no_entry_and_costs_little(machine, text):
    host = machine(grub(text))
    tracemalloc.start()
    try:
        entry = boot.default_entry(host)
        boot.facts(host, "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entry is None or entry["kernel"] == "/boot/ucode.img" or entry["kernel"].endswith(NEW)
    assert peak < 8 << 20


def test_folders_pipes_and_link_loops_in_place_of_files(machine, tmp_path):
    host = machine({"/boot/grub/grub.cfg/x": "", "/boot/grub2/y": "", "/boot/loader/entries/a.conf/x": ""})
    os.symlink("grub.cfg", str(tmp_path / "boot/grub2/grub.cfg"))
    os.mkfifo(str(tmp_path / "boot/grub2/grubenv"))
    os.symlink("loop", str(tmp_path / "boot/loop"))
    os.symlink("/boot/loop", str(tmp_path / "boot/EFI"))
    assert boot.default_entry(host) is None
    assert boot.facts(host, "")["system"] is None


WORDS = st.sampled_from(
    "if elif else fi then [ ] ; { } -a -o -z -n -s ! = != menuentry submenu linux initrd module2 multiboot2 set default=1 default=x load_env blscfg".split()
    + "function source configfile search --set=root --id a=$b > >> ${ $ \" ' \\ # 'x' \"y\" $prefix/grub.cfg $prefix/grubenv $menuentry_id_option".split()
    + ['"${next_entry}"', 'default="${saved_entry}"', "/boot/vmlinuz-" + NEW, "\n", "\n", "x>y", "\0"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS, max_size=60), entry=st.text(max_size=80))
def test_no_menu_raises(machine, words, entry):
    files = grub(" ".join(words) + "\nblscfg\n", saved_entry="x>1")
    files["/boot/loader/entries/a.conf"] = entry
    host = machine(files)
    found = boot.default_entry(host)
    assert found is None or host.exists(found["kernel"])
    boot.facts(host, entry)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=60) | st.sampled_from((
    "default *", "linux /a", "[global]\ndefault=x", "kernel=a", "sort-key b", "LABEL a\nDEFAULT a\nKERNEL", "menu default")), min_size=4, max_size=4),
    data=st.binary(max_size=60))
def test_no_other_file_raises(machine, texts, data):
    host = machine(dict(systemd_boot(texts[0], a="\n" + texts[1]), **{EFIVARS + "LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f": data}))
    boot.default_entry(host)
    boot.xen_ucode(texts[2])
    host = machine({"/boot/EFI/systemd/systemd-bootx64.efi": ""})
    boot.facts(host, texts[3])
    other = machine({"/boot/extlinux.conf": "\n".join(texts)})
    boot.default_entry(other)
    other = machine({"/proc/self/mountinfo": "\n".join(texts), "/etc/fstab": "\n".join(texts), "/usr/sbin/transactional-update": ""})
    boot.facts(other, texts[2])
