# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""microcode_early_load: what the processor says after the boot is the truth."""
import pytest

MODULE = "fleet.microcode.microcode_early_load"
OLD, NEW = "0x02000050", "0x02007006"
XENS = [pytest.param("bullseye-xen", id="4.14"), pytest.param("bookworm-xen", id="4.17", marks=pytest.mark.smoke), pytest.param("trixie-xen", id="4.20")]
PACKAGE = "apt-get -q update; apt-get -qy install intel-microcode"
FILE = "/lib/firmware/intel-ucode/06-8f-08"
OURS = "/etc/default/grub.d/zz-fleet-microcode.cfg"


def load(one, revision, check=True, look=False, **arguments):
    """What the module returns."""
    return one.ansible(MODULE, dict({"revision": revision} if revision else {"state": "absent"}, **arguments), check=check, look=look, seconds=1800)


def refused(one, revision, **arguments):
    """The words in which the module fails."""
    done = load(one, revision, check=False, **arguments)
    assert done["changed"] is False and "kernels" not in done, done
    return done["msg"]


def held(one):
    """The digests of what boots and of its settings, and what lies beside them."""
    script = "sha256sum /boot/initrd.img-* /boot/grub/grub.cfg /etc/default/grub; ls -A /boot /etc/default/grub.d"
    return one.ssh("sh", "-c", script, check=False).stdout


@pytest.mark.parametrize("image", XENS)
def test_xen_scans_from_the_next_boot_on(machine, image):
    one = machine(image)
    one.sh("mkdir -p /etc/grub.d; "
           "printf '#!/bin/sh\\nexec tail -n +3 $0\\nmenuentry \"mine\" { true }\\n' >/etc/grub.d/40_custom; chmod +x /etc/grub.d/40_custom; update-grub")
    before = held(one)
    looked = load(one, NEW, look=True)
    assert (looked["changed"], looked["pending"], looked["options"]["after"].split()[-1]) == (True, None, "ucode=scan") and held(one) == before
    done = load(one, NEW)
    assert (done["changed"], done["pending"], done["reboot_needed"], done["loads"]) == (True, NEW, True, "update")
    assert [kernel["before"] == kernel["after"] and kernel["after"]["revision"] == NEW for kernel in done["kernels"]] == [True]  # the initrd had it, unread
    assert done["options"] == looked["options"]
    assert one.sh("grep -c mine /boot/grub/grub.cfg").strip() == "1"
    assert load(one, NEW)["changed"] is False
    one.reboot()
    assert set(one.revisions().values()) == {NEW}
    facts = one.facts()
    assert (facts["cpu"]["revision"], facts["pending"], facts["early"]["xen_ucode"]) == (NEW, None, "scan")

    back = load(one, None)
    assert (back["changed"], back["options"]["after"]) == (True, done["options"]["before"]) and held(one).replace(".fleet-microcode\n", "") == before
    assert load(one, None)["changed"] is False
    one.reboot()
    assert one.facts()["hypervisor"]["type"] == "xen" and one.facts()["early"]["xen_ucode"] == "none"


def test_a_newer_package_that_rebuilt_nothing_is_loaded_after_the_initrd_is_made_anew(machine):
    one = machine("bookworm-dracut", kind="sapphire-rapids")
    older = one.facts()["files"][0]["revision"]
    one.sh("update-grub")
    version = one.sh("uname -r").strip()
    path = "/boot/initrd.img-" + version
    one.sh("cp %s /srv/initrd" % path)
    one.sh(PACKAGE, seconds=900)
    one.sh("cp /srv/initrd %s" % path)  # as where no trigger rebuilds
    facts = one.facts()
    newer, digest = [(each["revision"], each["sha256"]) for each in facts["files"] if each["path"].endswith("06-8f-08")][0]
    assert newer > older and facts["early"]["kernels"][0]["revision"] == older
    assert "not the file that was decided on" in refused(one, newer, sha256="00" * 32)
    looked = load(one, newer, look=True)
    assert looked["changed"] and looked["kernels"][0]["after"] == {"revision": newer, "size": None, "sha256": None}
    done = load(one, newer, file=FILE, sha256=digest)
    (kernel,) = done["kernels"]
    assert done["changed"] and (kernel["before"]["revision"], kernel["after"]["revision"], kernel["version"]) == (older, newer, version)
    assert done["kept"] == ["/boot/.fleet-microcode/%s.kept" % version]
    one.sh("cmp /srv/initrd " + done["kept"][0])
    assert load(one, newer)["changed"] is False
    one.reboot()
    assert set(one.revisions().values()) == {newer} and one.facts()["cpu"]["revision"] == newer
    back = load(one, None)
    assert back["changed"] and back["kernels"][0]["after"] == kernel["before"] and back["kept"] == []
    one.sh("cmp /srv/initrd " + path)
    assert load(one, None)["changed"] is False


def test_amd(machine):
    one = machine("bookworm-xen", kind="epyc-rome")
    one.sh("update-grub")
    (offered,) = [entry["revision"] for entry in one.facts()["files"]]
    done = load(one, offered)
    assert done["changed"] and done["pending"] == offered
    one.reboot()
    assert set(one.revisions().values()) == {offered}
    assert load(one, offered)["changed"] is False


def test_what_somebody_decided_is_not_overridden(machine):
    one = machine("bookworm-dracut", kind="sapphire-rapids")
    before = held(one)
    for setup, words in (
            ("sed -i 's/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX=\"dis_ucode_ldr\"/' /etc/default/grub; update-grub", "it stands in /etc/default/grub:"),
            ("sed -i s/dis_ucode_ldr// /etc/default/grub; update-grub; echo 'early_microcode=\"no\"' >/etc/dracut.conf.d/no.conf",
             "/etc/dracut.conf.d/no.conf has"),
    ):
        one.sh(setup)
        assert words in refused(one, "0x2b000999")
    one.sh("rm /etc/dracut.conf.d/no.conf")
    assert "no file that dracut takes holds 0x2b000999" in refused(one, "0x2b000999") and held(one).split("\n")[0] == before.split("\n")[0]
