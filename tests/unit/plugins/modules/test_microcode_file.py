# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module: what it is given, what it gives back, and that both are what the documentation says."""
import base64
import hashlib
import pathlib
import zlib
from unittest import mock

import pytest
import yaml

pytest.importorskip("ansible")

from ansible_collections.fleet.microcode.plugins.module_utils import facts, files, journal, place
from ansible_collections.fleet.microcode.plugins.modules import microcode_file
from ansible_collections.fleet.microcode.tests.fleet import made_intel

DOCUMENTED = yaml.safe_load(pathlib.Path(microcode_file.__file__).with_suffix(".yml").read_text())
NEW = made_intel.update(revision=0x2007007)


class Ended(Exception):
    """What exit_json() and fail_json() do to a module."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(**params) -> (result, message of a failure, warnings, arguments of AnsibleModule)"""
    base = tmp_path / "lib" / "firmware"
    base.mkdir(parents=True)
    for module, name, value in ((journal, "FOLDER", "own"), (journal, "RECORD", "own/run.json"), (journal, "LOCK", "own/lock"),
                                (place, "FOLDER", "own/files"), (place, "RECORD", "own/files/record.json")):
        monkeypatch.setattr(module, name, str(tmp_path / value))
    monkeypatch.setattr(files, "folders", lambda host, release: [str(base)])
    found = {"cpu": {"vendor": "GenuineIntel", "signature": "0x00050654", "pf_mask": "0x00000080", "revision": "0x02000050"}, "kernel": "6.1",
             "hypervisor": {"role": "none", "type": None, "version": None, "xen": None}, "applicable": True, "warnings": []}
    monkeypatch.setattr(facts, "gather", lambda host, wanted: found)

    def call(check=False, **params):
        params = dict({"src": "06-55-04", "dest": str(base / "intel-ucode/06-55-04"), "sha256": hashlib.sha256(NEW).hexdigest(), "state": "present",
                       "_content": base64.b64encode(zlib.compress(NEW)).decode()}, **params)
        module = mock.Mock(params=params, check_mode=check)
        module.exit_json.side_effect = module.fail_json.side_effect = Ended
        with mock.patch.object(microcode_file, "AnsibleModule", return_value=module) as made, pytest.raises(Ended):
            microcode_file.main()
        result = module.exit_json.call_args and module.exit_json.call_args[1]
        return (result, module.fail_json.call_args and module.fail_json.call_args[1]["msg"], [each[0][0] for each in module.warn.call_args_list],
                made.call_args[1])
    call.base = base
    return call


@pytest.mark.parametrize("check", [False, True])
def test_it_returns_what_is_documented_and_no_bytes(run, check):
    for state in ("present", "restored"):
        result = run(check=check, state=state)[0]
        assert set(result) == set(DOCUMENTED["RETURN"]) | {"changed", "diff"}
        for key in ("before", "after"):
            assert result[key] is None or set(result[key]) == set(DOCUMENTED["RETURN"][key]["contains"])
        assert max(map(len, map(str, result.values()))) < 1000


def test_the_difference_is_that_of_two_descriptions(run):
    diff = run()[0]["diff"]
    path = str(run.base / "intel-ucode/06-55-04")
    assert diff == {"before": {}, "after": {"path": path, "revision": "0x02007007", "date": "2023-03-06", "sha256": hashlib.sha256(NEW).hexdigest(),
                                            "problem": None}}
    assert run(state="restored")[0]["diff"] == {"before": diff["after"], "after": {}}


def test_what_is_refused_is_a_sentence_and_changes_nothing(run):
    result, text, _warnings, _spec = run(sha256="0" * 64)
    assert result is None and "what arrived is not what was sent" in text and not (run.base / "intel-ucode").exists()


def test_warnings_are_warnings(run):
    (run.base / "intel-ucode").mkdir()
    (run.base / "intel-ucode/06-55-04.initramfs").write_bytes(NEW)
    result, _text, warnings, _spec = run()
    assert "from being loaded late" in warnings[0] and "warnings" not in result


def test_the_bytes_are_not_logged_and_the_options_are_documented(run):
    spec = run()[3]
    assert spec["argument_spec"]["_content"]["no_log"] is True and spec["supports_check_mode"] is True
    assert set(spec["argument_spec"]) == set(DOCUMENTED["DOCUMENTATION"]["options"])
