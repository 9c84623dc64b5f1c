# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module: its documentation names its arguments and what it returns, and nothing else; what is refused is a plain failure."""
import contextlib
import json
import pathlib
from unittest import mock

import pytest
import yaml

pytest.importorskip("ansible")

from ansible.module_utils import basic
from ansible_collections.fleet.microcode.plugins.module_utils.early import order
from ansible_collections.fleet.microcode.plugins.modules import microcode_early_load as module

DOCUMENTED = yaml.safe_load(pathlib.Path(module.__file__).with_suffix(".yml").read_text())


def said(capsys, run, **arguments):
    """(what the module prints, what it asked for)."""
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    patches = [mock.patch.object(basic, "_ANSIBLE_ARGS", text), mock.patch.object(order, "run", run)]
    if hasattr(basic, "_ANSIBLE_PROFILE"):
        patches.append(mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy"))
    with patches[0], patches[1], (patches[2] if patches[2:] else contextlib.nullcontext()), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_what_is_not_said_is_as_documented(capsys):
    run = mock.Mock(return_value={"failed": False, "changed": False})
    done = said(capsys, run, revision="0x1")
    assert done["changed"] is False
    assert run.call_args[0][1:] == ("present", "0x1", None, None, [], 600, False)


def test_the_options_are_those_that_are_documented():
    with mock.patch.object(module, "AnsibleModule", side_effect=SystemExit) as made, pytest.raises(SystemExit):
        module.main()
    asked, options = made.call_args[1]["argument_spec"], DOCUMENTED["DOCUMENTATION"]["options"]
    assert set(asked) == set(options)
    for name, option in options.items():
        assert asked[name].get("default") == option.get("default") and asked[name].get("choices") == option.get("choices"), name


def test_what_is_returned_is_documented():
    seen = mock.MagicMock()
    seen.entry, seen.early, seen.facts = {"xen_args": "x"}, {"tool": "dracut", "loads": None}, {"pending": None}
    kernel = {"version": "6", "initrd": "/i", "default": True, "running": True}
    done = order._result(seen, seen, [kernel], {"6": {"revision": None, "size": None, "sha256": None}}, {"kernels": {}}, "text")
    assert set(done) - {"changed", "failed", "diff"} == set(DOCUMENTED["RETURN"])
    assert set(done["kernels"][0]) == set(DOCUMENTED["RETURN"]["kernels"]["contains"])


@pytest.mark.parametrize("run, arguments, words", [
    (mock.Mock(side_effect=order.Refused("why")), {"revision": "0x1"}, "why"),
    (mock.Mock(side_effect=OSError(5, "sick", "/boot")), {"revision": "0x1"}, "sick"),
    (mock.Mock(return_value={"failed": True, "msg": "gone wrong"}), {"revision": "0x1"}, "gone wrong"), (None, {}, "revision"),
    (None, {"revision": "0x1", "timeout": 1}, "from 10 to 7200")])
def test_failures_are_told_without_a_traceback(capsys, run, arguments, words):
    done = said(capsys, run, **arguments)
    assert done["failed"] is True and words in done["msg"] and "exception" not in done
