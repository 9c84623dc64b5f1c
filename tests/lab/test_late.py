# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""microcode_late_load on Xen and on Linux: what the processor's own log has is the truth, and guests run afterwards whatever came of it."""
import re

import pytest

MODULE = "fleet.microcode.microcode_late_load"
INTEL = "/lib/firmware/intel-ucode/06-55-04"
FROM, NEW = 0x02006b06, "0x02007006"  # the first is the minimum that the file declares
RUNS = "0x%08x" % FROM
RELEASES = [pytest.param("bullseye-xen", id="4.14"), pytest.param("bookworm-xen", id="4.17", marks=pytest.mark.smoke), pytest.param("trixie-xen", id="4.20")]


def with_guests(one):
    """Start two guests that count, and wait until they do."""
    for name in ("g1", "g2"):
        one.ssh("xl", "create", "--quiet", "/srv/guests/%s.cfg" % name)
        one.wait(lambda name=name: counted(one, name) is not None, name + " does not count")


def counted(one, name):
    """How far a guest has counted."""
    said = re.findall(r"%s count=(\d+)" % name, one.sh("cat /var/log/xen/console/guest-%s.log 2>/dev/null || true" % name))
    return int(said[-1]) if said else None


def states(one):
    """{guest: whether it is paused}"""
    return dict((line.split()[0], line.split()[4][2] == "p") for line in one.ssh("xl", "list").stdout.splitlines()[2:])


def load(one, check=True, **arguments):
    """What the module returns for the file's own revision."""
    return one.ansible(MODULE, dict({"revision": NEW}, **arguments), check=check)


@pytest.mark.parametrize("image", RELEASES)
def test_on_xen_with_guests_paused(machine, image):
    one = machine(image, revision=FROM)
    with_guests(one)
    one.ssh("xl", "pause", "g2")  # by somebody else
    before = len(one.events())
    done = one.ansible(MODULE, {"revision": NEW, "path": INTEL, "guests": "pause"})
    assert one.revisions() == {0: NEW, 1: NEW}
    assert (done["changed"], done["interface"], done["before"], done["after"], done["unread"]) == (True, "xen-ucode", {RUNS: [0, 1]}, {NEW: [0, 1]}, 0) or (
        done["before"] == {RUNS: [0]} and done["after"] == {NEW: [0, 1]})  # Xen's log names those CPUs that took something
    assert [guest["name"] for guest in done["held"]] == ["g1"] and done["expired"] is False and done["held"][0]["seconds"] > 0
    assert [(guest["name"], guest["why"]) for guest in done["left"]] == [("g2", "it is paused")]
    assert any("updated from revision 0x2006b06 to 0x2007006" in line for line in done["log"])
    assert done["next_boot"] == {"loads": "none", "revision": None}
    assert states(one) == {"g1": False, "g2": True}
    one.ssh("xl", "unpause", "g2")
    assert states(one) == {"g1": False, "g2": False}  # it was paused once, and not by us
    far = counted(one, "g1")
    one.wait(lambda: counted(one, "g1") > far or not one.real, "g1 no longer counts")
    print("held %s s; its own counting: %s" % (done["held"][0]["seconds"], sorted(_jumps(one, "g1"))[-3:]))

    offered = len(one.events())
    again = load(one, guests="pause")
    assert (again["changed"], again["after"], again["held"]) == (False, {NEW: [0, 1]}, [])
    assert len(one.events()) == offered > before  # the processor was given nothing


def _jumps(one, name):
    times = [float(text) for text in re.findall(r"count=\d+ uptime=([\d.]+)", one.sh("cat /var/log/xen/console/guest-%s.log" % name))]
    return [late - early for early, late in zip(times, times[1:])]


def test_on_xen_one_cpu_alone_takes_it_and_that_is_no_success(machine):
    one = machine("bookworm-xen", revision=FROM, faults=["ucode-cpus=1"])
    with_guests(one)
    done = load(one, check=False, guests="pause")
    assert one.revisions() == {0: NEW, 1: RUNS}
    assert "CPUs run different revisions now" in done["msg"] and "reboot it soon" in done["msg"]
    assert done["after"] == {NEW: [0], RUNS: [1]} and [guest["name"] for guest in done["held"]] == ["g1", "g2"]
    assert states(one) == {"g1": False, "g2": False}


@pytest.mark.parametrize("version", ["6.12", "6.1"])
def test_on_linux_through_sysfs(machine, version):
    one = machine("bookworm-late", threads=2, revision=FROM)
    if version == "6.1":  # the newest is the default
        ids = re.findall(r"menuentry_id_option '(gnulinux-(?:6\.1\.\d+-late-)?advanced-[^']+)'", one.sh("cat /boot/grub/grub.cfg"))
        one.ssh("grub-reboot", ">".join(ids))
        one.reboot()
    done = load(one)
    assert one.revisions() == {0: NEW, 1: NEW}
    assert (done["changed"], done["interface"], done["before"], done["after"], done["unread"]) == (True, "sysfs", {RUNS: [0, 1]}, {NEW: [0, 1]}, 0)
    assert done["flags"] == {"gained": [], "lost": []} and done["file"] == INTEL
    assert any("revision: 0x2006b06 -> 0x2007006" in line for line in done["log"])
    assert done["tainted"]["after"] & 4 == (0 if version == "6.12" else 4)  # from 6.7 on a load above the declared minimum is safe
    assert load(one)["changed"] is False


def test_a_kernel_without_the_reload_file_is_refused(machine):
    one = machine("bookworm-dracut", kind="sapphire-rapids")
    done = one.ansible(MODULE, {"revision": "0x2b000661"}, check=False)
    assert "after" not in done and "has no reload file" in done["msg"] and done["msg"].endswith("load it early")


def test_what_must_not_be_loaded_is_refused_and_changes_nothing(machine):
    one = machine("bookworm-xen", revision=FROM)
    with_guests(one)
    one.sh("cd /srv; head -c 4096 %s >cut; { cat %s; printf x; } >more; cp %s damaged; "
           "printf 'damaged' | dd of=damaged bs=1 seek=2000 conv=notrunc 2>/dev/null; "
           "cp /lib/firmware/intel-ucode/06-8f-08 other; mkdir -p folder; : >empty" % (INTEL, INTEL, INTEL))
    for arguments, words in (
            ({"path": "/srv/cut"}, "cut off"), ({"path": "/srv/more"}, "whole"), ({"path": "/srv/damaged"}, "checksum"), ({"path": "/srv/empty"}, "empty"),
            ({"path": "/srv/other"}, "holds nothing for this CPU"), ({"path": "/srv/none"}, "could not be read"),
            ({"path": "/srv/folder"}, "not a regular file"),
            ({"sha256": "00"}, "not the file that was decided on"), ({"revision": "0x02007007"}, "not 0x02007007"), ({"revision": "new"}, "is no number"),
            ({"hold": 31}, "from 1 to 30"),
    ):
        done = load(one, check=False, guests="pause", **arguments)
        assert "after" not in done and words in done["msg"], (arguments, done)
    assert [event for event in one.events() if event["event"] == "update"] == [] and states(one) == {"g1": False, "g2": False}


@pytest.mark.parametrize("revision, words", [(0x02000050, "may be loaded late from 0x02006b06 on, and 0x02000050 runs"), (0x02007007, "never goes back")])
def test_a_revision_that_is_too_old_or_too_new_is_refused(machine, revision, words):
    one = machine("bookworm-late", revision=revision)
    done = load(one, check=False)
    assert "after" not in done and words in done["msg"] and set(one.revisions().values()) == {"0x%08x" % revision}
