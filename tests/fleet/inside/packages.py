# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the stand-ins for rpm, dnf, zypper, pacman and apk share: the state knows which packages are installed, of which files, and which can be had."""
import os
import subprocess
import sys

import versions
from ansible_collections.fleet.microcode.tests.fleet import made_microcode


def say(text):
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def files(machine, state):
    """{package: [path]}, as the host was described until a package is changed."""
    if "files" in state:
        return state["files"]
    base = next((base for base in ("/usr/lib/firmware/", "/lib/firmware/") if os.path.isdir(machine.at(base))), "/lib/firmware/")
    return dict((each["name"], [path if path.startswith("/") else base + path for path in each.get("files", ())]) for each in state["spec"].get("packages", ()))


def owner(machine, state, path):
    """The package that a file belongs to, by whatever of its names."""
    place = os.path.realpath(machine.at(path))
    return next((name for name, paths in files(machine, state).items() if any(os.path.realpath(machine.at(each)) == place for each in paths)), None)


def newer(state, name):
    """The version that an upgrade would bring, or None."""
    offered, mine = state["offered"].get(name, {}).get("version"), state["packages"].get(name)
    return offered if offered and (mine is None or versions.compare(offered, mine) > 0) else None


def install(machine, name):
    """Put a package that can be had in place of what is installed of it. OSError where there is no room, and then nothing has changed."""
    state = machine.state()
    offer, kept = state["offered"][name], dict(files(machine, state))
    data = dict((path, made_microcode.file(path, updates)) for path, updates in offer.get("files", {}).items())
    for path in data:
        machine.check_space(path, sum(map(len, data.values())))
    for path, content in data.items():
        machine.put(path, content)
    _drop(machine, set(kept.get(name, ())) - set(data))
    with machine.change() as state:
        state["files"] = dict(kept, **{name: sorted(data)})
        state["packages"][name] = offer["version"]


def remove(machine, name):
    """Take a package away."""
    kept = dict(files(machine, machine.state()))
    _drop(machine, kept.pop(name, ()))
    with machine.change() as state:
        state["files"] = kept
        del state["packages"][name]


def _drop(machine, paths):
    for path in paths:
        if os.path.exists(machine.at(path)):
            os.unlink(machine.at(path))


def run(machine, *argv):
    """A program of the host; its exit status."""
    sys.stdout.flush()
    return subprocess.run([machine.at(argv[0])] + list(argv[1:]), stdin=subprocess.DEVNULL, check=False).returncode


def concerns_firmware(names):
    """Whether one of these packages brings microcode, so that initrds are built anew."""
    return any(word in name for name in names for word in ("ucode", "microcode", "firmware"))
