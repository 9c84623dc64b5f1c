# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Late loads whose interface hangs or lies, and hosts whose cores have two threads."""
import json
import threading

import pytest

from ansible_collections.fleet.microcode.tests.fleet.driven import Lost
from ansible_collections.fleet.microcode.tests.lab.test_late import FROM, INTEL, MODULE, NEW, RUNS, load

RECORD = "/var/lib/fleet-microcode/run.json"


@pytest.fixture
def linux(machine):
    """A kernel with late loading, without a hypervisor."""
    return machine("bookworm-late", revision=FROM)


def events(one):
    return [each["event"] for each in json.loads(one.sh("cat " + RECORD))["events"]]


def test_a_write_that_hangs_in_the_kernel_is_given_up_and_told(linux):
    linux.fault(load={"hangs": True})
    done = load(linux, check=False, timeout=2)
    assert "the kernel has not come back from the load after 2 s" in done["msg"] and done["after"] == {RUNS: [0, 1]} and done["changed"] is False
    linux.fault(load=None)  # at which the kernel comes back, and has loaded
    linux.wait(lambda: set(linux.revisions().values()) == {NEW}, "the write was lost")
    again = load(linux)
    assert (again["changed"], again["after"]) == (False, {NEW: [0, 1]})


def test_a_kernel_that_lies_is_found_out(linux):
    linux.fault(load={"lies": True})
    done = load(linux, check=False)
    assert "0x02007006 was not taken" in done["msg"] and done["said"] is None and (done["changed"], done["after"]) == (False, {RUNS: [0, 1]})
    linux.fault(load=None)
    assert load(linux)["after"] == {NEW: [0, 1]}


@pytest.mark.parametrize("faults, words", [(["ucode-refuse=" + NEW], "was not taken"), (["ucode-cpus=1"], "CPUs run different revisions now")])
def test_what_cpus_do_not_take_is_no_success(machine, faults, words):
    one = machine("bookworm-late", revision=FROM, faults=faults)
    done = load(one, check=False)
    assert words in done["msg"] and "the load was incomplete" in done["msg"]
    assert {cpu: revision for revision, cpus in done["after"].items() for cpu in cpus} == one.revisions()


def test_killed_in_the_load_the_kernel_ends_it_and_the_next_run_reaches_the_truth(linux):
    linux.fault(load={"hangs": True})

    def run():
        with pytest.raises((AssertionError, Lost, ValueError)):  # it has no answer to give
            load(linux)
    other = threading.Thread(target=run)
    other.start()
    try:
        linux.wait(lambda: "loading" in linux.sh("cat %s 2>/dev/null || true" % RECORD), "it does not begin")
        linux.ssh("kill", "-9", str(json.loads(linux.sh("cat " + RECORD))["pid"]))
    finally:
        linux.fault(load=None)
        other.join()
    again = load(linux)
    assert again["after"] == {NEW: [0, 1]} and set(linux.revisions().values()) == {NEW}


def test_a_full_disk_keeps_it_from_beginning(linux):
    linux.fault(full={"/var/lib": 0})
    done = load(linux, check=False)
    assert "No space left on device" in done["msg"] and "after" not in done and set(linux.revisions().values()) == {RUNS}


def test_linux_is_given_no_other_file_than_the_one_that_it_reads(linux):
    linux.sh("mkdir -p /srv; cp %s /srv/06-55-04" % INTEL)
    done = load(linux, check=False, path="/srv/06-55-04")
    assert "reads %s, not /srv/06-55-04" % INTEL in done["msg"] and set(linux.revisions().values()) == {RUNS}


def test_an_offline_cpu_keeps_it_from_loading(linux):
    linux.sh("echo 0 >/sys/devices/system/cpu/cpu1/online; echo 0 >/sys/devices/system/cpu/online")
    done = load(linux, check=False)
    assert "CPUs 1 are offline" in done["msg"] and "after" not in done


def test_on_xen_a_cores_threads_are_proved_by_its_first(machine):
    one = machine("bookworm-xen", threads=2, revision=FROM)
    done = load(one)
    assert one.revisions() == {0: NEW, 1: NEW} and done["after"] == {NEW: [0]} and done["unread"] == 0  # Xen's log has no more
    assert load(one)["changed"] is False


def test_check_mode_leaves_no_trace_on_linux(linux):
    done = linux.ansible(MODULE, {"revision": NEW}, look=True)
    assert done["changed"] is True and "would load 0x02007006 from %s through sysfs" % INTEL in done["msg"]
    assert set(linux.revisions().values()) == {RUNS} and "No such file" in linux.ssh("ls", RECORD, check=False).stderr


def test_what_was_noted_before_and_after(linux):
    load(linux)
    assert events(linux) == ["begun", "loading", "loaded", "read back"]
