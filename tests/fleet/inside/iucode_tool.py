# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iucode_tool 2.3.1 as Debian's hook and the recordings use it: lists what files hold and writes it as an early initrd."""
import os
import re
import sys

import initrds
from ansible_collections.fleet.microcode.tests.fleet import made_cpio

PROGRAMS = {"iucode_tool": "/usr/sbin/iucode_tool"}


def main(machine, name, argv):
    """iucode_tool [-l] [-q] [-tb] [-S] [--write-earlyfw=FILE] [--overwrite] FILE or FOLDER..."""
    options, words = [], []
    for word in argv:
        (options if word.startswith("-") and word != "-" else words).append(word)
    quiet = "-q" in options
    try:
        chosen = select(machine, words, any(re.match("-[a-z]*l", word) for word in options), quiet, "-S" in options or "--scan-system" in options)
    except OSError as exc:
        say("%s: cannot open: %s" % (exc.filename, exc.strerror))
        return 1
    for target in [word.partition("=")[2] for word in options if word.startswith("--write-earlyfw=")]:
        if not quiet:
            said(chosen, target)
        if chosen:
            machine.put(os.path.abspath(target), early(chosen))
    return 0


def select(machine, paths, listing, quiet, scan):
    """[initrds.Chosen] of these files and folders. OSError."""
    files = []
    for path in paths:
        inner = initrds.names(machine, path)
        files += ["%s/%s" % (path, name) for name in inner if not name.startswith(".")] or [path]
    bundles = [sys.stdin.buffer.read() if path == "-" else initrds.content(machine, os.path.abspath(path)) for path in files]
    if listing and not quiet:
        print("".join("microcode bundle %d: %s\n" % (number, "(stdin)" if path == "-" else path) for number, path in enumerate(files, 1)), end="")
    chosen = initrds.newest(bundles)
    if scan:
        mine = initrds.signature(machine)
        chosen = [each for each in chosen if mine is not None and each.update.signature & ~15 == mine & ~15]  # all steppings
    if listing:
        print("selected microcodes:")
        for each in chosen:
            print("  %03d/%03d: sig 0x%08x, pf_mask 0x%02x, %s, rev 0x%04x, size %d" % (
                each.bundle, each.number, each.update.signature, each.update.pf_mask, each.update.date, each.update.revision & 0xffffffff, each.update.size))
    sys.stdout.flush()
    return chosen


def early(chosen):
    """The early initrd with them."""
    return made_cpio.early([(made_cpio.INTEL, initrds.joined(chosen))], align=True) if chosen else b""


def said(chosen, target, program="iucode_tool"):
    """Tell what is written."""
    say("Writing selected microcodes to: " + target if chosen else "No valid microcodes were selected, nothing to do...", program)


def say(text, program="iucode_tool"):
    sys.stderr.write("%s: %s\n" % (program, text))
    sys.stderr.flush()
