# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand-ins of simulated hosts for tools that build initrds and boot menus and install packages: what comes of them on the disk."""
import contextlib
import importlib
import io
import json
import sys
from collections import namedtuple

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import boot, container
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.fleet import trees

Said = namedtuple("Said", "status out err")
INTEL = {"intel-ucode/06-55-04": ["skx-7006"], "intel-ucode/06-55-07": ["clx-3901"], "intel-ucode/06-3f-02.initramfs": ["hsx-49"]}
AMD = {"amd-ucode/microcode_amd_fam19h.bin": ["milan-11d5"], "amd-ucode/microcode_amd_fam17h.bin": ["rome-107c"]}
PACKAGES = [{"name": "intel-microcode", "version": "1", "files": INTEL}, {"name": "amd64-microcode", "version": "1", "files": AMD}]
SKX, CLX, HSX, MILAN, ROME = (0x50654, 0x2007006), (0x50657, 0x5003901), (0x306f2, 0x49), (0xa00f11, 0x0a0011d5), (0x830f10, 0x0830107c)
IMAGE = "/boot/initrd.img-6.1.0-56-amd64"


@pytest.fixture
def inside(monkeypatch):
    """import_module() of the stand-ins, which know each other by their bare names."""
    folder = str(trees.HERE / "inside")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]


class Made:
    """A host's tree and state in a folder; call() runs a stand-in on it."""

    def __init__(self, folder, load, spec):
        self.root = trees.build(spec, folder / "root")
        distro, updates = trees.PARTS["distros"][spec["distro"]], dict(trees.PARTS["updates"], **spec.get("updates", {}))
        self.load, self.spec = load, dict(spec, name="root")
        state = {"power": "on", "kexec": None, "boot": {"kernel": spec["kernels"][0]["version"], "options": "ro quiet"}, "log": [],
                 "packages": dict((each["name"], each["version"]) for each in spec.get("packages", ())), "units": {}, "faults": {},
                 "offered": dict((each["name"], dict(each, files=trees.package_files(each, distro, updates))) for each in spec.get("offered", ()))}
        (self.root / "var/tmp").mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(self.spec, default=str))
        (folder / "state").mkdir()
        (folder / "state/state.json").write_text(json.dumps(state))
        self.machine = load("machine").Machine(str(folder / "state"), str(self.root))

    def call(self, name, *argv):
        """A stand-in's exit status and words."""
        module = self.load(self.load("programs").PROGRAMS[name])
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = module.main(self.machine, name, list(argv))
        out.flush()
        return Said(status, out.buffer.getvalue().decode(), err.getvalue())

    def fault(self, **faults):
        """Set faults."""
        with self.machine.change() as state:
            state["faults"].update(faults)

    def carried(self, path):
        """{(signature, revision)} of what the collection's reader finds in an initrd."""
        with open(self.machine.at(path), "rb") as stream:
            found = container.read(stream)
            assert all(each.problem is None for each in found)
            return set((update.signature, update.revision) for each in found for update in each.updates)

    def put(self, path, text, mode=0o644):
        """Write a file."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)


@pytest.fixture
def make(tmp_path, inside):
    """make(distro, **more of the host's YAML) -> Made, a machine with a Skylake server's processor unless said otherwise."""
    def build(distro="debian-12", **more):
        more.setdefault("cpu", {"kind": "gold-6148", "revision": 0x2006b06})
        more.setdefault("packages", PACKAGES)
        more.setdefault("kernels", [{"version": "6.1.0-56-amd64", "running": True, "carries": ["skx-6b06"]},
                                    {"version": "6.1.0-53-amd64", "carries": ["skx-6b06"]}])
        return Made(tmp_path, inside, dict({"distro": distro, "boot": {"system": "grub"}}, **more))
    return build


# --- initramfs-tools ---

@pytest.mark.parametrize("settings, wanted", [
    ({}, {SKX, CLX, HSX}), ({"/etc/initramfs-tools/initramfs.conf": "MODULES=dep\n"}, {SKX, CLX}),  # all steppings of the processor at hand
    ({"/etc/default/intel-microcode": "IUCODE_TOOL_SCANCPUS=yes\n"}, {SKX, CLX}), ({"/etc/default/intel-microcode": "IUCODE_TOOL_INITRAMFS=no\n"}, set())])
def test_update_initramfs_puts_the_microcode_into_the_newest_initrd_that_the_settings_ask_for(make, settings, wanted):
    one = make()
    for path, text in settings.items():
        one.put(path, text)
    said = one.call("update-initramfs", "-u")
    assert (said.status, said.out, said.err) == (0, "update-initramfs: Generating %s\n" % IMAGE, "")
    assert one.carried(IMAGE) == wanted
    assert one.carried(IMAGE.replace("56", "53")) == {(0x50654, 0x2006b06)}


def test_of_a_file_that_is_there_twice_the_newer_update_is_taken(make):
    """Intel once shipped 06-8e-09_DUPLICATE, with an older revision (INTEL)."""
    files = {"intel-ucode/06-55-04": ["skx-7006"], "intel-ucode/06-55-04_DUPLICATE": ["skx-64"]}
    one = make(packages=[{"name": "intel-microcode", "version": "1", "files": files}])
    one.call("update-initramfs", "-u")
    assert one.carried(IMAGE) == {SKX}


def test_debians_hook_for_amd_joins_all_of_its_files_on_an_amd_machine(make):
    one = make(cpu={"kind": "epyc-7313", "revision": 0x0a001137})
    assert one.call("update-initramfs", "-u", "-k", "all").status == 0
    assert one.carried(IMAGE.replace("56", "53")) == {MILAN, ROME, SKX, CLX, HSX}


def test_an_initrd_stays_as_it_was_where_a_hook_fails_or_there_is_no_room(make):
    one = make()
    before = (one.root / IMAGE[1:]).read_bytes()
    one.put("/etc/initramfs-tools/hooks/fails", "#!/bin/sh\nexit 3\n", 0o755)
    assert one.call("update-initramfs", "-u").status == 3
    (one.root / "etc/initramfs-tools/hooks/fails").unlink()
    one.fault(full={"/boot": 1 << 20})
    said = one.call("update-initramfs", "-u")
    assert said.status == 1 and "No space left on device" in said.err
    assert (one.root / IMAGE[1:]).read_bytes() == before
    assert sorted(path.name for path in (one.root / "boot").glob("initrd*")) == ["initrd.img-6.1.0-53-amd64", "initrd.img-6.1.0-56-amd64"]


def test_a_backup_is_kept_where_the_settings_ask_for_it(make):
    one = make()
    one.put("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=yes\nbackup_initramfs=yes\n")
    one.call("update-initramfs", "-u")
    assert one.carried(IMAGE + ".bak") == {(0x50654, 0x2006b06)} and SKX in one.carried(IMAGE)


# --- dracut, mkinitcpio ---

@pytest.mark.parametrize("settings, arguments, wanted", [
    ("", [], {SKX, CLX, HSX, MILAN, ROME}), ('hostonly="yes"\n', [], {SKX}), ('hostonly="yes"\n', ["--no-hostonly"], {SKX, CLX, HSX, MILAN, ROME}),
    ('early_microcode="no"\n', [], set()), ("", ["--no-early-microcode"], set())])
def test_dracut_joins_what_its_configuration_asks_for(make, settings, arguments, wanted):
    one = make("debian-12-dracut")
    one.put("/etc/dracut.conf.d/mine.conf", settings)
    assert one.call("dracut", "-f", "--kver", "6.1.0-56-amd64", *arguments).status == 0
    assert one.carried(IMAGE) == wanted


def test_dracut_with_hostonly_takes_a_file_that_is_only_for_early_loading(make):
    one = make("debian-12-dracut", cpu={"kind": "e5-2680v3", "revision": 0x43})
    one.call("dracut", "-H", "-f", IMAGE, "6.1.0-56-amd64")
    assert one.carried(IMAGE) == {HSX}


def test_an_old_dracut_drops_microcode_with_a_kernel_whose_options_it_does_not_know(make):
    one = make("debian-12-dracut", kernels=[{"version": "6.12.1-amd64", "running": True, "carries": ["skx-6b06"]}])
    said = one.call("dracut", "--force")
    assert "Disabling early microcode" in said.err and one.carried("/boot/initrd.img-6.12.1-amd64") == set()


def test_fedoras_packed_files_are_unpacked_into_the_initrd(make):
    packages = [{"name": "amd-ucode-firmware", "version": "1", "files": {"amd-ucode/microcode_amd_fam19h.bin.xz": ["milan-11d5"]}},
                {"name": "dracut", "version": "107-4.fc43"}]
    one = make("fedora-43", cpu={"kind": "epyc-7313", "revision": 0x0a001137}, packages=packages,
               kernels=[{"version": "6.17.1-300.fc43.x86_64", "running": True, "carries": ["rome-107c"]}])
    assert one.call("dracut", "-f").status == 0
    assert one.carried("/boot/initramfs-6.17.1-300.fc43.x86_64.img") == {MILAN}


@pytest.mark.parametrize("hooks, wanted", [("base autodetect microcode block", {SKX}), ("base microcode autodetect", {SKX, CLX, MILAN, ROME}),
                                           ("base block", set())])
def test_mkinitcpio_takes_microcode_where_its_hooks_say_so(make, hooks, wanted):
    one = make("arch", kernels=[{"version": "6.17.1-arch1-1", "running": True, "carries": []}], boot={"system": "none"})
    one.put("/etc/mkinitcpio.conf", "HOOKS=(%s)\n" % hooks)
    said = one.call("mkinitcpio", "-P")
    assert said.status == 0 and "Initcpio image generation successful" in said.out
    assert one.carried("/boot/initramfs-linux.img") == wanted


# --- GRUB ---

@pytest.mark.parametrize("name", ["deb12-web1", "xen-node1", "ubuntu-noload"])
def test_grub_mkconfig_writes_again_what_the_recorded_host_has(make, name):
    one = make(**trees.hosts()[name])
    before = (one.root / "boot/grub/grub.cfg").read_text()
    said = one.call("update-grub")
    assert said.status == 0 and said.err.endswith("done\n")
    assert (one.root / "boot/grub/grub.cfg").read_text() == before


def test_update_grub_follows_settings_and_somebodys_own_scripts(make):
    one = make(**trees.hosts()["xen-node2"])
    assert boot.xen_ucode(boot.default_entry(Host(str(one.root)))["xen_args"]) == "none"
    one.put("/etc/default/grub.d/zz.cfg", 'GRUB_CMDLINE_XEN_DEFAULT="$GRUB_CMDLINE_XEN_DEFAULT ucode=scan"\nGRUB_DEFAULT=saved\n')
    one.put("/etc/grub.d/09_mine", "#!/bin/sh\necho \"menuentry 'mine' { true }\"\n", 0o755)
    one.call("update-grub")
    text = (one.root / "boot/grub/grub.cfg").read_text()
    assert 'set default="${saved_entry}"' in text and text.index("menuentry 'mine'") < text.index("Loading Linux")
    one.call("grub-set-default", "Debian GNU/Linux, with Xen hypervisor")
    entry = boot.default_entry(Host(str(one.root)))
    assert boot.xen_ucode(entry["xen_args"]) == "scan"


def test_an_entry_for_one_boot_is_what_boots_next(make):
    one = make()
    for number, version in enumerate(("6.1.0-56-amd64", "6.1.0-53-amd64")):
        assert one.call("grub-reboot", "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux " + version).status == 0
        assert boot.default_entry(Host(str(one.root)))["kernel"].endswith(version)
        assert len((one.root / "boot/grub/grubenv").read_bytes()) == 1024, number
    assert one.call("grub-editenv", "list").out == "next_entry=Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-53-amd64\n"
    one.call("grub-editenv", "-", "unset", "next_entry")
    assert one.call("grub-editenv", "list").out == ""


def test_a_menu_is_not_written_where_settings_are_no_shell(make):
    one = make()
    before = (one.root / "boot/grub/grub.cfg").read_text()
    one.put("/etc/default/grub", "GRUB_TIMEOUT=(\n")
    assert one.call("update-grub").status != 0
    assert (one.root / "boot/grub/grub.cfg").read_text() == before


# --- packages ---

OFFERED = [{"name": "intel-microcode", "version": "2", "files": {"intel-ucode/06-55-04": ["skx-7006"], "intel-ucode/06-8f-08": ["spr-650"]}}]


@pytest.fixture
def debian(make):
    """A Debian machine with a newer package at hand, whose update-initramfs notes how it was called."""
    one = make(offered=OFFERED)
    one.put("/usr/sbin/update-initramfs", "#!/bin/sh\necho \"called $*\"\nexit $(cat %s/status)\n" % one.root, 0o755)
    one.put("/status", "0\n")
    return one


def test_apt_get_replaces_files_and_record_and_has_the_initrd_rebuilt(debian):
    said = debian.call("apt-get", "-qy", "install", "intel-microcode")
    assert said.status == 0 and "called -u\r\n" in said.out and "1 upgraded, 0 newly installed" in said.out
    assert sorted(path.name for path in (debian.root / "lib/firmware/intel-ucode").iterdir()) == ["06-55-04", "06-8f-08"]
    assert debian.call("dpkg-query", "-W", "intel-microcode").out == "intel-microcode\t2\n"
    assert debian.call("dpkg-query", "-S", "/lib/firmware/intel-ucode/06-8f-08").out == "intel-microcode: /lib/firmware/intel-ucode/06-8f-08\n"
    assert debian.machine.state()["packages"]["intel-microcode"] == "2"
    again = debian.call("apt-get", "-qy", "install", "intel-microcode")
    assert "already the newest version (2)" in again.out and "called" not in again.out


def test_apt_get_fails_with_its_trigger_though_the_files_are_there(debian):
    debian.put("/status", "5\n")
    said = debian.call("apt-get", "-qy", "install", "intel-microcode")
    assert said.status == 100 and "returned error exit status 5" in said.out
    assert (debian.root / "lib/firmware/intel-ucode/06-8f-08").exists()


def test_a_package_that_finds_no_room_changes_nothing(debian):
    before = sorted((path.name, path.read_bytes()) for path in (debian.root / "lib/firmware/intel-ucode").iterdir())
    debian.fault(full={"/lib/firmware": 100})
    said = debian.call("apt-get", "-qy", "install", "intel-microcode")
    assert said.status == 100 and "No space left on device" in said.out
    assert sorted((path.name, path.read_bytes()) for path in (debian.root / "lib/firmware/intel-ucode").iterdir()) == before
    assert debian.call("dpkg-query", "-W", "intel-microcode").out == "intel-microcode\t1\n"


def test_a_held_package_stays_until_it_is_told_otherwise(debian):
    debian.call("apt-mark", "hold", "intel-microcode")
    assert "0 upgraded" in debian.call("apt-get", "-qy", "dist-upgrade").out
    assert debian.call("apt-get", "-qy", "install", "intel-microcode").status == 100
    debian.call("apt-mark", "unhold", "intel-microcode")
    assert "1 upgraded" in debian.call("apt-get", "-qy", "dist-upgrade").out


@pytest.mark.parametrize("older, newer", [("1.0~rc1", "1.0"), ("3.20250812.1~deb11u1", "3.20251111.1~deb12u1"), ("2", "1:1"), ("1.0-1", "1.0-1+b1"),
                                          ("1.9", "1.10"), ("1.0", "1.0-1"), ("1.0a", "1.0+b")])
def test_versions_are_in_debians_order(make, older, newer):
    one = make()
    assert one.call("dpkg", "--compare-versions", older, "lt", newer).status == 0
    assert one.call("dpkg", "--compare-versions", newer, "le", older).status == 1


# --- systemd, kexec ---

@pytest.mark.parametrize("text, wanted", [("5", 5), ("500ms", 0.5), ("1min 30s", 90), ("2h", 7200), ("soon", None), ("", None)])
def test_time_spans_are_systemds(inside, text, wanted):
    assert inside("systemd").seconds(text) == wanted


def test_kexec_takes_kernels_only_and_keeps_what_was_loaded_before(make):
    one = make()
    assert one.call("kexec", "-l", "/boot/vmlinuz-6.1.0-56-amd64", "--initrd=" + IMAGE, "--reuse-cmdline").status == 0
    loaded = one.machine.state()["kexec"]
    assert (loaded["kernel"], loaded["initrd"]) == ("/boot/vmlinuz-6.1.0-56-amd64", IMAGE) and "BOOT_IMAGE" not in loaded["command_line"]
    assert one.call("kexec", "-l", "/etc/hostname").status == 255
    assert one.machine.state()["kexec"] == loaded and one.machine.text("/sys/kernel/kexec_loaded") == "1\n"
    one.call("kexec", "-u")
    assert one.machine.state()["kexec"] is None and one.machine.text("/sys/kernel/kexec_loaded") == "0\n"
