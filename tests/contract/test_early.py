# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""microcode_early_load on hosts that go wrong as they are told: whatever comes in between, a host boots."""
import json

import pytest

from ansible_collections.fleet.microcode.tests.fleet import simulated, trees
from ansible_collections.fleet.microcode.tests.lab.test_early import OURS, PACKAGE, held

DIRECT = """
import json, sys
sys.path.insert(0, "/.simulated/collections")
from ansible_collections.fleet.microcode.plugins.module_utils import journal
from ansible_collections.fleet.microcode.plugins.module_utils.early import order
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
host = Host()
try:
    done = order.run(host, **json.loads(sys.argv[1]))
except (order.Refused, order.Stopped, journal.Busy, journal.JournalError) as exc:
    done = {"refused": str(exc)}
print(json.dumps(dict(done, warnings=host.warnings)))
"""
CLEAN = "cd /boot/.fleet-microcode && ls -A"
TOOL = "/usr/sbin/mkinitramfs"


def run(one, revision, **arguments):
    """What the module's own code returns, without Ansible around it; None where it was killed."""
    arguments = dict({"state": "present" if revision else "absent", "revision": revision}, **arguments)
    done = one.ssh("python3", "-c", DIRECT, json.dumps(arguments), check=False)
    assert done.returncode in (0, -9, 137), done
    return json.loads(done.stdout) if done.stdout else None


@pytest.fixture
def outdated(machine):
    """make(image) -> (host, version of its kernel, path of its initrd, newest revision): the initrd carries an older revision, and Xen does not scan."""
    def make(image="bookworm-xen", **options):
        one = machine(image, kind="sapphire-rapids", **options)
        version = one.sh("uname -r").strip()
        path = "/boot/initrd.img-" + version
        one.sh("update-grub; %s $(uname -r)" % {"bookworm-xen": "update-initramfs -u -k"}.get(image, "dracut --force " + path))
        one.sh("cp %s /srv/initrd; cp -r /lib/firmware/intel-ucode /srv/older; %s; cp /srv/initrd %s" % (path, PACKAGE, path))
        (newest,) = [each["revision"] for each in one.facts()["files"] if each["path"].endswith("06-8f-08")]
        return one, version, path, newest
    return make


def boots(one, path, *allowed):
    """After a reset the host is up with one of these revisions, from a whole initrd."""
    one.reset()
    one.ssh("lsinitramfs" if one.ssh("which", "lsinitramfs", check=False).returncode == 0 else "lsinitrd", path)
    assert one.sh("cat /proc/sys/kernel/osrelease") and set(one.revisions().values()) <= set(allowed), one.revisions()


POINTS = [("run.json", '"event": "%s"' % event, False) for event in (
    "begun", "making", "kept", "replacing", "replaced", "setting", "making the menu", "set")]
POINTS += [(file, "", False) for file in ("early.json", ".kept", ".old", "zz-fleet")] + [("run.json", '"outcome": "done"', False)]
POINTS += [(file, "", before) for file in ("boot/initrd.img", "grub.cfg") for before in (True, False)]  # before another one is as after the step before it


@pytest.mark.point
@pytest.mark.parametrize("file, text, before", POINTS, ids=["%s-%s-%s" % (file, text.rpartition(" ")[2].strip('"'), "before" if before else "after")
                                                            for file, text, before in POINTS])
def test_killed_anywhere_the_host_boots_and_a_second_run_ends_well(outdated, file, text, before):
    one, version, path, newest = outdated()
    firmware = one.facts()["cpu"]["revision"]
    one.fault(kill={"file": file, "text": text, "before": before})
    assert run(one, newest) is None
    one.fault(kill=None)
    boots(one, path, firmware, newest)
    again = run(one, newest)
    assert again.get("failed") is False and again["loads"] == "update", again
    assert one.sh(CLEAN).split() == [version + ".kept"] and run(one, newest)["changed"] is False
    boots(one, path, newest)


@pytest.mark.point
@pytest.mark.parametrize("file, text, before", [("initrd.img", "", True), ("initrd.img", "", False), ("grub.cfg", "", True), ("early.json", "", False)])
def test_killed_on_the_way_back(outdated, file, text, before):
    one, _version, path, newest = outdated()
    firmware = one.facts()["cpu"]["revision"]
    assert run(one, newest)["failed"] is False
    one.fault(kill={"file": file, "text": text, "before": before})
    assert run(one, None) is None
    one.fault(kill=None)
    boots(one, path, firmware, newest)
    assert run(one, None)["failed"] is False
    one.sh("cmp %s /srv/initrd" % path)
    assert run(one, None)["changed"] is False and one.sh(CLEAN) == "" and "ucode=scan" not in one.sh("cat /boot/grub/grub.cfg /etc/default/grub.d/*")
    boots(one, path, firmware)


WRONG = {  # in place of mkinitramfs -o FILE VERSION, whose real one is $real
    "fails": ("echo no >&2; exit 3", "exit status 3; no"),
    "hangs": ("sleep 600", "no end after"),
    "makes none": ("rm -f $2", "there is none"),
    "without microcode": ("$real -o $2.x $3; sed -i s,kernel/x86,kernel/x99,g $2.x; mv $2.x $2", "carries no microcode"),
    "older microcode": ("mv /lib/firmware/intel-ucode /srv/aside; cp -r /srv/older /lib/firmware/intel-ucode; $real -o $2 $3; rm -r /lib/firmware/intel-ucode; "
                        "mv /srv/aside /lib/firmware/intel-ucode", "carries 0x"),
    "cut off": ("$real -o $2 $3; truncate -s -60 $2", "cut off"),
    "cut off in the microcode": ("$real -o $2 $3; truncate -s 9000 $2", "carries no microcode"),
    "empty": (": >$2", "carries no microcode"),
    "of something else": ("cp /srv/other $2", "lacks"),
}


def instead(one, script):
    """Put a shell script in place of mkinitramfs."""
    one.sh("cp -P %s /srv/mkinitramfs; rm %s" % (TOOL, TOOL))
    one.write(TOOL, "#!/bin/sh\nreal=/srv/mkinitramfs\n%s\n" % script)
    one.sh("chmod +x " + TOOL)


def without_folder(text):
    """What held() said, but for our own folder."""
    return text.replace(".fleet-microcode\n", "")


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_an_initrd_that_is_not_right_takes_nobodys_place(outdated, wrong):
    one, _version, path, newest = outdated()
    if wrong == "of something else":  # the right microcode, and the rest of another kernel
        one.sh("cd /boot; mkdir /lib/modules/9.9; cp config-$(uname -r) config-9.9; %s -o /srv/other 9.9; rm -r config-9.9 /lib/modules/9.9" % TOOL)
    script, words = WRONG[wrong]
    instead(one, script)
    before = held(one)
    done = run(one, newest, timeout=5)
    assert done["failed"] is True and words in done["msg"], done
    assert done["changed"] is False and without_folder(held(one)) == before and one.sh(CLEAN) == ""
    one.sh("rm -r %s; cp -P /srv/mkinitramfs %s" % (TOOL, TOOL))
    assert run(one, newest)["failed"] is False and run(one, newest)["changed"] is False
    boots(one, path, newest)


@pytest.mark.parametrize("full, words", [
    ({"/boot": 0}, "MiB free"), ({"/boot": 12 << 20}, "No space left"), ({"/var/lib": 0}, "cannot be"),
    ({"/var/tmp": 0, "/var/lib": 1 << 16}, "No space left")])
def test_a_full_disk_leaves_what_was_there(outdated, full, words):
    one, version, path, newest = outdated()
    firmware, before = one.facts()["cpu"]["revision"], held(one)
    one.fault(full=full)
    done = run(one, newest)
    assert words in done.get("refused", done.get("msg")) and done.get("failed", True) is True, done
    assert without_folder(held(one)) == before
    boots(one, path, firmware)
    one.fault(full=None)
    boots(one, path, firmware)
    assert run(one, newest)["failed"] is False and one.sh(CLEAN).split() == [version + ".kept"]
    boots(one, path, newest)


def test_a_hook_that_fails_brings_the_former_initrd_back(outdated):
    one, version, path, newest = outdated()
    one.sh("mkdir -p /etc/initramfs/post-update.d; cd /etc/initramfs/post-update.d; "
           "printf '#!/bin/sh\\necho $1 $2 >>/srv/told; exit $(cat /srv/status)\\n' >loader; chmod +x loader; echo 1 >/srv/status")
    before = held(one)
    done = run(one, newest)
    assert done["failed"] and "post-update.d/loader failed" in done["msg"] and "is back" in done["msg"] and done["changed"] is False
    assert without_folder(held(one)) == before and one.sh("cat /srv/told") == 2 * ("%s %s\n" % (version, path))
    one.sh("echo 0 >/srv/status")
    assert run(one, newest)["failed"] is False and one.sh("cat /srv/told").count(path) == 3


def test_a_hook_that_an_interrupted_run_did_not_come_to_is_run(outdated):
    one, version, path, newest = outdated()
    one.sh("mkdir -p /etc/initramfs/post-update.d; cd /etc/initramfs/post-update.d; printf '#!/bin/sh\\necho $1 $2 >>/srv/told\\n' >loader; chmod +x loader")
    one.fault(kill={"file": path[1:]})
    assert run(one, newest) is None
    one.ssh("test", "!", "-e", "/srv/told")
    assert run(one, newest)["failed"] is False and one.sh("cat /srv/told") == "%s %s\n" % (version, path)


def test_two_runs_at_once(outdated):
    one, _version, _path, newest = outdated()
    instead(one, ": >/srv/begun; while ! [ -e /srv/go ]; do sleep 0.1; done; exec $real \"$@\"")
    one.sh("python3 -c \"$0\" \"$1\" >/srv/said 2>&1 &".replace("$0", DIRECT.replace("\\", "\\\\").replace('"', '\\"')).replace(
        "$1", json.dumps({"state": "present", "revision": newest}).replace('"', '\\"')))
    one.wait(lambda: one.ssh("test", "-e", "/srv/begun", check=False).returncode == 0, "the first does not begin")
    assert "another run is going on here: early_load" in run(one, newest)["refused"]
    one.sh(": >/srv/go")
    one.wait(lambda: one.sh("cat /srv/said").strip(), "the first does not end")
    assert json.loads(one.sh("cat /srv/said"))["failed"] is False


@pytest.mark.parametrize("edit, words", [
    ("sed -i s,/xen-4.17-amd64.gz,\\&\\ iommu=off, /boot/grub/grub.cfg", "somebody edited /boot/grub/grub.cfg by hand"),
    ("echo 'menuentry \"by hand\" { true }' >>/boot/grub/grub.cfg", "would lose: by hand"),
    ("echo 'GRUB_CMDLINE_XEN=\"ucode=scan=no\"' >>/etc/default/grub; update-grub", "so that it loads none; somebody decided that"),
    ("echo 'GRUB_CMDLINE_XEN=\"ucode=2\"' >>/etc/default/grub; update-grub", "loads module 2; somebody decided"),
    ("echo 'GRUB_TIMEOUT=(' >>/etc/default/grub", "ends with 2"),
    ("echo 'IUCODE_TOOL_INITRAMFS=no' >>/etc/default/intel-microcode", "has IUCODE_TOOL_INITRAMFS=no"),
    ("echo 'update_initramfs=no' >/etc/initramfs-tools/update-initramfs.conf", "has update_initramfs=no"),
    ("rm /boot/initrd.img-*", "is not there"),
    ("rm /lib/firmware/intel-ucode/06-8f-08", "there is none"),
])
def test_what_is_refused_is_left_as_it_is(outdated, edit, words):
    one, _version, _path, newest = outdated()
    one.sh(edit)
    before = one.sh("sha256sum /boot/grub/grub.cfg /etc/default/grub; ls -A /boot /etc/default/grub.d /var/lib")
    assert words in run(one, newest).get("refused", ""), run(one, newest)
    assert one.sh("sha256sum /boot/grub/grub.cfg /etc/default/grub; ls -A /boot /etc/default/grub.d /var/lib") == before


def test_a_setting_that_wins_against_ours_is_told_and_everything_is_as_before(outdated):
    one, _version, path, newest = outdated()
    one.sh("echo 'GRUB_CMDLINE_XEN_DEFAULT=' >/etc/default/grub.d/zzz.cfg")
    done = run(one, newest)
    assert done["failed"] and "somebody's settings win" in done["msg"]
    one.ssh("test", "!", "-e", OURS)
    assert json.loads(one.sh("cat /var/lib/fleet-microcode/early.json"))["option"] is None
    one.sh("rm /etc/default/grub.d/zzz.cfg; echo 'GRUB_CMDLINE_XEN_DEFAULT=ucode=scan' >>/etc/default/grub")  # set by somebody, and the menu is older
    done = run(one, newest)
    assert done["failed"] is False and len(done["diff"]) == 1 and run(one, newest)["changed"] is False
    one.ssh("test", "!", "-e", OURS)
    assert run(one, None)["options"]["after"].endswith("ucode=scan")  # which is not ours
    assert "ucode=scan" in one.sh("cat /boot/grub/grub.cfg")


def test_what_was_made_anew_by_somebody_else_is_not_taken_back(outdated):
    one, version, path, newest = outdated()
    one.sh("echo /boot/vmlinuz-* >/dev/null")
    assert run(one, newest)["changed"]
    one.sh("echo KEYMAP=y >>/etc/initramfs-tools/initramfs.conf; update-initramfs -u -k " + version)
    done = run(one, None)
    assert done["failed"] is False and any("somebody made it anew since" in text for text in done["warnings"])
    assert done["options"]["after"] != done["options"]["before"] and one.facts()["early"]["kernels"][0]["revision"] == newest


def test_what_is_kept_is_what_this_boot_came_up_with(outdated):
    one, version, path, newest = outdated()
    assert run(one, newest)["changed"]
    one.sh("cmp /srv/initrd /boot/.fleet-microcode/%s.kept" % version)
    one.sh("cp -r /lib/firmware/intel-ucode /srv/newer; cp -r /srv/older/* /lib/firmware/intel-ucode/")
    (older,) = [each["revision"] for each in one.facts()["files"] if each["path"].endswith("06-8f-08")]
    done = run(one, older)  # to another one in the same boot
    assert done["kernels"][0]["after"]["revision"] == older
    one.sh("cmp /srv/initrd /boot/.fleet-microcode/%s.kept" % version)
    one.reboot()
    one.sh("cp %s /srv/second; cp -r /srv/newer/* /lib/firmware/intel-ucode/" % path)
    assert run(one, newest)["changed"]
    one.sh("cmp /srv/second /boot/.fleet-microcode/%s.kept" % version)


def test_dracut_without_the_modules_of_a_kernel(outdated):
    one, version, path, newest = outdated("bookworm-dracut")
    one.sh("mv /lib/modules/%s /srv/modules" % version)
    done = run(one, newest)
    assert done["failed"] and "dracut failed: exit status 1" in done["msg"]
    one.sh("cmp %s /srv/initrd; mv /srv/modules /lib/modules/%s" % (path, version))
    assert run(one, newest, kernels=["all"])["changed"] and "no kernel 5.5 is installed" in run(one, newest, kernels=["5.5"])["refused"]


@pytest.fixture
def recorded(tmp_path):
    """make(name, **more of its YAML) -> a recorded host, simulated."""
    def make(name, **more):
        one = simulated.make(tmp_path / name, dict(trees.hosts()[name], **more))
        one.reset()
        return one
    yield make
    simulated.stop_all(tmp_path)


PRESET = {"/etc/mkinitcpio.conf": "HOOKS=(base udev autodetect microcode modconf block filesystems fsck)\n"}


@pytest.mark.parametrize("name, more, revision", [
    ("rocky9-app1", {"kernels": [{"version": "5.14.0-570.58.1.el9_6.x86_64", "running": True, "carries": ["icx-404"]}],
                     "cpu": {"kind": "silver-4310", "revision": 0xd000404}}, "0x0d000410"),
    ("sles15-hana", {"kernels": [{"version": "5.14.21-150500.55.116-default", "running": True, "carries": []}]}, "0x00000049"),
    ("ubuntu-offline", {}, None), ("fedora-build", {}, None),
    ("arch-desk", {"boot": {"system": "extlinux"}, "files": PRESET, "packages": [
        {"name": "intel-ucode", "version": "20251111-1", "files": {"intel-ucode/06-9a-03": ["adl-43a"]}}]}, "0x0000043a")])
def test_other_distributions(recorded, name, more, revision):
    one = recorded(name, **more)
    facts = one.facts()
    revision = revision or next(each["revision"] for each in facts["files"] if each["revision"])
    done = run(one, revision)
    assert done.get("failed") is False and done["loads"] == "update", done
    assert done["changed"] is (facts["early"]["kernels"][0]["revision"] != revision) and run(one, revision)["changed"] is False
    one.reset()
    assert one.facts()["cpu"]["revision"] == revision
    back = run(one, None)
    assert back["failed"] is False and back["changed"] is done["changed"] and run(one, None)["changed"] is False


def test_where_the_packages_image_is_read_first_the_initrd_is_left_alone(recorded):
    assert "given the microcode of /boot/intel-uc.img before its initrd" in run(recorded("gentoo-ws"), "0x00000440")["refused"]
