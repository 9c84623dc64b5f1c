# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mkinitcpio, as its sources of version 39 describe it: presets, and the hook `microcode`; without that hook the packages' own images carry it."""
import errno
import os
import re
import sys

import initrds
from ansible_collections.fleet.microcode.tests.fleet import made_cpio

PROGRAMS = {"mkinitcpio": "/usr/bin/mkinitcpio", "lsinitcpio": "/usr/bin/lsinitcpio"}


def main(machine, name, argv):
    if name == "lsinitcpio":
        return _list(machine, argv)
    values, rest, presets = {"-c": "/etc/mkinitcpio.conf", "-g": None, "-k": None}, list(argv), []
    long = {"--generate": "-g", "--kernel": "-k", "--config": "-c", "--preset": "-p", "--allpresets": "-P"}
    while rest:
        word = long.get(rest[0], rest[0])
        rest.pop(0)
        if word in values and rest:
            values[word] = rest.pop(0)
        elif word == "-p" and rest:
            presets.append(rest.pop(0))
        elif word == "-P":
            presets += [each[:-7] for each in initrds.names(machine, "/etc/mkinitcpio.d") if each.endswith(".preset")]
        elif word not in ("-v", "--verbose", "-n", "--nocolor"):
            sys.stderr.write("==> ERROR: invalid option: '%s'\n" % word)
            return 1
    if not presets:
        return _build(machine, values["-c"], values["-k"] or machine.state()["boot"]["kernel"], values["-g"] and os.path.abspath(values["-g"]))
    return max(_preset(machine, each) for each in presets)


def _preset(machine, name):
    """Every image of a preset."""
    text = machine.text("/etc/mkinitcpio.d/%s.preset" % name)
    if text is None:
        sys.stderr.write("==> ERROR: Failed to load preset: `%s.preset'\n" % name)
        return 1
    conf = dict(re.findall(r"""(?m)^[ \t]*(\w+)=["']?([^"'\n()]*)["']?$""", text))
    status = 0
    for part in re.findall(r"'([^']+)'", "".join(re.findall(r"(?m)^PRESETS=\((.*)\)", text))) or ["default"]:
        print("==> Building image from preset: /etc/mkinitcpio.d/%s.preset: '%s'" % (name, part))
        config = conf.get(part + "_config") or conf.get("ALL_config") or "/etc/mkinitcpio.conf"
        print("  -> -k %s -c %s -g %s" % (conf.get("ALL_kver", ""), config, conf.get(part + "_image", "")))
        kernel = conf.get(part + "_kver") or conf.get("ALL_kver", "")
        status = max(status, _build(machine, config, kernel, conf.get(part + "_image"), conf.get(part + "_options", "")))
    return status


def _version(machine, kernel):
    """The version of what is named as one, or as a file."""
    if not kernel.startswith("/"):
        return kernel
    base = machine.at("/usr/lib/modules")
    names = sorted(os.listdir(base)) if os.path.isdir(base) else []
    fits = [name for name in names if os.path.basename(kernel) == "vmlinuz-" + (machine.text("/usr/lib/modules/%s/pkgbase" % name) or "").strip()]
    return (fits or names or [""])[-1]


def _build(machine, config, kernel, target, options=""):
    version = _version(machine, kernel)
    if not os.path.isdir(machine.at("/usr/lib/modules/" + version)):
        sys.stderr.write("==> ERROR: '/usr/lib/modules/%s' is not a valid kernel module directory\n" % version)
        return 1
    hooks = "".join(re.findall(r"(?m)^HOOKS=\((.*)\)", machine.text(config) or "")).split()
    for skipped in re.findall(r"-S\s+(\S+)", options):
        hooks = [hook for hook in hooks if hook not in skipped.split(",")]
    print("==> %s build: '%s'" % ("Starting" if target else "Starting dry run:", version))
    members = []
    for place, hook in enumerate(hooks):
        print("  -> Running build hook: [%s]" % hook)
        if hook == "microcode":
            members = _microcode(machine, "autodetect" in hooks[:place])
    if not target:
        print("==> Dry run complete, use -g IMAGE to generate a real image")
        return 0
    print("==> Creating zstd-compressed initcpio image: '%s'" % target)
    sys.stdout.flush()
    head = made_cpio.early(members) if members else b""
    try:
        initrds.write(machine, target, head + initrds.main_part({"init": b"#!/bin/sh\n", "config": " ".join(hooks).encode()}, "zstd"), 0o600)
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        sys.stderr.write("zstd: error 70 : Write error : cannot write block : %s \n" % exc.strerror)
        sys.stderr.write("==> ERROR: Image generation FAILED: 'zstd' reported an error\n")
        return 1
    print("==> Initcpio image generation successful")
    return 0


def _microcode(machine, detected):
    """[(name, bytes)]: with autodetect before it this processor's alone, else all; where there are no such files, what the packages' images carry."""
    own, found = initrds.file_name(machine), []
    for member, folder, image in ((made_cpio.AMD, "amd-ucode", "amd-ucode.img"), (made_cpio.INTEL, "intel-ucode", "intel-ucode.img")):
        if detected and (own is None or not own.startswith(folder)):
            continue
        names = initrds.names(machine, "/usr/lib/firmware/" + folder)
        if detected:
            names = [each for each in names if re.sub(r"\.(xz|zst)$", "", each) == own.rpartition("/")[2]]
        elif folder == "intel-ucode":
            names = [each for each in names if re.match(r"..-..-..(\.xz)?$", each)]
        data = b"".join(initrds.content(machine, "/usr/lib/firmware/%s/%s" % (folder, each)) for each in names)
        data = data or initrds.carried(machine, "/boot/" + image, member)
        if data:
            found.append((member, data))
    return found


def _list(machine, argv):
    """lsinitcpio [--early] IMAGE."""
    words = [word for word in argv if not word.startswith("-")]
    try:
        early, rest = initrds.archives(initrds.content(machine, os.path.abspath(words[-1])))
    except (OSError, IndexError):
        sys.stderr.write("==> ERROR: No image specified (use -h for help)\n" if not words else "==> ERROR: No such file: '%s'\n" % words[-1])
        return 1
    for members in early if "--early" in argv else [rest]:
        for each in members:
            print(each.name)
    return 0
