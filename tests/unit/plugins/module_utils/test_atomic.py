# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files are as they were or as they shall be."""
import errno
import os
import stat

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import atomic


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "run.json"
    atomic.replace(str(path), b"one")
    atomic.replace(str(path), b"two", 0o644)
    assert path.read_bytes() == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(str(tmp_path)) == ["run.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"somebody's")
    (tmp_path / "run.json").symlink_to("target")
    atomic.replace(str(tmp_path / "run.json"), b"ours")
    assert (tmp_path / "target").read_bytes() == b"somebody's"
    assert not (tmp_path / "run.json").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "run.json"
    path.write_bytes(b"before")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError):
        atomic.replace(str(path), b"after")
    assert path.read_bytes() == b"before" and os.listdir(str(tmp_path)) == ["run.json"]


def test_a_private_folder_is_made_once_and_closed_to_others(tmp_path):
    path = str(tmp_path / "ours")
    assert atomic.private_folder(path) == path == atomic.private_folder(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OSError, match="remove it or give it back"):
        atomic.private_folder(str(tmp_path / "open"))


def test_a_link_to_a_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(OSError):
        atomic.private_folder(str(tmp_path / "link"))
