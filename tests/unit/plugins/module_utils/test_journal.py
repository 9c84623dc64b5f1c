# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time, and what it was about to do can be read after a crash."""
import errno
import json
import os

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import atomic, journal
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    folder = str(tmp_path / "journal")
    for name, value in (("FOLDER", folder), ("RECORD", folder + "/run.json"), ("LOCK", folder + "/lock")):
        monkeypatch.setattr(journal, name, value)


def events():
    with open(journal.RECORD, encoding="utf-8") as stream:
        return [event["event"] for event in json.load(stream)["events"]]


def test_a_run_is_on_the_disk_while_it_goes_on_and_closed_when_it_ends():
    host = Host()
    assert journal.last(host) is None
    with journal.run(host, "late_load", to="0x02007006") as run:
        run.note("loading", file="/lib/firmware/x")
        assert events() == ["begun", "loading"]
        now = journal.last(host)
        assert (now["interrupted"], now["void"], now["outcome"], now["about"]) == (False, False, None, {"to": "0x02007006"})
    last = journal.last(host)
    assert (last["action"], last["outcome"], last["interrupted"], last["pid"]) == ("late_load", "done", False, os.getpid())


def test_a_second_run_is_refused_and_names_the_first():
    host = Host()
    with journal.run(host, "late_load"):
        with pytest.raises(journal.Busy, match="late_load, process %d, since 2" % os.getpid()):
            with journal.run(host, "early_load"):
                raise AssertionError("two runs at once")
        assert events() == ["begun"]  # and left the first one's record alone
    with journal.run(host, "early_load"):
        pass
    assert journal.last(host)["action"] == "early_load"


def test_a_run_that_was_killed_is_interrupted():
    child = os.fork()
    if not child:
        with journal.run(Host(), "late_load") as run:
            run.note("loading")
            os._exit(0)  # pylint: disable=protected-access
    os.waitpid(child, 0)
    last = journal.last(Host())
    assert (last["interrupted"], last["void"], [event["event"] for event in last["events"]]) == (True, False, ["begun", "loading"])


def test_a_run_of_an_earlier_boot_is_void():
    with journal.run(Host(), "late_load"):
        pass
    with open(journal.RECORD, encoding="utf-8") as stream:
        record = json.load(stream)
    atomic.replace(journal.RECORD, json.dumps(dict(record, boot_id="another")).encode())
    assert journal.last(Host())["void"] is True


def test_a_run_that_fails_says_so_and_the_error_goes_on():
    with pytest.raises(KeyError):
        with journal.run(Host(), "late_load"):
            raise KeyError("what went wrong")
    assert "what went wrong" in journal.last(Host())["outcome"]


def test_a_full_disk_keeps_the_run_from_beginning(monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(atomic, "replace", full)
    with pytest.raises(journal.JournalError, match="No space left on device.*free some room"):
        with journal.run(Host(), "late_load"):
            raise AssertionError("begun without a journal")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2}', "null"])
def test_a_record_that_is_none_is_not_taken_for_one(text):
    os.mkdir(journal.FOLDER, 0o700)
    with open(journal.RECORD, "w", encoding="utf-8") as stream:
        stream.write(text)
    assert journal.last(Host()) is None
    with journal.run(Host(), "late_load"):
        pass
    assert journal.last(Host())["outcome"] == "done"
