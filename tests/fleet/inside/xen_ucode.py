# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""xen-ucode, by Xen's version: as tests/lab/recordings/xen-ucode-*.yml have it of 4.14, 4.17 and 4.20, and tools/misc/xen-ucode.c of those between."""
import errno
import getopt
import os
import sys

import processor
import xen

OPTIONS = """\
options:
  -h, --help               display this help
  -s, --show-cpu-info      show CPU information
  -f, --force              skip certain checks when applying
                           microcode; do not use unless you know
                           exactly what you are doing
"""


def main(machine, name, argv):
    state = machine.state()
    if state["xen"] is None:
        sys.stderr.write(xen.NOT_XEN)
        return 1
    number = xen.version(state)
    if state["spec"].get("hypervisor", {}).get("wrapper", True):
        name = "/usr/lib/xen-%d.%d/bin/%s" % (number[:2] + (name,))
    force = False
    if number >= (4, 20):
        try:
            options, argv = getopt.gnu_getopt(argv, "hsf", ["help", "show-cpu-info", "force"])
        except getopt.GetoptError as exc:
            shown = "unrecognized option '--%s'" if len(exc.opt) > 1 else "invalid option -- '%s'"
            sys.stderr.write("%s: %s\n%s: unknown option\n%s" % (name, shown % exc.opt, name, _usage(name, state)))
            return 1
        for option, _value in options:
            if option in ("-f", "--force"):
                force = True
                continue
            sys.stdout.write(_usage(name, state) if option in ("-h", "--help") else _shown(state))
            return 0
        if not argv:
            sys.stderr.write("%s: missing microcode file\n%s" % (name, _usage(name, state)))
            return 1
    elif not argv:
        sys.stderr.write("xen-ucode: Xen microcode updating tool\nUsage: %s %s" % (
            name, "[<microcode file> | show-cpu-info]\n" + _shown(state) if number >= (4, 18) else "<microcode blob>\n"))
        return 2
    if argv[0] == "show-cpu-info" and number >= (4, 18):
        sys.stdout.write(_shown(state))
        return 0
    return _load(machine, argv[0], force)


def _usage(name, state):
    return "%s: Xen microcode updating tool\nUsage: %s [options] [<microcode file> | show-cpu-info]\n%s%s" % (name, name, OPTIONS, _shown(state))


def _shown(state):
    """What is told of CPU 0."""
    one = state["cpu"]
    family, model = xen.family_model(one["signature"])
    return "CPU signature %02x-%02x-%02x (raw %s)%s revision %s\n" % (
        family, model, one["signature"] & 15, processor.hex8(one["signature"]), " pf %#x" % one["pf_mask"] if one["vendor"] == "GenuineIntel" else "",
        processor.hex8(one["revisions"]["0"]))


def _load(machine, path, force):
    """Load a file; the exit status."""
    try:
        with open(machine.at(os.path.join(os.getcwd(), path)), "rb") as stream:
            data = stream.read()
    except IsADirectoryError:
        return _fail("mmap failed. (error: %s)" % os.strerror(errno.ENODEV))
    except OSError as exc:
        return _fail("Could not open %s. (err: %s)" % (path, exc.strerror))
    if not data:
        return _fail("mmap failed. (error: %s)" % os.strerror(errno.EINVAL))
    fault = machine.hold()
    if "fails" in fault:
        return _fail(fault["fails"])
    if fault.get("lies"):
        return 0
    with machine.change() as state:
        number = xen.load(machine, state, data, force)
    if number == errno.EEXIST:
        print("Microcode already up to date")
    elif number:
        return _fail("Failed to update microcode. (err: %s)" % os.strerror(number))
    return 0


def _fail(text):
    sys.stderr.write(text + "\n")
    return 1
