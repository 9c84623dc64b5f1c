# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action: what it refuses before a host is asked, and what it sends."""
import hashlib
import os
from unittest import mock

import pytest

pytest.importorskip("ansible")

from ansible.errors import AnsibleError, AnsibleFileNotFound

from ansible_collections.fleet.microcode.plugins.action import microcode_file as action
from ansible_collections.fleet.microcode.plugins.module_utils import place

DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def run(tmp_path):
    """run(**arguments) -> (result, arguments that the module is sent or None); relative names are looked for in a folder of their own."""
    (tmp_path / "06-55-04").write_bytes(DATA)

    def needle(folder, name):
        assert folder == "files"
        if not os.path.lexists(str(tmp_path / name)):
            raise AnsibleFileNotFound(file_name=name)
        return str(tmp_path / name)

    def call(reply=None, **arguments):
        task = mock.Mock(args=arguments, async_val=0, check_mode=False, diff=False)
        plugin = action.ActionModule(task, mock.Mock(), mock.Mock(check_mode=False), mock.Mock(), mock.Mock(), mock.Mock())
        plugin._execute_module = mock.Mock(return_value=reply or {"changed": True, "invocation": {"module_args": {}}})
        plugin._find_needle, plugin._load_name = needle, "microcode_file"  # Ansible sets the second
        result = plugin.run(task_vars={})
        sent = plugin._execute_module.call_args
        return result, sent and sent[0][1]
    return call


def test_the_bytes_are_sent_with_their_digest(run):
    result, sent = run(src="06-55-04", dest="/lib/firmware/intel-ucode/06-55-04", sha256=DIGEST.upper())
    assert place.unpack(sent.pop("_content"), DIGEST) == DATA
    assert sent == {"src": "06-55-04", "dest": "/lib/firmware/intel-ucode/06-55-04", "sha256": DIGEST, "state": "present"}
    assert result == {"changed": True}


def test_the_digest_is_sent_where_none_is_asked_for(run):
    assert run(src="06-55-04")[1]["sha256"] == DIGEST


def test_the_way_back_needs_no_file(run):
    assert run(state="restored", dest="/x")[1] == {"state": "restored", "dest": "/x"}


def test_what_the_host_refuses_is_told(run):
    assert run(reply={"failed": True, "msg": "a guest"}, src="06-55-04")[0] == {"failed": True, "msg": "a guest"}


@pytest.mark.parametrize("arguments, words", [
    ({"src": "nowhere"}, "nowhere"), ({"src": "folder"}, "Is a directory"), ({"src": "pipe"}, "no regular file"), ({"src": "large"}, "more than 16 MiB"),
    ({"src": "06-55-04", "sha256": "0" * 64}, "not the file that was decided on"), ({"src": "06-55-04", "sha256": "0x12"}, "is no SHA-256"),
    ({"src": "06-55-04", "sha256": ""}, "is no SHA-256"),
])
def test_what_is_refused_before_a_host_is_asked(run, tmp_path, arguments, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(str(tmp_path / "pipe"))
    with open(str(tmp_path / "large"), "wb") as stream:
        stream.truncate(place.LIMIT + 1)
    result, sent = run(**arguments)
    assert result["failed"] and not result["changed"] and words in result["msg"] and sent is None


def test_a_file_of_just_the_limit_is_sent(run, tmp_path):
    with open(str(tmp_path / "large"), "wb") as stream:
        stream.truncate(place.LIMIT)
    assert run(src="large")[1] is not None


@pytest.mark.parametrize("arguments, words", [
    ({}, "src"), ({"src": "06-55-04", "_content": "x"}, "_content"), ({"src": "06-55-04", "state": "absent"}, "absent"),
])
def test_arguments_that_there_are_not(run, arguments, words):
    with pytest.raises(AnsibleError, match=words):
        run(**arguments)


def test_the_bytes_do_not_show_among_the_arguments(run):
    sent = run(src="06-55-04")[1]
    assert sent["_content"] not in "%s" % sent
