# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""hypervisor_guest on hosts with guests: what it did is what xl and virsh say, never what it says of itself."""
import json

import pytest

MODULE = "fleet.microcode.hypervisor_guest"
LEASES = "/var/lib/fleet-microcode/leases"
SAVED = "/var/lib/fleet-microcode/saved"
LONG = 3600
XML = "<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>"


class Fleet:
    """A host and its guests."""

    def __init__(self, one):
        self.one = one

    def __call__(self, check=True, **arguments):
        """What the module returns."""
        return self.one.ansible(MODULE, arguments, check=check)

    def refused(self, **arguments):
        """The words in which it refuses."""
        done = self(check=False, **arguments)
        assert "guests" not in done, done
        return done["msg"]

    def until(self, **states):
        """Wait until the guests are in these states."""
        self.one.wait(lambda: self.states == states, "guests are not as they should be: %s" % states)


class Xen(Fleet):
    @property
    def states(self):
        """{name: running or paused} of the guests that are there."""
        said = self.one.ssh("xl", "list").stdout.splitlines()[2:]
        return dict((line.split()[0], "paused" if line.split()[4][2] == "p" else "running") for line in said)

    def xl(self, *words):
        self.one.ssh("xl", *words)

    def create(self, name):
        self.xl("create", "--quiet", "/srv/guests/%s.cfg" % name)

    def number(self, name):
        return self.one.ssh("xl", "domid", name).stdout.strip()

    def uuid(self, name):
        return json.loads(self.one.ssh("xl", "list", "-l", name).stdout)[0]["config"]["c_info"]["uuid"]

    def store(self, path, value):
        self.one.ssh("xenstore-write", path, value)


@pytest.fixture(params=["bindings", "xl"])
def tool(request):
    """Through what Xen's guests are driven."""
    return request.param


@pytest.fixture
def fleet(machine, tool):
    """A Xen host with the guests g1 and g2."""
    one = machine("bookworm-xen")
    found = Xen(one)
    if tool == "xl":  # a package of that name without what is looked for in it
        place = one.sh("echo /usr/lib/xen-4.*/lib/python").strip()
        one.sh("mv %s /srv/python; mkdir -p %s/xen; echo >%s/xen/__init__.py" % (place, place, place))
    for name in ("g1", "g2"):
        found.create(name)
    return found


def leases(fleet):
    return [name for name in fleet.one.sh("ls %s" % LEASES).split() if name != "lock"]


def test_guests_are_listed(fleet, tool):
    fleet.xl("pause", "g2")
    done = fleet()
    assert (done["changed"], done["hypervisor"], done["tool"]) == (False, "xen", tool)
    assert done["guests"] == [
        {"uuid": fleet.uuid(name), "id": int(fleet.number(name)), "name": name, "state": state, "why_not": None, "held": None}
        for name, state in (("g1", "running"), ("g2", "paused"))]
    assert fleet.states == {"g1": "running", "g2": "paused"}


def test_guests_are_paused_and_run_again_when_asked(fleet):
    done = fleet(state="paused", **{"for": LONG})
    assert fleet.states == {"g1": "paused", "g2": "paused"}
    assert done["changed"] is True and done["left"] == [] and all(0 < guest["held"] <= LONG for guest in done["guests"])
    assert fleet(state="paused", **{"for": LONG})["changed"] is False
    done = fleet(state="running", name=["g1"])
    assert done["changed"] is True and [guest["name"] for guest in done["guests"]] == ["g1"]
    assert fleet.states == {"g1": "running", "g2": "paused"}
    assert fleet(state="running")["changed"] is True
    assert fleet.states == {"g1": "running", "g2": "running"}
    assert fleet(state="running")["changed"] is False


def test_guests_run_again_by_themselves(fleet):
    assert fleet(state="paused", name=["g1"], **{"for": 1})["changed"] is True
    fleet.until(g1="running", g2="running")
    fleet.one.wait(lambda: not leases(fleet), "the lease is still there")


def test_what_somebody_else_has_paused_stays_so(fleet):
    fleet.xl("pause", "g2")
    done = fleet(state="paused", **{"for": LONG})
    assert [guest["held"] is None for guest in done["guests"]] == [False, True]
    fleet.xl("pause", "g1")
    done = fleet(state="running")
    assert done["left"][0]["name"] == "g2" and "somebody else" in done["left"][0]["why"]
    assert fleet.states == {"g1": "paused", "g2": "paused"}
    fleet.xl("unpause", "g1")
    fleet.xl("unpause", "g2")
    assert fleet.states == {"g1": "running", "g2": "running"}  # each was paused once
    assert "somebody else" in (fleet.xl("pause", "g2") or fleet.refused(state="running", name=["g2"]))


def test_a_guest_that_was_ended_meanwhile_stands_in_nobodys_way(fleet):
    fleet(state="paused", **{"for": LONG})
    fleet.xl("destroy", "g1")
    assert fleet(state="running")["changed"] is True
    assert fleet.states == {"g2": "running"}
    fleet.create("g1")
    assert fleet.states == {"g1": "running", "g2": "running"}


def test_where_one_cannot_be_paused_none_stays_so(fleet):
    if fleet.one.real:
        pytest.skip("takes a guest that Xen does not pause")
    fleet.one.fault(unpausable={"g2": "EPERM"})
    assert "g2 (Operation not permitted)" in fleet.refused(state="paused", **{"for": LONG})
    assert fleet.states == {"g1": "running", "g2": "running"} and leases(fleet) == []


@pytest.mark.parametrize("path, value, why", [
    ("/local/domain/{two}/backend/vbd/{one}/51712/online", "1", "driver domain: it serves vbd of {one}"),
    ("/local/domain/{two}/target", "{one}", "device model of domain {one}"),
    ("/local/domain/{one}/image/device-model-domid", "{two}", "device model of domain {one}"),
    ("/tool/xenstored/domid", "{two}", "XenStore's domain"),
    ("/local/domain/{two}/name", "g2--incoming", "on its way here"),
    ("/local/domain/{two}/name", "g2--migratedaway", "saved or migrated"),
    ("/local/domain/{two}/control/shutdown", "suspend", "saved or migrated"),
])
@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_domains_that_are_no_guests_are_left_alone(fleet, path, value, why):
    numbers = {"one": fleet.number("g1"), "two": fleet.number("g2")}
    uuid = fleet.uuid("g2")
    fleet.store(path.format(**numbers), value.format(**numbers))
    done = fleet(state="paused", **{"for": LONG})
    assert [one["uuid"] for one in done["left"]] == [uuid] and why.format(**numbers) in done["left"][0]["why"]
    assert sorted(fleet.states.values()) == ["paused", "running"] and fleet.states["g1"] == "paused"
    assert why.format(**numbers) in fleet.refused(state="paused", name=[uuid], **{"for": LONG})


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_without_xenstore_nobody_is_touched(fleet):
    fleet.one.sh("rm /usr/bin/xenstore-ls")
    done = fleet(state="paused", **{"for": LONG})
    assert done["changed"] is False and len(done["left"]) == 2 and "XenStore cannot be read" in done["left"][0]["why"]
    assert fleet.states == {"g1": "running", "g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_names_that_mean_no_guest_are_refused(fleet):
    message = fleet.refused(state="paused", name=["g1", "g3"], **{"for": LONG})
    assert "g3: no guest here is called so; there are: g1, g2" in message
    for nothing in ("Domain-0", "0", fleet.number("g1")):
        assert "no guest here is called so" in fleet.refused(state="paused", name=[nothing], **{"for": LONG})
    assert "1 to 3600 seconds" in fleet.refused(state="paused", **{"for": 3601})
    assert "for" in fleet.refused(state="paused")
    assert fleet.states == {"g1": "running", "g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_where_xapi_manages_the_guests_none_is_touched(fleet):
    fleet.one.write("/etc/xensource-inventory", "")
    for arguments in ({"state": "paused", "for": LONG}, {"state": "saved"}, {"state": "running", "name": ["g1"]}, {}):
        assert "XAPI manages this host" in fleet.refused(**arguments)
    assert fleet(state="running")["changed"] is False
    assert fleet.states == {"g1": "running", "g2": "running"}


# --- saved and restored ---

def images(fleet):
    return fleet.one.sh("ls %s 2>/dev/null || true" % SAVED).split()


def test_guests_are_saved_and_restored_once(fleet):
    uuid = fleet.uuid("g1")
    assert fleet(state="saved", name=["g1"])["changed"] is True
    assert fleet.states == {"g2": "running"}
    assert fleet(state="saved", name=["g1"])["changed"] is False
    done = fleet()
    assert [(guest["name"], guest["state"], guest["uuid"]) for guest in done["guests"] if guest["id"] is None] == [("g1", "saved", uuid)]
    assert fleet.one.sh("stat -c %%a %s %s/%s.image" % (SAVED, SAVED, uuid)).split() == ["700", "600"]
    assert fleet(state="restored")["changed"] is True
    assert fleet.states == {"g1": "running", "g2": "running"} and fleet.uuid("g1") == uuid
    assert images(fleet) == []
    assert fleet(state="restored")["changed"] is False


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_a_guest_that_was_started_anew_is_not_restored(fleet):
    fleet(state="saved", name=["g1"])
    fleet.create("g1")
    left = fleet(state="restored")["left"]
    assert left[0]["name"] == "g1" and "would corrupt its disks" in left[0]["why"]
    assert "2 guests are called so" in fleet.refused(state="restored", name=["g1"])
    assert fleet.states == {"g1": "running", "g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_a_restore_that_was_begun_is_not_begun_again(fleet):
    uuid = fleet.uuid("g1")
    fleet(state="saved", name=["g1"])
    fleet.one.ssh("mv", "%s/%s.image" % (SAVED, uuid), "%s/%s.restoring" % (SAVED, uuid))
    assert "begun once" in fleet.refused(state="restored", name=["g1"])
    assert fleet.states == {"g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_a_guest_whose_cpu_features_are_gone_is_not_restored(fleet):
    uuid = fleet.uuid("g1")
    fleet(state="saved", name=["g1"])
    path = "%s/%s.json" % (SAVED, uuid)
    record = json.loads(fleet.one.ssh("cat", path).stdout)
    assert "7b0.0" in record["features"]  # fsgsbase: the processors of these hosts have it
    fleet.one.write(path, json.dumps(dict(record, features=record["features"] + ["7b0.11"])))
    assert "lost features since it was saved (7b0.11" in fleet.refused(state="restored", name=["g1"])
    assert fleet.states == {"g2": "running"}
    fleet.one.write(path, json.dumps(record))
    assert fleet(state="restored")["changed"] is True
    assert fleet.states == {"g1": "running", "g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_what_cannot_be_saved_runs_on(fleet):
    fleet.xl("pause", "g2")
    done = fleet(state="saved")
    assert [(one["name"], "it is paused" in one["why"]) for one in done["left"]] == [("g2", True)]
    assert fleet.states == {"g2": "paused"}
    assert "it is paused" in fleet.refused(state="saved", name=["g2"])
    fleet.xl("unpause", "g2")
    fleet.one.ssh("mkdir", "-m", "777", "/srv/open")
    assert "no folder of this user alone" in fleet.refused(state="saved", folder="/srv/open")
    assert fleet.states == {"g2": "running"}


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_a_disk_without_room_takes_no_guest(fleet):
    if fleet.one.real:
        pytest.skip("takes a disk that is full")
    fleet.one.fault(full={"/var/lib": 100 << 20})
    assert "MiB free" in fleet.refused(state="saved", name=["g1"])
    assert fleet.states == {"g1": "running", "g2": "running"} and images(fleet) == []


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_a_save_that_fails_leaves_the_guest_and_no_image(fleet):
    if fleet.one.real:
        pytest.skip("takes an xl that fails")
    fleet.one.fault(commands={"xl": {"status": 1, "stderr": "no\n"}})
    assert "cannot be read" in fleet.refused(state="saved", name=["g1"])
    fleet.one.fault(commands=None)
    assert fleet.states == {"g1": "running", "g2": "running"} and images(fleet) == []


# --- the playbook ---

@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_the_playbook_repairs_a_host_and_does_nothing_where_nothing_is_to_be_done(fleet, machine):
    fleet.xl("pause", "g2")
    fleet(state="paused", name=["g1"], **{"for": LONG})
    assert " changed=1 " in fleet.one.play("fleet.microcode.resume_guests").stdout
    assert fleet.states == {"g1": "running", "g2": "paused"}
    for one in (fleet.one, machine("bookworm-dracut")):
        assert " changed=0 " in one.play("fleet.microcode.resume_guests").stdout


@pytest.mark.parametrize("tool", ["bindings"], indirect=True)
def test_after_a_restart_of_the_host_a_lease_is_void(fleet):
    fleet(state="paused", name=["g1"], **{"for": LONG})
    fleet.one.power_cycle()
    fleet.create("g1")
    fleet.xl("pause", "g1")
    done = fleet(state="running")
    assert done["changed"] is False and [one["name"] for one in done["left"]] == ["g1"]
    assert fleet.states == {"g1": "paused"} and leases(fleet) == []


# --- libvirt ---

class Libvirt(Fleet):
    @property
    def states(self):
        said = self.one.ssh("virsh", "list", "--all").stdout.splitlines()[2:]
        return dict((line.split(None, 2)[1], line.split(None, 2)[2].strip()) for line in said if line.strip())

    def virsh(self, *words):
        self.one.ssh("virsh", *words)


@pytest.fixture
def kvm(machine):
    """A KVM host with the guests g1 and g2, and g3 that is off."""
    one = machine("trixie-libvirt")
    found = Libvirt(one)
    for name in ("g1", "g2", "g3"):
        one.write("/root/%s.xml" % name, XML % name)
        found.virsh("define", "/root/%s.xml" % name)
    for name in ("g1", "g2"):
        found.virsh("start", name)
    return found


def test_libvirts_guests_are_paused_and_run_again(kvm):
    kvm.virsh("suspend", "g2")
    done = kvm()
    assert (done["hypervisor"], done["tool"]) == ("kvm", "virsh")
    assert [(guest["name"], guest["state"], guest["why_not"]) for guest in done["guests"]] == [("g1", "running", None), ("g2", "paused", None)]
    assert kvm(state="paused", **{"for": LONG})["changed"] is True
    assert kvm.states == {"g1": "paused", "g2": "paused", "g3": "shut off"}
    assert kvm(state="running")["left"][0]["name"] == "g2"
    assert kvm.states == {"g1": "running", "g2": "paused", "g3": "shut off"}
    kvm(state="paused", name=["g1"], **{"for": 1})
    kvm.until(g1="running", g2="paused", g3="shut off")


def test_where_libvirt_cannot_pause_one_none_stays_so(kvm):
    if kvm.one.real:
        pytest.skip("takes a guest that libvirt does not pause")
    kvm.one.fault(unpausable={"g2": "EPERM"})
    assert "unable to execute QEMU command" in kvm.refused(state="paused", **{"for": LONG})
    assert kvm.states == {"g1": "running", "g2": "running", "g3": "shut off"}


def test_libvirts_guests_are_saved_and_restored(kvm):
    assert kvm(state="saved", name=["g1"])["changed"] is True
    assert kvm.states == {"g1": "shut off", "g2": "running", "g3": "shut off"}
    assert [guest["state"] for guest in kvm(name=["g1"])["guests"]] == ["saved"]
    assert kvm(state="saved", name=["g1"])["changed"] is False
    assert kvm(state="restored")["changed"] is True
    assert kvm.states == {"g1": "running", "g2": "running", "g3": "shut off"}
    assert kvm(state="restored")["changed"] is False


def test_without_the_daemon_nothing_is_guessed(kvm):
    kvm.one.sh("systemctl stop 'libvirtd*' 'virtqemud*'")
    assert "failed to connect to the hypervisor" in kvm.refused(state="paused", **{"for": LONG})
