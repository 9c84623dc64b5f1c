# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Helpers."""
import os


def is_glob_pattern(text):
    """Whether it stands for several names."""
    return bool(set("*?[") & set(text))


def am_i_root():
    """Whether this is root."""
    return os.geteuid() == 0


def ensure_dir(path):
    """Make a folder."""
    os.makedirs(path, exist_ok=True)
