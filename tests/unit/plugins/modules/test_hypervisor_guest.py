# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module: what is asked of the driver and the leases, what is left alone, and that check mode asks for nothing."""
import contextlib
import pathlib
import uuid
from unittest import mock

import pytest
import yaml

pytest.importorskip("ansible")

from ansible_collections.fleet.microcode.plugins.module_utils import journal
from ansible_collections.fleet.microcode.plugins.module_utils.guests import lease, states
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import Guest, GuestError
from ansible_collections.fleet.microcode.plugins.modules import hypervisor_guest

DOCUMENTED = yaml.safe_load(pathlib.Path(hypervisor_guest.__file__).with_suffix(".yml").read_text())


def uid(number):
    return str(uuid.UUID(int=number))


class Driver(object):
    """Guests in a list, and all that was done with them in a log."""

    name, tool = "xen", "bindings"

    def __init__(self):
        self.there = [Guest(uid(1), 1, "web", "running", None), Guest(uid(2), 2, "db", "running", None), Guest(uid(3), 3, "net", "running", "driver domain"),
                      Guest(uid(4), 4, "old", "paused", None), Guest(uid(5), 5, "off", "shutdown", None)]
        self.images, self.stuck, self.done = {}, {}, []

    def guests(self):
        return list(self.there)

    def saved(self, _folder):
        return self.images

    def unsavable(self, guest, _folder):
        return self.stuck.get(guest.uuid) or (None if guest.state == "running" else "it is " + guest.state)

    def unrestorable(self, record, _folder):
        return self.stuck.get(record["uuid"])

    def save(self, guest, _folder):
        self.done.append(("save", guest.name))
        if guest.name in self.stuck:
            raise GuestError("%s: no" % guest.name)
        self.there.remove(guest)
        self.images[guest.uuid] = {"uuid": guest.uuid, "name": guest.name}

    def restore(self, record, _folder):
        self.done.append(("restore", record["name"]))
        self.there.append(Guest(record["uuid"], 9, record["name"], "running", None))
        del self.images[record["uuid"]]


class Leases(object):
    """What lease.py would do: it holds guests of a Driver."""

    def __init__(self, driver):
        self.driver, self.held, self.void, self.left, self.problems = driver, [], False, None, {}

    def _set(self, wanted, state):
        self.driver.there = [guest._replace(state=state) if guest.uuid in wanted else guest for guest in self.driver.there]

    def leave(self, _host, _driver, guests, seconds):
        self.driver.done.append(("leave", [guest.name for guest in guests], seconds))
        self._set([guest.uuid for guest in guests], "paused")
        self.held = guests

    def release(self, _host, _driver, wanted=None):
        mine = [guest for guest in self.held if wanted is None or guest.uuid in wanted]
        self.driver.done.append(("release", [guest.name for guest in mine]))
        self._set([guest.uuid for guest in mine if guest.uuid not in self.problems], "running")
        self.held = [guest for guest in self.held if guest not in mine]
        return dict((guest.uuid, self.problems.get(guest.uuid)) for guest in mine)

    def open_leases(self, _host):
        return [{"void": self.void, "guests": self.held, "left": 12.5}] if self.held else []


class Stopped(Exception):
    """What ends the module's run."""


class Run(object):
    """run(state=..., ...) -> what the module returns; failed(...) -> the words in which it fails."""

    def __init__(self, monkeypatch, tmp_path):
        self.driver, self.noted, self.error = Driver(), [], None
        self.leases = Leases(self.driver)
        for name in ("leave", "release", "open_leases"):
            monkeypatch.setattr(lease, name, getattr(self.leases, name))
        monkeypatch.setattr(journal, "run", self._journal)
        monkeypatch.setattr(hypervisor_guest.guest, "driver", self._driver)
        monkeypatch.setattr(hypervisor_guest.hypervisor, "facts", lambda *_, **__: {"role": "host", "type": "xen"})

    def _driver(self, _host, _below):
        if self.error:
            raise GuestError(self.error)
        return self.driver

    @contextlib.contextmanager
    def _journal(self, _host, action, **about):
        self.noted.append((action, about))
        yield mock.Mock(note=lambda event, **more: self.noted.append((event, more)))

    def _run(self, check, params):
        module = mock.Mock(params=dict({"name": None, "state": None, "for": None, "folder": "/srv/saved"}, **params), check_mode=check)
        module.exit_json.side_effect = module.fail_json.side_effect = Stopped
        with mock.patch.object(hypervisor_guest, "AnsibleModule", return_value=module), pytest.raises(Stopped):
            hypervisor_guest.main()
        return module

    def __call__(self, check=False, **params):
        module = self._run(check, params)
        assert not module.fail_json.called, module.fail_json.call_args
        return module.exit_json.call_args[1]

    def failed(self, **params):
        module = self._run(False, params)
        assert module.fail_json.called, module.exit_json.call_args
        return module.fail_json.call_args[1]["msg"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    return Run(monkeypatch, tmp_path)


def states_of(done):
    return dict((guest["name"], guest["state"]) for guest in done["guests"])


def reasons(done):
    return dict((one["name"], one["why"]) for one in done["left"])


def test_what_is_returned_is_what_is_documented(run):
    run.driver.images[uid(7)] = {"uuid": uid(7), "name": "kept"}
    done = run(state="paused", **{"for": 20})
    assert set(done) == {"changed", "diff"} | set(DOCUMENTED["RETURN"])
    for key in ("guests", "left"):
        assert set(done[key][0]) == set(DOCUMENTED["RETURN"][key]["contains"])


def test_without_a_state_nothing_is_done(run):
    run.driver.images[uid(7)] = {"uuid": uid(7), "name": "kept"}
    done = run()
    assert states_of(done) == {"web": "running", "db": "running", "net": "running", "old": "paused", "off": "shutdown", "kept": "saved"}
    assert (done["changed"], done["left"], run.driver.done) == (False, [], [])
    assert states_of(run(name=["db", uid(7)])) == {"db": "running", "kept": "saved"}


def test_all_that_run_and_are_guests_are_paused_at_once_and_the_others_named(run):
    done = run(state="paused", **{"for": 20})
    assert run.driver.done == [("leave", ["web", "db"], 20)] and done["changed"] is True
    assert reasons(done) == {"net": "driver domain", "off": "it is shutdown"}
    assert dict((guest["name"], guest["held"]) for guest in done["guests"]) == {"web": 12.5, "db": 12.5, "net": None, "old": None, "off": None}
    assert done["diff"]["before"]["web " + uid(1)] == "running" and done["diff"]["after"]["web " + uid(1)] == "paused"


def test_guests_may_be_named_by_uuid_and_twice_and_are_paused_once(run):
    run(state="paused", name=["web", uid(1).upper()], **{"for": 20})
    assert run.driver.done == [("leave", ["web"], 20)]


def test_who_is_held_already_is_held_anew_and_that_is_no_change(run):
    run(state="paused", name=["web"], **{"for": 20})
    assert run(state="paused", name=["web"], **{"for": 30})["changed"] is False
    assert run.driver.done[1:] == [("leave", ["web"], 30)]


def test_who_was_resumed_by_somebody_else_is_paused_again(run):
    run(state="paused", name=["web"], **{"for": 20})
    run.leases._set([uid(1)], "running")
    assert run(state="paused", name=["web"], **{"for": 20})["changed"] is True
    assert run.driver.done[1:] == [("release", ["web"]), ("leave", ["web"], 20)]


def test_who_is_paused_by_somebody_else_is_neither_paused_nor_resumed(run):
    assert run(state="paused", name=["old"], **{"for": 20})["changed"] is False
    assert "somebody else" in reasons(run(state="running"))["old"]
    assert "somebody else" in run.failed(state="running", name=["old"])
    assert [word[1] for word in run.driver.done] == [[]]


def test_what_we_hold_runs_again(run):
    run(state="paused", **{"for": 20})
    assert run(state="running", name=["db"])["changed"] is True
    assert run.driver.done[1:] == [("release", ["db"])]
    assert run(state="running")["changed"] is True
    assert run(state="running")["changed"] is False


def test_who_cannot_be_resumed_is_an_error(run):
    run(state="paused", **{"for": 20})
    run.leases.problems = {uid(1): "Operation not permitted"}
    assert "%s (Operation not permitted)" % uid(1) in run.failed(state="running")


@pytest.mark.parametrize("name, why", [
    ("net", "net is left alone: driver domain"), ("off", "off is left alone: it is shutdown"), ("Domain-0", "there are: web, db"), ("1", "no guest here"),
    (uid(0), "no guest here")])
def test_a_guest_that_is_named_is_paused_or_it_is_an_error(run, name, why):
    assert why in run.failed(state="paused", name=["web", name], **{"for": 20})
    assert run.driver.done == []


def test_a_name_that_two_guests_have_is_refused_with_their_uuids(run):
    run.driver.there.append(Guest(uid(6), 6, "web", "paused", None))
    message = run.failed(state="paused", name=["web"], **{"for": 20})
    assert "2 guests" in message and uid(1) in message and uid(6) in message
    run(state="paused", name=[uid(1)], **{"for": 20})
    assert run.driver.done == [("leave", ["web"], 20)]


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_a_pause_is_bounded(run, seconds):
    assert "1 to 3600 seconds" in run.failed(state="paused", **{"for": seconds})
    assert run.driver.done == []


# --- saved and restored ---

def test_guests_are_saved_one_by_one_and_noted(run):
    run.driver.stuck[uid(2)] = "no room"
    done = run(state="saved")
    assert run.driver.done == [("save", "web")] and done["changed"] is True
    assert reasons(done) == {"db": "no room", "net": "driver domain", "old": "it is paused", "off": "it is shutdown"}
    assert run.noted[0][0] == "hypervisor_guest" and run.noted[0][1]["guests"] == [uid(1)] and run.noted[1][1]["name"] == "web"
    assert run(state="saved", name=["web"])["changed"] is False
    done = run(state="restored")
    assert done["changed"] is True and states_of(done)["web"] == "running"
    assert run(state="restored")["changed"] is False


def test_when_one_cannot_be_saved_it_is_said_who_was(run):
    run.driver.stuck["db"] = True
    assert run.failed(state="saved") == "db: no; saved: web"


def test_one_that_cannot_be_restored_keeps_no_other_from_it(run):
    run.driver.images.update((uid(number), {"uuid": uid(number), "name": name}) for number, name in ((7, "kept"), (8, "more")))
    restore = run.driver.restore

    def fails(record, folder):
        if record["name"] == "kept":
            raise GuestError("kept: no memory")
        restore(record, folder)
    run.driver.restore = fails
    assert run.failed(state="restored") == "kept: no memory; running: more"


def test_an_image_that_must_not_be_restored_is_left(run):
    run.driver.images[uid(7)], run.driver.stuck[uid(7)] = {"uuid": uid(7), "name": "kept"}, "stranded"
    done = run(state="restored")
    assert (done["changed"], reasons(done), run.driver.done) == (False, {"kept": "stranded"}, [])
    assert "stranded" in run.failed(state="restored", name=["kept"])


# --- check mode ---

@pytest.mark.parametrize("params, expected", [
    ({"state": "paused", "for": 20}, {"web": "paused", "db": "paused", "net": "running", "old": "paused", "off": "shutdown", "kept": "saved"}),
    ({"state": "saved"}, {"web": "saved", "db": "saved", "net": "running", "old": "paused", "off": "shutdown", "kept": "saved"}),
    ({"state": "restored"}, {"web": "running", "db": "running", "net": "running", "old": "paused", "off": "shutdown", "kept": "running"}),
])
def test_check_mode_says_what_would_be_and_does_nothing(run, params, expected):
    run.driver.images[uid(7)] = {"uuid": uid(7), "name": "kept"}
    done = run(check=True, **params)
    assert done["changed"] is True and states_of(done) == expected
    assert (run.driver.done, run.noted) == ([], [])


def test_check_mode_resumes_nobody(run):
    run(state="paused", **{"for": 20})
    done = run(check=True, state="running")
    assert done["changed"] is True and states_of(done)["web"] == "running"
    assert len(run.driver.done) == 1


# --- hosts without guests of ours ---

def test_whoever_manages_the_guests_there_is_nothing_to_resume(run):
    run.error = "XAPI manages this host"
    assert run(state="running")["changed"] is False
    for params in ({}, {"state": "running", "name": ["web"]}, {"state": "paused", "for": 20}):
        assert run.failed(**params) == "XAPI manages this host"


def test_a_host_without_guests_needs_nothing_and_refuses_names(run):
    run.driver, run.leases.driver = None, mock.Mock(done=[], there=[])
    for params in ({}, {"state": "paused", "for": 20}, {"state": "running"}, {"state": "saved"}):
        done = run(**params)
        assert (done["changed"], done["guests"], done["tool"]) == (False, [], None)
    assert "this host has no guests" in run.failed(state="paused", name=["web"], **{"for": 20})


def test_guests_that_we_hold_on_a_host_that_is_none_any_more_are_an_error(run):
    run(state="paused", **{"for": 20})
    run.driver = None
    assert "neither Xen nor KVM" in run.failed(state="running")
    run.leases.void = True
    assert run(state="running")["changed"] is False


def test_every_state_is_documented():
    assert set(DOCUMENTED["DOCUMENTATION"]["options"]["state"]["choices"]) == set(states.WORK) - {None}
