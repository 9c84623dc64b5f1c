# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action: it finds every host of the play, prints through Ansible, and returns no more than a job event takes."""
import json
from unittest import mock

import pytest

pytest.importorskip("ansible")

from ansible_collections.fleet.microcode.plugins.action import microcode_report as action

GOOD = {"ansible_facts": {"microcode": {
    "schema": 1, "cpu": {"vendor": "GenuineIntel", "signature": "0x00050654", "revision": "0x02006b06"}, "hypervisor": {"role": "none"},
    "files": [{"path": "/x", "revision": "0x02006b06"}], "pending": None, "early": {}, "warnings": []}}}


class HostVars(dict):
    """As Ansible's: templating belongs to the brackets, which must not be used for what hosts say."""

    raw_get = dict.get

    def __getitem__(self, name):
        raise AssertionError("templated")


def run(hostvars, check_mode=False, **args):
    """(result, printed text) of one run over these hosts' variables."""
    task = mock.Mock(args=dict({"results": ["first", "second"]}, **args), async_val=0, check_mode=check_mode, diff=False)
    plugin = action.ActionModule(task, mock.Mock(), mock.Mock(check_mode=check_mode), mock.Mock(), mock.Mock(), mock.Mock())
    with mock.patch.object(action.display, "display") as shown:
        result = plugin.run(task_vars={"hostvars": HostVars(hostvars), "ansible_play_hosts_all": list(hostvars)})
    return result, "\n".join(call.args[0] for call in shown.call_args_list)


def test_every_host_of_the_play_is_in(tmp_path):
    path, page = tmp_path / "report.json", tmp_path / "report.html"
    hosts = {"a": {"first": GOOD}, "b": {"first": {"failed": True, "msg": "no sudo"}, "second": GOOD}, "c": {}, "d": None,
             "e": {"first": {"unreachable": True, "msg": "no route"}}}
    result, printed = run(hosts, path=str(path), page=str(page))
    states = {name: each["state"] for name, each in result["hosts"].items()}
    assert states == {"a": "nothing_newer", "b": "nothing_newer", "c": "not_reached", "d": "not_reached", "e": "not_reached"}
    assert not result["changed"] and result["path"] == str(path) and result["page"] == str(page)
    assert list(json.loads(path.read_text())["hosts"]) == list("abcde")
    assert "<h1>Microcode of 5 hosts</h1>" in page.read_text() and "no route" in page.read_text()
    assert {each.stat().st_mode & 0o777 for each in (path, page)} == {0o600}
    assert "no route" in printed and str(path) in printed and str(page) in printed
    assert result["ansible_stats"]["data"]["microcode_posture"] == result["posture"]


def test_check_mode_writes_nothing_and_says_so(tmp_path):
    result, printed = run({"a": {"first": GOOD}}, check_mode=True, path=str(tmp_path / "report.json"), page=str(tmp_path / "report.html"))
    assert result["path"] is result["page"] is None and not list(tmp_path.iterdir())
    assert "report.json is not written" in printed and "report.html is not written" in printed


def test_an_empty_path_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, printed = run({"a": {"first": GOOD}}, path="", page="")
    assert result["path"] is result["page"] is None and "JSON" not in printed and "page" not in printed and not list(tmp_path.iterdir())


def test_each_file_can_be_had_alone(tmp_path):
    result, _printed = run({"a": {"first": GOOD}}, page=str(tmp_path / "report.html"))
    assert result["path"] is None and [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_one_file_for_both_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, _printed = run({"a": {"first": GOOD}}, path="report", page=str(tmp_path / "report"))
    assert result["failed"] and "name two files" in result["msg"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["path", "page"])
def test_a_missing_folder_is_an_error_after_the_table(tmp_path, option):
    result, printed = run({"a": {"first": GOOD}}, **{option: str(tmp_path / "nowhere" / "report")})
    assert result["failed"] and "folder must be there" in result["msg"]
    assert "Microcode of 1 host" in printed


def test_the_result_stays_small_for_a_large_fleet():
    result, printed = run({"node%05d" % index: {"first": {"unreachable": True, "msg": "no route to node%05d" % index}} for index in range(4000)})
    assert result["hosts"] is None and result["posture"]["states"]["not_reached"] == 4000
    assert len(json.dumps(result)) < 10000 and len(printed) < 10000
    assert "3985 hosts more" in printed


@pytest.mark.parametrize("columns, width", [("", 79), ("100", 100), ("9999", 160), ("10", 70), ("x", 79), ("\u00b2", 79)])
def test_width(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(action.display, "columns", 79)
    assert action._width() == width
