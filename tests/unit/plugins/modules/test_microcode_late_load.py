# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module: what it hands on, what it refuses by itself, and that every end of a run is told in words."""
import inspect
import pathlib
from unittest import mock

import pytest
import yaml

pytest.importorskip("ansible")

from ansible_collections.fleet.microcode.plugins.module_utils import journal
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import GuestError
from ansible_collections.fleet.microcode.plugins.module_utils.late_load import load
from ansible_collections.fleet.microcode.plugins.modules import microcode_late_load

DOCUMENTED = yaml.safe_load(pathlib.Path(microcode_late_load.__file__).with_suffix(".yml").read_text())
GIVEN = {"revision": "0x02007006", "path": None, "sha256": None, "guests": "none", "hold": 5, "timeout": 60}


class Stopped(Exception):
    """What ends the module's run."""


def run(answer, check=False, **params):
    """(the module, the run's stand-in) after a run that gives or raises this answer."""
    module = mock.Mock(params=dict(GIVEN, **params), check_mode=check)
    module.exit_json.side_effect = module.fail_json.side_effect = Stopped
    with mock.patch.object(microcode_late_load, "AnsibleModule", return_value=module), \
            mock.patch.object(load, "run", side_effect=answer if inspect.isfunction(answer) else [answer]) as ran, pytest.raises(Stopped):
        microcode_late_load.main()
    return module, ran


def test_what_is_asked_for_is_handed_on():
    module, ran = run({"failed": False, "changed": True}, check=True, path="/srv/file", sha256="ab", guests="pause", hold=7, timeout=9)
    assert ran.call_args[0][1:] == ("0x02007006", "/srv/file", "ab", "pause", 7, 9, True)
    assert module.exit_json.call_args[1] == {"changed": True} and not module.fail_json.called


def test_a_load_that_is_not_proved_fails_and_tells_all_the_same():
    module, _ran = run({"failed": True, "changed": True, "after": {}, "msg": "no"})
    assert module.fail_json.call_args[1] == {"changed": True, "after": {}, "msg": "no"} and not module.exit_json.called


@pytest.mark.parametrize("error", [load.Refused, load.Stopped, GuestError, journal.Busy, journal.JournalError])
def test_whatever_keeps_it_from_loading_is_told_in_words(error):
    module, _ran = run(error("why it was not done"))
    assert module.fail_json.call_args[1] == {"msg": "why it was not done"}


def test_warnings_of_the_host_are_handed_on_with_a_refusal_too():
    def refuse(host, *_more):
        host.warn("what was seen on the way")
        raise load.Refused("no")
    module, _ran = run(refuse)
    module.warn.assert_called_once_with("what was seen on the way")


@pytest.mark.parametrize("name, value, words", [("hold", 0, "from 1 to 30"), ("hold", 31, "from 1 to 30"), ("timeout", 0, "from 1 to 600"),
                                                ("timeout", 601, "from 1 to 600")])
def test_times_beyond_what_makes_sense(name, value, words):
    module, ran = run({}, **{name: value})
    assert words in module.fail_json.call_args[1]["msg"] and not ran.called


def test_the_documentation_says_what_the_module_takes_and_returns():
    with mock.patch.object(microcode_late_load, "AnsibleModule", side_effect=Stopped) as made, pytest.raises(Stopped):
        microcode_late_load.main()
    spec, options = made.call_args[1]["argument_spec"], DOCUMENTED["DOCUMENTATION"]["options"]
    assert set(spec) == set(options) == set(GIVEN)
    for name, each in spec.items():
        assert [each.get(key) for key in ("default", "choices")] == [options[name].get(key) for key in ("default", "choices")], name
