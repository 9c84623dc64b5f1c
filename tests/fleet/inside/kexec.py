# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kexec-tools, as tests/lab/recordings/kexec.yml has them: what is loaded is what the next reboot starts, without the firmware."""
import os
import re
import sys

import systemd

PROGRAMS = {"kexec": "/usr/sbin/kexec"}
LOADED = "/sys/kernel/kexec_loaded"
OPTIONS = {"--initrd": "initrd", "--ramdisk": "initrd", "--append": "append", "--command-line": "append", "-t": "type", "--type": "type"}


def main(machine, name, argv):
    options, files, words = {}, [], list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if key in OPTIONS:
            options[OPTIONS[key]] = value if equals else words.pop(0) if words else ""
        elif word.startswith("-"):
            options[{"--load": "-l", "--unload": "-u", "--exec": "-e"}.get(word, word)] = True
        else:
            files.append(word)
    if "-u" in options:
        return _loaded(machine, None)
    if "-e" in options:
        if not machine.state()["kexec"]:
            sys.stderr.write("Nothing has been loaded!\n")
            return 255
        return systemd.down(machine, "kexec")
    if "-l" in options and files:
        return _load(machine, files[0], options)
    sys.stderr.write("No kernel specified\n")
    return 1


def _load(machine, kernel, options):
    initrd = options.get("initrd")
    try:
        with open(machine.at(os.path.abspath(kernel)), "rb") as stream:
            head = stream.read(64)
    except OSError as exc:
        sys.stderr.write("Cannot open `%s': %s\n" % (kernel, exc.strerror))
        return 1
    if not head.startswith(b"stands for Linux"):
        sys.stderr.write("Cannot determine the file type of %s\n" % kernel)
        return 255
    if initrd and not os.path.exists(machine.at(os.path.abspath(initrd))):
        sys.stderr.write("Cannot open `%s': No such file or directory\n" % initrd)
        return 1
    line = options.get("append", "")
    if "--reuse-cmdline" in options:
        line = (re.sub(r"(^|\s)BOOT_IMAGE=\S*", "", machine.text("/proc/cmdline") or "").strip() + " " + line).strip()
    return _loaded(machine, {"kernel": os.path.abspath(kernel), "initrd": initrd and os.path.abspath(initrd), "command_line": line})


def _loaded(machine, what):
    with machine.change() as state:
        state["kexec"] = what
    machine.put(LOADED, "%d\n" % (what is not None))
    return 0
