# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gate's lock: a rollout that goes on keeps a second one away, one that was killed does not. What it judges is tested with the rollout."""
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("ansible")
pytest.importorskip("jmespath")

from ansible_collections.fleet.microcode.plugins.action import microcode_gate as gate
from ansible_collections.fleet.microcode.plugins.plugin_utils import plan


@pytest.fixture(name="path")
def path_fixture(tmp_path):
    return str(tmp_path / "rollout.json")


def held(path, pid, started):
    with open(path + ".lock", "w", encoding="utf-8") as stream:
        json.dump({"pid": pid, "started": started}, stream)


def holder(path):
    with open(path + ".lock", encoding="utf-8") as stream:
        return json.load(stream)["pid"]


def test_one_that_goes_on_keeps_a_second_one_away(path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        held(path, other.pid, gate._started(other.pid))
        with pytest.raises(plan.PlanError, match="another rollout goes on here: process %d" % other.pid):
            gate._lock(path, False)
        gate._unlock(path)
        assert holder(path) == other.pid  # it is not ours to let go of
        other.communicate(b"\n")
    gate._lock(path, False)  # once that has ended
    assert holder(path) == os.getppid()
    gate._unlock(path)
    assert not os.path.exists(path + ".lock")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "started": "1"}', '{"pid": 1}', '{"pid": %d, "started": "1"}' % os.getpid(),
                                  '{"pid": 999999999, "started": null}'])
def test_what_a_killed_one_left_keeps_nobody_away(path, text):
    with open(path + ".lock", "w", encoding="utf-8") as stream:
        stream.write(text)
    gate._lock(path, False)
    assert holder(path) == os.getppid()


def test_check_mode_takes_none(path):
    gate._lock(path, True)
    gate._lock(None, False)
    assert not os.path.exists(path + ".lock")
