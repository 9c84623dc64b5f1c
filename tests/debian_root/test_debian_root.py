# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The facts of real Debian systems against what Debian's own tools say: iucode_tool, dpkg-query, sha256sum, GRUB, the packages' changelogs."""
import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import boot, facts, listing
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.update import hex8
from ansible_collections.fleet.microcode.tests.debian_root import grub, roots
from ansible_collections.fleet.microcode.tests.debian_root.roots import forget, kernels
from ansible_collections.fleet.microcode.tests.fleet import trees
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo
from ansible_collections.fleet.microcode.tests.gate.cache import CHECKOUT

ROW = re.compile(r"^ *(?:\d+/(\d+):)? +sig (0x\w+), pf_mask (0x\w+), (\S+), rev (0x\w+)(?:, size (\d+))?$", re.M)
XEON, EPYC, OLD_XEON, OLD_EPYC = "gold-6148", "epyc-7313", 0x2000050, 0xa001100
BUILDERS = pytest.mark.parametrize("kind", ["initramfs-tools", "dracut"])


def iucode_tool(view, path):
    """[(signature, pf_mask, date, revision, size), ...] that the root's iucode_tool finds in a file or an initrd of the root."""
    kind, rows, number, size = "-tb" if "-ucode/" in path else "-tr", [], None, None
    for own, signature, mask, date, revision, total in ROW.findall(roots.run(view, "iucode_tool", "-L", kind, path)):
        number, size = own or number, int(total or size)  # told once for an update, whose own signature may be told twice
        rows.append((number, int(signature, 16), int(mask, 16), date, int(revision, 16), size))
    return [row[1:] for row in dict.fromkeys(rows)]


def newest(rows, signature, mask):
    """The revision, as facts show it, that a processor gets out of rows; None: none is for it."""
    return hex8(max((row[3] for row in rows if row[0] == signature and (row[1] & mask or row[1] == mask)), default=None))


def initrd_of(version):
    return "/boot/initrd.img-" + version


# --- one kernel, once with each tool that makes initrds ---

@BUILDERS
def test_the_next_boot_loads_what_iucode_tool_finds_in_the_initrd(machine, view_of, kind):
    view, (version,) = view_of(kind), kernels(view_of(kind))
    found = facts.gather(machine(kind, XEON, OLD_XEON))
    wanted = newest(iucode_tool(view, initrd_of(version)), 0x50654, 0x80)
    assert wanted and int(wanted, 16) > OLD_XEON
    assert (found["early"]["tool"], found["early"]["disabled"], found["early"]["xen_ucode"]) == (kind, False, None)
    (kernel,) = found["early"]["kernels"]
    assert [kernel[key] for key in ("version", "initrd", "revision", "carries", "running", "default")] == [
        version, initrd_of(version), wanted, "update", True, True]
    assert found["pending"] == wanted
    assert found["warnings"] == []


@BUILDERS
def test_nothing_is_pending_where_the_initrd_carries_what_runs(machine, view_of, kind):
    running = int(newest(iucode_tool(view_of(kind), initrd_of(kernels(view_of(kind))[0])), 0x50654, 0x80), 16)
    found = facts.gather(machine(kind, XEON, running))
    assert (found["pending"], found["early"]["kernels"][0]["revision"]) == (None, hex8(running))


def test_a_copied_cpuinfo_alone_is_enough_where_every_platform_gets_the_same(machine, view_of):
    host = machine("initramfs-tools", XEON, OLD_XEON)
    shutil.rmtree(str(view_of("initramfs-tools") / "sys"))
    found = facts.gather(host)
    assert (found["cpu"]["pf_mask"], found["cpu"]["revision_source"]) == (None, "cpuinfo")
    assert found["pending"] == newest(iucode_tool(view_of("initramfs-tools"), initrd_of(kernels(view_of("initramfs-tools"))[0])), 0x50654, 0x80)


@BUILDERS
def test_every_intel_processor_gets_what_iucode_tool_finds_for_it(machine, view_of, kind):
    view, host = view_of(kind), machine(kind, XEON, OLD_XEON)
    rows = iucode_tool(view, initrd_of(kernels(view)[0]))
    flags = view / "sys/devices/system/cpu/cpu0/microcode/processor_flags"
    shown, wanted = {}, {}
    for signature, mask in sorted(set(row[:2] for row in rows)):
        for bit in sorted({mask & -mask, 1 << mask.bit_length() >> 1}):
            family = (signature >> 8 & 15) + (signature >> 20 & 255 if signature >> 8 & 15 == 15 else 0)
            model = signature >> 4 & 15 | signature >> 12 & 0xf0
            (view / "proc/cpuinfo").write_text(cpuinfo(1, family=family, model=model, stepping=signature & 15, revision="0x1"))
            (view / "sys/devices/system/cpu/online").write_text("0\n")
            (view / "sys/devices/system/cpu/present").write_text("0\n")
            (view / "sys/devices/system/cpu/cpu0/microcode/version").write_text("0x1\n")
            flags.write_text("0x%x\n" % bit)
            found = facts.gather(Host(host.root), ["early"])
            assert found["warnings"] == []
            shown[signature, bit] = found["early"]["kernels"][0]["revision"], found["pending"]
            wanted[signature, bit] = (newest(rows, signature, bit),) * 2
    assert len(wanted) > 100
    assert shown == wanted


@BUILDERS
def test_every_amd_processor_gets_the_patch_that_the_changelog_names_or_a_later_one(machine, view_of, kind):
    view, host = view_of(kind), machine(kind, EPYC, OLD_EPYC)
    (changelog,) = (view / "usr/share/doc/amd64-microcode").glob("changelog*.gz")
    with gzip.open(str(changelog), "rt") as stream:
        named = re.findall(r"\+ +Family=0x(\w+) Model=0x(\w+) Stepping=0x(\w+): Patch=(0x\w+)", stream.read())
    newest_named = {}
    for *numbers, patch in named:  # the newest version stands first
        newest_named.setdefault(tuple(int(text, 16) for text in numbers), int(patch, 16))
    assert newest_named[0x19, 1, 1] and len(newest_named) > 10
    shutil.rmtree(str(view / "sys/devices/system/cpu"))
    for (family, model, stepping), patch in newest_named.items():
        (view / "proc/cpuinfo").write_text(cpuinfo(1, "AuthenticAMD", family, model, stepping, "0x1", "AMD EPYC"))
        found = facts.gather(Host(host.root), ["early"])
        revision = found["early"]["kernels"][0]["revision"]
        if revision is None:  # newer packages: one patch for firmware that was updated, one for the rest
            assert "it holds several patches for this processor" in " ".join(found["warnings"])
            assert hex8(patch) in " ".join(found["warnings"])
        else:
            assert found["pending"] == revision
            assert [text for text in found["warnings"] if "AMD-SB-7033" not in text] == []  # what the next boot's kernel knows of patches
            assert int(revision, 16) >= patch and int(revision, 16) >> 8 == patch >> 8


@BUILDERS
@pytest.mark.parametrize("cpu,running,package", [(XEON, OLD_XEON, "intel-microcode"), (EPYC, OLD_EPYC, "amd64-microcode")])
def test_files_are_those_of_the_package(machine, view_of, kind, cpu, running, package):
    view = view_of(kind)
    found = facts.gather(machine(kind, cpu, running))
    assert len(found["files"]) == 1
    file = found["files"][0]
    assert roots.run(view, "dpkg-query", "-S", "*" + file["path"][len("/lib/firmware"):]).split(":")[0] == package
    assert file["package"] == roots.run(view, "dpkg-query", "-W", "-f", "${Package} ${Version}", package)
    assert file["sha256"] == roots.run(view, "sha256sum", file["path"]).split()[0]
    assert file["revision"] == found["early"]["kernels"][0]["revision"]
    if cpu == XEON:
        rows = [row for row in iucode_tool(view, file["path"]) if row[0] == 0x50654]
        assert [(hex8(row[3]), row[2]) for row in rows] == [(file["revision"], file["date"])]


@BUILDERS
def test_distribution_and_kernel_are_told_as_the_root_tells_them(machine, view_of, kind):
    view = view_of(kind)
    found = facts.gather(machine(kind, XEON, OLD_XEON))
    told = roots.run(view, "sh", "-c", '. /etc/os-release; printf "%s/%s/%s" "$ID" "$VERSION_ID" "$VERSION_CODENAME"').split("/")
    assert [found["distro"][key] or "" for key in ("id", "version", "codename")] == told
    assert found["distro"]["release"] == ("stable" if told[1] else os.environ.get("FLEET_MICROCODE_SUITE", "testing").replace("sid", "unstable"))
    config = (view / ("boot/config-" + found["kernel"])).read_text()
    for name, value in found["kernel_config"].items():
        assert value == ("y" if "CONFIG_%s=y\n" % name in config else "n"), name
    assert (found["late"]["interface"], found["late"]["available"]) == ("none", False)
    assert "CONFIG_MICROCODE_LATE_LOADING" in found["late"]["why_not"]
    assert found["boot"] == {"system": "grub", "one_time_entry": True, "why_not": None, "next_entry": None, "reboot_is_kexec": False}


@BUILDERS
def test_file_info_lists_what_iucode_tool_lists(view_of, kind):
    view = view_of(kind)
    path = initrd_of(kernels(view)[0])
    listed = dict((each["vendor"], each) for each in listing.containers(Host("/"), [str(view) + path]))
    assert [each["problem"] for each in listed.values()] == [None, None]
    entries = [tuple(int(each[key], 16) for key in ("signature", "pf_mask")) + (each["date"], int(each["revision"], 16), each["size"])
               for each in listed["GenuineIntel"]["entries"]]
    assert all(entry["valid"] for each in listed.values() for entry in each["entries"])
    assert sorted(entries) == sorted(iucode_tool(view, path))
    assert listed["AuthenticAMD"]["member"] == "kernel/x86/microcode/AuthenticAMD.bin" and listed["AuthenticAMD"]["entries"]


def test_ansible_reads_the_root(machine, view_of, tmp_path):
    if importlib.util.find_spec("ansible") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this Python has no Ansible; make test-root brings one")
    host = machine("dracut", XEON, OLD_XEON)
    (tmp_path / "ansible_collections" / "fleet").mkdir(parents=True)
    (tmp_path / "ansible_collections" / "fleet" / "microcode").symlink_to(CHECKOUT)
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(tmp_path), ANSIBLE_HOME=str(tmp_path / "home"), ANSIBLE_LOCAL_TEMP=str(tmp_path / "local"),
               ANSIBLE_REMOTE_TMP=str(tmp_path / "remote"), ANSIBLE_PYTHON_INTERPRETER=sys.executable, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal",
               ANSIBLE_LOAD_CALLBACK_PLUGINS="true", ANSIBLE_NOCOLOR="1")
    done = subprocess.run([sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "fleet.microcode.microcode_facts", "-a", "sysroot=" + host.root],
                          env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.partition("=>")[2])["ansible_facts"]["microcode"]
    direct = facts.gather(Host(host.root))
    direct["gathered"] = shown["gathered"]
    assert shown == direct


# --- Xen, two kernels, and GRUB's own word for what it boots ---

OWN_FILE = ["iucode_tool", "--write-earlyfw=/boot/microcode.cpio", "/lib/firmware/intel-ucode"]  # a name that GRUB's generator looks for
MENUS = {  # what is added to /etc/default/grub, then commands; {id}: of the file system; {v}, {x}: of the generic kernel and Xen
    "as installed": ([], []),
    "ucode=scan": (["GRUB_CMDLINE_XEN_DEFAULT='dom0_mem=2G,max:2G ucode=scan'"], []),
    "ucode=scan for all but recovery": (["GRUB_CMDLINE_XEN='loglvl=all ucode=no-scan'", "GRUB_CMDLINE_XEN_DEFAULT=ucode=scan"], []),
    "the initrd nominated as if it were raw microcode": (["GRUB_CMDLINE_XEN=ucode=-1"], []),
    "Linux first": (["XEN_OVERRIDE_GRUB_DEFAULT=0"], []),
    "by number": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2'"], []),
    "by id": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='gnulinux-advanced-{id}>gnulinux-{v}-advanced-{id}'"], []),
    "by title": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {v}'"], []),
    "Xen's EFI program by number": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='3>1>0'", "GRUB_CMDLINE_XEN=ucode=scan"], []),
    "two submenus of one id": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='gnulinux-advanced-{id}>xen-hypervisor-{x}-{id}>0'"], []),
    "recovery of Xen": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='3>0>1'", "GRUB_CMDLINE_XEN_DEFAULT=ucode=scan"], []),
    "a number behind an entry": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2>0'"], []),
    "a number beyond the menu": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=17"], []),
    "a title that is not there": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='Debian GNU/Linux, with Linux 2.4'"], []),
    "an entry that is not in the submenu": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>gone'"], []),
    "a submenu": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=1"], []),
    "a word that begins with digits": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=2-gone"], []),
    "saved": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=saved"], [["grub-set-default", "1>gnulinux-{v}-advanced-{id}"]]),
    "saved, nothing yet": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=saved", "GRUB_SAVEDEFAULT=true"], []),
    "saved, but overridden by Xen's package": (["GRUB_DEFAULT=saved"], [["grub-set-default", "1>2"]]),
    "for one boot": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT=saved"], [["grub-set-default", "0"], ["grub-reboot", "1>2"]]),
    "for one boot, from Xen": ([], [["grub-reboot", "gnulinux-advanced-{id}>gnulinux-{v}-advanced-{id}"]]),
    "flat": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DISABLE_SUBMENU=true", "GRUB_DEFAULT='Debian GNU/Linux, with Linux {v}'"], []),
    "switched off": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2'", "GRUB_CMDLINE_LINUX=dis_ucode_ldr"], []),
    "switched off, else than in recovery": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>3'", "GRUB_CMDLINE_LINUX_DEFAULT=dis_ucode_ldr"], []),
    "quoted options": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2'", "GRUB_CMDLINE_LINUX='dyndbg=\\\"+p\\\" a=\\$b c=\\\\\\\\d'"], []),
    "microcode in a file of its own": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2'"], [OWN_FILE + ["-s", "0x50654"]]),
    "a file of its own that is for others": (["XEN_OVERRIDE_GRUB_DEFAULT=0", "GRUB_DEFAULT='1>2'"], [OWN_FILE + ["-s", "0x406f1"]]),
    "microcode in a file of its own, Xen": (["GRUB_CMDLINE_XEN=ucode=scan"], [OWN_FILE + ["-s", "0x50654"]]),
}
ODD = ("two submenus of one id", "a submenu", "a number behind an entry", "a word that begins with digits")  # here "not known" is an answer too


def words(loaded, command):
    """The words of each such command that GRUB ran."""
    return [given for name, given in loaded if name == command]


def pending(view, loaded, running):
    """The revision that the next boot loads by what GRUB loads, if newer than the running one: kernel built with a loader, switched off or not, initrds."""
    xen, modules = words(loaded, "multiboot2"), [[word for word in given if word != "--nounzip"] for given in words(loaded, "module2")]
    if xen:
        initrds = [module[0] for module in modules[1:]]
        if "ucode=scan" not in xen[0][::-1][:1]:
            return None
    else:
        (kernel,), initrds = words(loaded, "linux"), [path for given in words(loaded, "initrd") for path in given]
        if "dis_ucode_ldr" in kernel or "CONFIG_MICROCODE=y\n" not in (view / kernel[0].replace("vmlinuz", "config").lstrip("/")).read_text():
            return None
    carried = [rows for rows in (iucode_tool(view, path) for path in initrds) if rows]
    revision = newest(carried[0], 0x50654, 0x80) if carried else None
    return revision if revision and int(revision, 16) > running else None


@pytest.fixture
def menu(view_of):
    """menu(name of MENUS): the root with Xen, its GRUB configured and its menu generated so."""
    view = view_of("xen")
    known = {"v": kernels(view)[-1], "x": next((view / "boot").glob("xen-*.gz")).name[4:-3],
             "id": re.search(r"fs_uuid\) echo (\S+)", roots.GRUB_PROBE).group(1)}

    def make(name):
        settings, commands = MENUS[name]
        forget(view)  # which GRUB's tools would else take for their own machine's
        for path in ("boot/microcode.cpio", "boot/grub/grubenv"):
            if (view / path).exists():
                (view / path).unlink()
        source = (view / "usr/share/grub/default/grub").read_text()
        roots.replace(view / "etc/default/grub", source + "".join(line.format(**known) + "\n" for line in settings))
        roots.run(view, "grub-editenv", "/boot/grub/grubenv", "create")
        for command in commands:
            roots.run(view, *[word.format(**known) for word in command])
        roots.update_grub(view)
        return view
    return make


@pytest.mark.parametrize("name", MENUS)
def test_the_default_entry_is_the_one_that_grub_boots(machine, menu, name):
    view, host = menu(name), machine("xen", XEON, OLD_XEON)
    loaded = grub.boots(view)
    entry = boot.default_entry(host)
    xen, modules = words(loaded, "multiboot2"), [[word for word in given if word != "--nounzip"] for given in words(loaded, "module2")]
    linux = modules[0] if xen else words(loaded, "linux")[0]
    if entry is None and name in ODD:
        assert "the default boot entry is not known" in " ".join(host.warnings)
        assert facts.gather(Host(host.root))["pending"] is None
        return
    assert entry, host.warnings
    assert entry["kernel"] == linux[0]
    assert entry["args"].split() == [word for word in linux[1:] if word != "placeholder"]
    if xen:
        assert (entry["xen"], entry["xen_args"].split()) == (xen[0][0], [word for word in xen[0][1:] if word != "placeholder"])
        assert entry["initrds"] == [module[0] for module in modules[1:]]
    else:
        assert entry["xen"] is None
        assert entry["initrds"] == [path for given in words(loaded, "initrd") for path in given]
    found = facts.gather(Host(host.root))
    assert found["pending"] == pending(view, loaded, OLD_XEON)
    (default,) = [kernel for kernel in found["early"]["kernels"] if kernel["default"]]
    assert default["version"] == linux[0].split("-", 1)[1]


def test_a_one_time_entry_that_is_armed_is_told(machine, menu):
    menu("for one boot")
    found = facts.gather(machine("xen", XEON, OLD_XEON))["boot"]
    assert (found["next_entry"], found["one_time_entry"]) == ("1>2", True)


def test_a_running_dom0_gets_from_its_initrd_what_ucode_scan_loads(machine, menu):
    view = menu("ucode=scan")
    version = roots.run(view, "dpkg-query", "-W", "-f", "${Version}", "xen-hypervisor-common").split("-")[0].split("+")[0]
    host = machine("xen", XEON, OLD_XEON, hypervisor={"is": "dom0"})
    tree = trees.Tree(view)
    tree.put("/proc/xen/capabilities", "control_d\n")
    tree.fill("/sys/hypervisor", dict(zip(("version/major", "version/minor", "version/extra"), re.match(r"(\d+)\.(\d+)(.*)", version).groups()),
                                      type="xen", guest_type="PV", **{"properties/features": "%08x" % (trees.XEN_FEATURES["pv"] | trees.DOM0)}))
    log = view / "var/log/xen/console/hypervisor.log"
    roots.replace(log, "(XEN) Xen version %s (Debian %s) (gcc (Debian 12.2.0-14) 12.2.0) debug=n\n" % (version, version)
                  + "(XEN) Command line: placeholder dom0_mem=2G,max:2G ucode=scan\n(XEN) BSP microcode revision: 0x%08x\n" % OLD_XEON)
    try:
        found = facts.gather(host)
    finally:
        log.unlink()
    assert (found["hypervisor"]["role"], found["hypervisor"]["type"], found["hypervisor"]["version"]) == ("host", "xen", version)
    assert (found["hypervisor"]["xen"]["ucode"], found["early"]["xen_ucode"]) == ("scan", "scan")
    assert found["late"]["interface"] == "xen-ucode"
    assert found["cpu"]["revision"] == hex8(OLD_XEON)
    assert found["pending"] == newest(iucode_tool(view, initrd_of(kernels(view)[-1])), 0x50654, 0x80)
