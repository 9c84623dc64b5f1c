# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""microcode_file on simulated hosts: what it costs, where files go on distributions that lay them out in other ways, and what faults leave behind."""
import contextlib
import hashlib
import json
import lzma
import os

import pytest

from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_intel, simulated, trees
from ansible_collections.fleet.microcode.tests.fleet.driven import Lost

MODULE = "fleet.microcode.microcode_file"
INTEL = "/lib/firmware/intel-ucode/06-55-04"
KEPT = "/var/lib/fleet-microcode/files"
NEWER = made_intel.update(revision=0x2007007, min_revision=0x2006b06, date="2024-05-01", data_size=made_intel.fitting(kib=64))
DIGEST = hashlib.sha256(NEWER).hexdigest()


@pytest.fixture
def host(tmp_path):
    """make(name) -> a recorded host, simulated."""
    made = []

    def make(name):
        spec = trees.hosts()[name]
        spec = dict(spec, simulate=dict(spec.get("simulate", {}), python=os.environ.get("FLEET_MICROCODE_HOST_PYTHON")))
        made.append(simulated.make(tmp_path / ("%d" % len(made)) / name, spec))
        return made[-1]
    try:
        yield make
    finally:
        for one in made:
            simulated.stop_all(one.folder.parent)


@pytest.fixture
def source(tmp_path):
    """source(bytes, name) -> path of a file on the controller."""
    def make(data=NEWER, name="06-55-04"):
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return str(path)
    return make


def put(one, src, check=True, look=False, **arguments):
    return one.ansible(MODULE, dict({"src": src}, **arguments), check=check, look=look)


def restore(one, check=True, **arguments):
    return one.ansible(MODULE, dict({"state": "restored"}, **arguments), check=check)


def there(one, path=INTEL):
    """The bytes of a file on the host, or None."""
    done = one.ssh("sha256sum", path, check=False)
    return done.stdout.split()[0] if done.returncode == 0 else None


def listing(one, *folders):
    return one.ssh("ls", "-lAR", "--time-style=full-iso", *folders, check=False).stdout


def test_one_operation_puts_it_there_and_one_puts_the_former_back(machine, source):
    one = machine("bookworm-late")
    former, look = there(one), listing(one, "/lib/firmware/intel-ucode/")
    count = one.operations
    done = put(one, source(), sha256=DIGEST.upper())
    assert one.operations - count == 1
    assert there(one) == DIGEST and one.sh("stat -c '%a %u %g' " + INTEL) == "644 0 0\n"
    assert (done["changed"], done["file"], done["kernel_reads"], done["instead_of"]) == (True, INTEL, INTEL, None)
    assert done["before"] == {"revision": "0x02007006", "date": "2023-03-06", "sha256": former, "problem": None}
    assert done["after"] == {"revision": "0x02007007", "date": "2024-05-01", "sha256": DIGEST, "problem": None}
    assert done["package"] == "intel-microcode 3.20251111.1~deb12u1" and done["kept"].startswith(KEPT + "/") and there(one, done["kept"]) == former
    assert "invocation" not in done and len(json.dumps(done)) < 4096
    assert one.facts()["files"][0]["revision"] == "0x02007007"
    assert put(one, source())["changed"] is False

    count = one.operations
    back = restore(one)
    assert one.operations - count == 1
    assert (back["changed"], back["before"], back["after"]) == (True, done["after"], done["before"])
    assert listing(one, "/lib/firmware/intel-ucode/") == look and one.sh("ls " + KEPT) == "record.json\n"
    assert restore(one)["changed"] is False


def test_check_mode_says_all_of_it_and_touches_nothing(machine, source):
    one = machine("bookworm-late")
    look = listing(one, "/lib/firmware", "/var/lib")
    said = put(one, source(), look=True)
    assert listing(one, "/lib/firmware", "/var/lib") == look
    done = put(one, source())
    assert dict(said, msg="") == dict(done, msg="") and "would" in said["msg"]


def test_what_is_kept_is_what_was_there_before_us_and_not_our_own(machine, source):
    one = machine("bookworm-late")
    former = there(one)
    put(one, source())
    second = made_intel.update(revision=0x2007008, data_size=made_intel.fitting(kib=32))
    done = put(one, source(second))
    assert there(one, done["kept"]) == former
    restore(one)
    assert there(one) == former
    put(one, source())
    one.sh("cp /lib/firmware/intel-ucode/06-2a-07 /tmp/x; printf x >>/tmp/x; mv /tmp/x " + INTEL)  # as a package's next version does
    package = there(one)
    refused = restore(one, check=False)
    assert "no longer what was put there" in refused["msg"] and there(one) == package
    done = put(one, source())
    assert there(one, done["kept"]) == package and len(one.sh("ls " + KEPT).split()) == 2
    restore(one)
    assert there(one) == package


def test_where_nothing_was_the_way_back_leaves_nothing(machine, source):
    one = machine("bookworm-late")
    one.sh("rm -r /lib/firmware/intel-ucode")
    done = put(one, source())
    assert (done["before"], done["kept"], there(one)) == (None, None, DIGEST)
    back = restore(one)
    assert (back["changed"], back["after"], back["kernel_reads"], there(one)) == (True, None, None, None)
    assert restore(one)["changed"] is False


def test_on_xen_a_file_elsewhere_serves_as_well(machine, source):
    one = machine("bookworm-xen", revision=0x02006b06)
    done = put(one, source(), dest="/root/intel-ucode/06-55-04")
    assert (done["changed"], done["kernel_reads"], done["package"]) == (True, None, None)
    loaded = one.ansible("fleet.microcode.microcode_late_load", {"revision": "0x02007007", "path": done["file"], "sha256": DIGEST})
    assert loaded["changed"] is True and set(one.revisions().values()) == {"0x02007007"}


def test_red_hats_links_are_replaced_and_made_again_and_what_they_lead_to_is_left(host, source):
    one = host("rhel8-app1")
    link = "/lib/firmware/4.18.0-553.83.1.el8_10.x86_64/intel-ucode/06-55-04"
    target, text = one.sh("realpath " + link).strip(), one.sh("readlink " + link)
    former = there(one, target)
    first = put(one, source())  # to the usual place
    assert first["kernel_reads"] == link
    done = put(one, source(), dest=link)
    assert (done["before"]["sha256"], done["kept"], done["kernel_reads"], there(one, link)) == (former, None, link, DIGEST)
    assert one.ssh("test", "-L", link, check=False).returncode and there(one, target) == former
    back = restore(one, dest=link)
    assert (back["after"]["sha256"], one.sh("readlink " + link), there(one, target)) == (former, text, former)
    assert there(one) == DIGEST


def test_a_plain_file_beside_a_packed_one_is_what_is_read_then(host, source):
    one = host("fedora-build")
    path = "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin"
    data = made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011e0, 0xa011)])
    done = put(one, source(data))
    assert (done["file"], done["before"], done["kernel_reads"], done["instead_of"], done["package"]) == (path, None, path, path + ".xz", None)
    assert "reads it rather than %s.xz" % path in done["msg"] and one.facts()["files"][0]["revision"] == "0x0a0011e0"
    assert restore(one)["kernel_reads"] == path + ".xz"


def test_a_packed_file_takes_the_place_of_a_packed_one(host, source):
    one = host("fedora-build")
    path = "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin.xz"
    former, data = there(one, path), made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011e0, 0xa011)])
    assert "bring it unpacked" in put(one, source(data), dest=path, check=False)["msg"] and there(one, path) == former
    done = put(one, source(lzma.compress(data, check=lzma.CHECK_CRC32)), dest=path)
    assert (done["after"]["revision"], done["package"], done["kernel_reads"]) == ("0x0a0011e0", "amd-ucode-firmware 20251111-1.fc43", path)
    back = restore(one, dest=path)
    assert back["after"] == done["before"] and there(one, path) == former


def test_on_xcp_ng(host, source):
    one = host("xcp-pool1")
    data = made_intel.update(signature=0x50657, pf_mask=0xbf, revision=0x5003a00)
    done = put(one, source(data, "06-55-07"))
    assert (done["file"], done["after"]["revision"], done["kernel_reads"]) == ("/lib/firmware/intel-ucode/06-55-07", "0x05003a00", None)
    assert done["package"].startswith("microcode_ctl ")
    assert restore(one)["after"] == done["before"]


def test_an_amd_container(host, source):
    one = host("kvm-milan1")
    data = made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011de, 0xa011)])
    done = put(one, source(data, "any-name"))
    assert done["file"] == "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin" and done["after"]["revision"] == "0x0a0011de"


@pytest.mark.parametrize("name", ["vm-kvm", "ct-docker", "xen-guest"])
def test_guests_are_refused(host, source, name):
    assert "this is a guest" in put(host(name), source(), check=False)["msg"]


# --- faults ---

@pytest.mark.parametrize("folder", [os.path.dirname(INTEL), "/var/lib/fleet-microcode"])
def test_a_full_disk_is_seen_before_anything_is_touched(machine, source, folder):
    one = machine("bookworm-late")
    one.sh("mkdir -pm 700 /var/lib/fleet-microcode/files")
    before = there(one)
    one.fault(full={folder: 512 << 10})
    look = listing(one, "/lib/firmware/intel-ucode", "/var/lib/fleet-microcode")
    refused = put(one, source(), check=False)
    assert folder in refused["msg"] and "make room" in refused["msg"]
    assert there(one) == before and listing(one, "/lib/firmware/intel-ucode", "/var/lib/fleet-microcode") == look
    one.fault(full=None)
    assert put(one, source())["changed"] is True


STEPS = {"journal": ("run.json", '"begun"'), "kept": ("record.json", '"ours"'),
         "beside": ("intel-ucode/.06-55-04.fleet", ""), "in place": ("intel-ucode/06-55-04", ""), "closed": ("run.json", '"outcome": "done"')}


@pytest.mark.point
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_the_file_is_whole_and_the_next_run_ends_well(machine, source, step, before):
    one = machine("bookworm-late")
    former, look = there(one), listing(one, "/lib/firmware/intel-ucode")
    one.fault(kill={"file": STEPS[step][0], "text": STEPS[step][1], "before": before})
    with contextlib.suppress(Lost):
        assert "kept" not in put(one, source(), check=False)
    assert "kill" not in one.machine.state()["faults"]  # it was reached
    assert there(one) in (former, DIGEST)
    assert put(one, source())["after"]["sha256"] == there(one) == DIGEST
    assert one.sh("ls -A /lib/firmware/intel-ucode | grep fleet-microcode || true") == ""
    assert restore(one)["after"]["sha256"] == there(one) == former
    assert listing(one, "/lib/firmware/intel-ucode") == look and one.sh("ls -A " + KEPT) == "record.json\n"


@pytest.mark.parametrize("step", ["intel-ucode/06-55-04", "record.json"])
def test_killed_on_the_way_back_the_next_run_ends_well(machine, source, step):
    one = machine("bookworm-late")
    former, look = there(one), listing(one, "/lib/firmware/intel-ucode")
    put(one, source())
    one.fault(kill={"file": step, "text": ""})
    with contextlib.suppress(Lost):
        restore(one, check=False)
    assert "kill" not in one.machine.state()["faults"]
    restore(one)
    assert there(one) == former and listing(one, "/lib/firmware/intel-ucode") == look and one.sh("ls -A " + KEPT) == "record.json\n"


def test_while_another_run_is_going_on_it_is_refused(machine, source):
    one = machine("bookworm-late")
    put(one, source())
    script = "import fcntl, time; held = open('/var/lib/fleet-microcode/lock'); fcntl.flock(held, 2); print(1, flush=True); time.sleep(600)"
    one.sh('setsid python3 -c "%s" >/root/held 2>&1 &' % script)
    one.wait(lambda: one.sh("cat /root/held") == "1\n", "the lock is not held")
    assert "another run is going on here" in restore(one, check=False)["msg"] and there(one) == DIGEST


ROLE = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: fleet.microcode.late
"""


def test_the_role_late_puts_the_file_there_and_loads_it(machine, source):
    one = machine("bookworm-late", revision=0x02006b06)
    decision = {"action": "late", "to": "0x02007007", "file": INTEL, "sha256": DIGEST, "guests": "none"}
    variables = {"late_decision": decision, "late_source": source()}
    one.play(ROLE, variables, look=True)
    assert there(one) != DIGEST
    one.play(ROLE, variables)
    assert there(one) == DIGEST and one.revisions() == {0: "0x02007007", 1: "0x02007007"}
    assert " changed=0 " in one.play(ROLE, variables).stdout
