# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A late load that is killed, cut off, refused or lied to at each of its steps: no guest stays paused, and the next run ends as if nothing had been."""
import json
import threading

import pytest

from ansible_collections.fleet.microcode.tests.fleet.driven import Lost
from ansible_collections.fleet.microcode.tests.lab.test_late import FROM, INTEL, MODULE, NEW, RUNS, load, states, with_guests

FOLDER = "/var/lib/fleet-microcode"
STEPS = {  # what has just been written when the module ends: (file, text)
    "begun": ("run.json", '"begun"'), "loading": ("run.json", '"loading"'), "guests entered": ("lease.json", '"uuid"'),
    "guests given back": ("lease.json", '"guests": []'), "loaded": ("run.json", '"loaded"'), "read back": ("run.json", '"read back"'),
    "closed": ("run.json", '"outcome": "done"'),
}


@pytest.fixture
def one(machine):
    """A Xen host with two guests that run."""
    made = machine("bookworm-xen", revision=FROM)
    with_guests(made)
    return made


def settled(one):
    """Wait until guests run and nothing of a lease is left."""
    one.wait(lambda: states(one) == {"g1": False, "g2": False}, "guests stay paused: %s" % states(one))
    one.wait(lambda: not leases(one), "a lease is left")


def leases(one):
    return [name for name in one.sh("ls %s/leases 2>/dev/null || true" % FOLDER).split() if name != "lock"]


def record(one):
    return json.loads(one.sh("cat %s/run.json" % FOLDER))


def killed(one, **fault):
    """A run that does not come to its end; afterwards all guests run."""
    one.fault(**fault)
    try:
        load(one, check=False, guests="pause")
    except (ValueError, AssertionError, Lost):  # it has no answer to give
        pass
    one.wait(lambda: states(one) == {"g1": False, "g2": False}, "guests stay paused: %s" % states(one))


def ends_well(one):
    """A run after the fault comes to where one without any comes to."""
    done = load(one, guests="pause")
    assert done["after"] == {NEW: [0, 1]} and done["unread"] == 0 and set(one.revisions().values()) == {NEW}
    settled(one)
    assert record(one)["outcome"] is not None
    return done


@pytest.mark.point
@pytest.mark.parametrize("step, number", [(step, 9) for step in STEPS] + [("loading", 15), ("guests entered", 15), ("guests entered", 1), ("loaded", 1)])
def test_killed_at_each_step_guests_run_and_the_next_run_ends_well(one, step, number):
    file, text = STEPS[step]
    killed(one, kill={"file": file, "text": text, "signal": number})
    ends_well(one)


@pytest.mark.point
@pytest.mark.parametrize("step", ["loading", "guests entered", "loaded"])
def test_cut_off_at_each_step_guests_run_and_the_next_run_ends_well(one, step):
    file, text = STEPS[step]
    killed(one, cut={"file": file, "text": text})
    one.wait(lambda: '"outcome": null' not in one.sh("cat %s/run.json" % FOLDER), "the run that was cut off does not end")
    ends_well(one)


def in_the_load(one, do, **arguments):
    """Have xen-ucode hang, call do() while guests are paused, and give what the module returned, or None."""
    one.fault(load={"hangs": True})
    answers = []

    def run():
        try:
            answers.append(load(one, check=False, guests="pause", **arguments))
        except (ValueError, AssertionError, Lost):
            answers.append(None)
    other = threading.Thread(target=run)
    other.start()
    try:
        one.wait(lambda: states(one) == {"g1": True, "g2": True}, "guests are not paused")
        do()
    finally:
        one.fault(load=None)
        other.join()
    return answers[0]


def test_killed_in_the_load_the_watcher_lets_guests_run_at_once(one):
    def kill():
        one.ssh("kill", "-9", str(record(one)["pid"]))
        one.wait(lambda: states(one) == {"g1": False, "g2": False}, "guests stay paused")
    in_the_load(one, kill, hold=30)
    settled(one)
    ends_well(one)


def test_terminated_in_the_load_it_lets_the_load_end_and_guests_run(one):
    in_the_load(one, lambda: one.ssh("kill", "-15", str(record(one)["pid"])), hold=30)
    settled(one)
    assert set(one.revisions().values()) == {NEW}
    ends_well(one)


def test_a_load_that_hangs_does_not_hold_guests_beyond_their_time(one):
    done = in_the_load(one, lambda: one.wait(lambda: states(one) == {"g1": False, "g2": False}, "guests stay paused"), hold=1)
    assert done["expired"] is True
    settled(one)
    ends_well(one)


def test_a_load_that_does_not_come_back_is_given_up_and_told(one):
    one.fault(load={"hangs": True})
    done = load(one, check=False, guests="pause", hold=1, timeout=2)
    assert "gave no answer within 2 s" in done["msg"] and done["after"] == {RUNS: [0]} and set(one.revisions().values()) == {RUNS}
    one.fault(load=None)
    settled(one)
    ends_well(one)


def test_a_second_run_at_the_same_time_is_refused_and_names_the_first(one):
    said = []
    in_the_load(one, lambda: said.append(load(one, check=False)), hold=30)
    assert "another run is going on here: late_load, process" in said[0]["msg"] and "after" not in said[0]
    settled(one)


def test_a_tool_that_lies_is_found_out(one):
    one.fault(load={"lies": True})
    done = load(one, check=False, guests="pause")
    assert "0x02007006 was not taken" in done["msg"] and done["changed"] is False and set(one.revisions().values()) == {RUNS}
    settled(one)
    one.fault(load=None)
    ends_well(one)


def test_a_tool_that_fails_is_quoted(one):
    one.fault(load={"fails": "Could not open /proc/xen/privcmd"})
    done = load(one, check=False, guests="pause")
    assert "Could not open /proc/xen/privcmd" in done["msg"] and set(one.revisions().values()) == {RUNS}
    settled(one)


def test_a_guest_that_cannot_be_paused_keeps_microcode_from_being_loaded(one):
    one.fault(unpausable={"g2": "EPERM"})
    done = load(one, check=False, guests="pause")
    assert "g2" in done["msg"] and "what was paused runs again" in done["msg"] and "after" not in done
    settled(one)
    assert set(one.revisions().values()) == {RUNS}
    one.fault(unpausable=None)
    ends_well(one)


def test_a_full_disk_keeps_it_from_beginning(one):
    one.fault(full={"/var/lib": 0})
    done = load(one, check=False, guests="pause")
    assert "No space left on device" in done["msg"] and "after" not in done
    assert states(one) == {"g1": False, "g2": False} and set(one.revisions().values()) == {RUNS}
    one.fault(full=None)
    ends_well(one)


def test_a_restart_of_the_host_makes_an_interrupted_run_void(one):
    killed(one, kill={"file": "run.json", "text": '"loading"'})
    one.reset()
    with_guests(one)
    one.ssh("xl", "pause", "g1")  # by somebody else, and it stays so
    done = load(one, guests="pause")
    assert done["after"] == {NEW: [0, 1]} and done["resumed"] == {} and states(one) == {"g1": True, "g2": False}


def test_a_host_that_would_not_load_is_only_looked_at_in_check_mode(one):
    done = one.ansible(MODULE, {"revision": NEW, "path": INTEL, "guests": "pause"}, check=False, look=True)
    assert done["changed"] is True and "would load 0x02007006" in done["msg"] and "2 guests paused" in done["msg"]
    assert set(one.revisions().values()) == {RUNS} and "No such file" in one.ssh("ls", FOLDER, check=False).stderr
