# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""initramfs-tools and the hooks of Debian's microcode packages, as tests/lab/recordings/update-initramfs.yml has them of bookworm."""
import errno
import os
import re
import stat
import subprocess
import sys
import time
import uuid

import initrds
import iucode_tool
import versions
from ansible_collections.fleet.microcode.tests.fleet import made_cpio, made_microcode

PROGRAMS = {"update-initramfs": "/usr/sbin/update-initramfs", "mkinitramfs": "/usr/sbin/mkinitramfs", "lsinitramfs": "/usr/bin/lsinitramfs"}
USAGES = {"update-initramfs": """
Usage: update-initramfs {-c|-d|-u} [-k version] [-v] [-b directory]

Options:
 -k version	Specify kernel version or 'all'
 -c		Create a new initramfs
 -u		Update an existing initramfs
 -d		Remove an existing initramfs
 -b directory	Set alternate boot directory
 -v		Be verbose

See update-initramfs(8) for further details.

""", "mkinitramfs": """
Usage: mkinitramfs [option]... -o outfile [version]

Options:
  -c compress	Override COMPRESS setting in initramfs.conf.
  -d confdir	Specify an alternative configuration directory.
  -l level	Override COMPRESSLEVEL setting in initramfs.conf.
  -k		Keep temporary directory used to make the image.
  -o outfile	Write to outfile.
  -r root	Override ROOT setting in initramfs.conf.

See mkinitramfs(8) for further details.

""", "lsinitramfs": """
Usage: lsinitramfs [-l] initramfs-file...

Options:
  -l   Display long and more verbose listing of initramfs content

See lsinitramfs(8) for further details.

"""}
WITH_VALUE = {"update-initramfs": "kb", "mkinitramfs": "cdlor", "lsinitramfs": ""}
FLAGS = {"update-initramfs": "cudvth?", "mkinitramfs": "hkv", "lsinitramfs": "hl"}
HOOKS = ("/usr/share/initramfs-tools/hooks", "/etc/initramfs-tools/hooks")


class Failed(Exception):
    """A program ends with this exit status; it has said why."""


def say(text):
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(machine, name, argv):
    try:
        options, words = _options(name, argv)
        if "h" in options or "?" in options:
            print(USAGES[name], end="")
            return 0
        return {"update-initramfs": update_initramfs, "mkinitramfs": _mkinitramfs, "lsinitramfs": lsinitramfs}[name](machine, options, words)
    except Failed as exc:
        return exc.args[0]


def _options(name, argv):
    """({letter: value or True}, words) as getopt(1) takes them apart. Failed, with the usage."""
    options, words, rest = {}, [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("--"):
            if word not in ("--help", "--long"):
                raise _usage(name, "%s: unrecognized option '%s'" % (_path(name), word))
            options[word[2]] = True
            continue
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in WITH_VALUE[name]:
                if not letters and not rest:
                    raise _usage(name, "%s: option requires an argument -- '%s'" % (_path(name), letter))
                options[letter], letters = letters or rest.pop(0), ""
            elif letter in FLAGS[name]:
                options[letter] = True
            else:
                raise _usage(name, "%s: invalid option -- '%s'" % (_path(name), letter))
    return options, words


def _path(name):
    """What a shell script's $0 is."""
    return PROGRAMS[name]


def _usage(name, text=""):
    if text:
        say(text)
    sys.stderr.write(USAGES[name])
    return Failed(2)


def settings(machine, *paths):
    """{name: value} of shell settings, the last one wins; as far as they are plain."""
    found = {}
    for path in paths:
        found.update(re.findall(r"""(?m)^[ \t]*(?:export[ \t]+)?(\w+)=["']?([^"'#\n]*?)["']?[ \t]*(?:#.*)?$""", machine.text(path) or ""))
    return found


# --- update-initramfs ---

def update_initramfs(machine, options, words):
    if words:
        raise _usage("update-initramfs", "Extra argument '%s'\n" % words[0])
    conf = dict({"update_initramfs": "yes", "backup_initramfs": "no"}, **settings(machine, "/etc/initramfs-tools/update-initramfs.conf"))
    folder, modes = options.get("b", "/boot"), [mode for mode in "cud" if mode in options]
    if not os.path.isdir(machine.at(folder)):
        say("E: %s is not a directory." % folder)
        return 1
    if not modes:
        raise _usage("update-initramfs", "You must specify at least one of -c, -u, or -d.\n")
    mode, version, verbose = modes[-1], options.get("k"), "v" in options
    have = [each for each in installed(machine) if os.path.exists(machine.at("%s/initrd.img-%s" % (folder, each)))]
    everyone = version == "all" or conf["update_initramfs"] == "all" and not version
    if verbose and (everyone and mode != "c" or mode == "u" and not version and conf["update_initramfs"] != "no"):
        print("Available versions: " + "\n".join(have))
    if everyone:
        for each in installed(machine) if mode == "c" else have:
            if verbose:
                print('Execute: %s -%s -k "%s" -b %s -v' % (_path("update-initramfs"), mode, each, folder))
            status = _one(machine, mode, each, folder, verbose, conf)
            if status:
                return status
        return 0
    if mode != "u" and not version:
        raise _usage("update-initramfs", "%s mode requires a version argument\n" % {"c": "Create", "d": "Delete"}[mode])
    if mode == "u" and conf["update_initramfs"] == "no":
        print("update-initramfs: Not updating initramfs.")
        return 0
    version = version or next(iter(have), None)
    if not version:
        if verbose:
            print("Nothing to do, exiting.")
        return 0
    return _one(machine, mode, version, folder, verbose, conf)


def installed(machine):
    """Versions of the kernels in /boot, newest first."""
    found = [name[8:] for name in initrds.names(machine, "/boot") if name.startswith("vmlinuz-") and not name.endswith(".old")]
    return sorted(found, key=versions.key, reverse=True)


def _one(machine, mode, version, folder, verbose, conf):
    """Create, update or delete the initrd of one kernel."""
    path = "%s/initrd.img-%s" % (folder, version)
    if mode == "d":
        print("update-initramfs: Deleting " + path)
        for each in (path, path + ".bak"):
            if os.path.exists(machine.at(each)):
                os.unlink(machine.at(each))
        return 0
    kept = None
    if mode == "u":
        if re.search(r"(?m)^\S+ /boot \S+ (\S*,)?ro(,|\s)", machine.text("/proc/mounts") or ""):
            say("W: /boot is ro mounted.\nW: update-initramfs: Not updating %s" % path)
            return 0
        if os.path.exists(machine.at(path)):
            kept = path + ".dpkg-bak"
            if os.path.exists(machine.at(kept)):
                os.unlink(machine.at(kept))
            os.link(machine.at(path), machine.at(kept))
            if verbose:
                print("Keeping " + kept)
    print("update-initramfs: Generating " + path)
    sys.stdout.flush()
    try:
        status = mkinitramfs(machine, path + ".new", version, verbose)
    except OSError as exc:
        say("touch: cannot touch '%s.new': %s" % (path, exc.strerror))
        status = 1
    if status:
        for each in (kept, path + ".new"):
            if each and os.path.lexists(machine.at(each)):
                os.unlink(machine.at(each))
                if verbose and each == kept:
                    print("Removing " + kept)
        say("update-initramfs: failed for %s with %d." % (path, status))
        return status
    os.replace(machine.at(path + ".new"), machine.at(path))
    for hook in initrds.names(machine, "/etc/initramfs/post-update.d"):
        if os.access(machine.at("/etc/initramfs/post-update.d/" + hook), os.X_OK):
            done = subprocess.run([machine.at("/etc/initramfs/post-update.d/" + hook), version, path], check=False)
            if done.returncode:
                say("run-parts: /etc/initramfs/post-update.d/%s exited with return code %d" % (hook, done.returncode))
                return 1
    if kept:
        _backup(machine, path, kept, conf["backup_initramfs"] != "no", verbose)
    return 0


def _backup(machine, path, kept, wanted, verbose):
    """What becomes of the initrd that was there before: a backup from the time before this boot is the one that booted, and stays."""
    if not wanted:
        os.unlink(machine.at(kept))
        return
    place, days = machine.at(path + ".bak"), int((time.time() - machine.state()["boot"].get("since", time.time())) / 86400)
    if os.path.exists(place) and int((time.time() - os.stat(place).st_mtime) / 86400) <= days:
        os.unlink(machine.at(kept))
        words = "Removing current backup " + kept
    else:
        os.replace(machine.at(kept), place)
        words = "Backup %s.bak" % path
    if verbose:
        print(words)


# --- mkinitramfs ---

def _mkinitramfs(machine, options, words):
    if "o" not in options:
        raise _usage("mkinitramfs")
    return mkinitramfs(machine, os.path.abspath(options["o"]), words[0] if words else machine.state()["boot"]["kernel"], "v" in options, options.get("c"))


def mkinitramfs(machine, path, version, verbose=False, compress=None):
    """Build an initrd in the file of that name; the exit status."""
    open(machine.at(path), "ab").close()
    conf = settings(machine, "/etc/initramfs-tools/initramfs.conf", *("/etc/initramfs-tools/conf.d/" + name for name in initrds.names(
        machine, "/etc/initramfs-tools/conf.d") if re.match(r"\w[\w.-]*$", name) and ".dpkg-" not in name))
    compress = compress or conf.get("COMPRESS", "zstd")
    if machine.text("/boot/config-" + version) is None:
        say("grep: /boot/config-%s: No such file or directory" % version)
        if compress != "gzip":
            say("W: %s compression (CONFIG_RD_%s) not supported by kernel, using gzip" % (compress, compress.upper()))
            say("grep: /boot/config-%s: No such file or directory" % version)
        say("E: gzip compression (CONFIG_RD_GZIP) not supported by kernel")
        return 1
    if not os.path.isdir(machine.at("/lib/modules/" + version)):
        say("W: missing /lib/modules/%s\nW: Ensure all necessary drivers are built into the linux image!" % version)
    for name in initrds.names(machine, "/etc/modprobe.d") if verbose else ():
        print("Adding config /etc/modprobe.d/" + name)
    early, size = b"", initrds.MAIN if conf.get("MODULES", "most") == "most" else initrds.FEW
    for hook, own in _hooks(machine):
        if verbose:
            print("Calling hook " + os.path.basename(hook))
            sys.stdout.flush()
        if own:
            early += own(machine, conf.get("MODULES", "most"), version, verbose)
            continue
        env = dict(os.environ, version=version, MODULES=conf.get("MODULES", "most"), verbose="y" if verbose else "n")
        done = subprocess.run([machine.at(hook)], stdin=subprocess.DEVNULL, env=env, check=False)
        if done.returncode:
            say("E: %s failed with return %d." % (hook, done.returncode))
            return done.returncode
    if verbose:
        print("Building cpio %s initramfs" % path)
    main = initrds.main_part({"init": b"#!/bin/sh\n", "conf/initramfs.conf": (machine.text("/etc/initramfs-tools/initramfs.conf") or "").encode(),
                              "usr/lib/modules/%s/modules.dep" % version: b""}, compress)
    try:
        machine.check_space("/var/tmp/mkinitramfs", size)
    except OSError as exc:
        say("cp: error writing '/var/tmp/mkinitramfs_%s/init': %s" % (uuid.uuid4().hex[:6], exc.strerror))
        say("E: %s/kmod failed with return 1." % HOOKS[0])  # after many more of the first kind
        return 1
    try:
        initrds.write(machine, path, early + main, main=size)
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        say("%s: error 70 : Write error : cannot write block : %s " % (compress, exc.strerror))
        say("E: mkinitramfs failure %s 70" % ("zstd -q -9 -T0" if compress == "zstd" else compress))
        return 1
    return 0


def _hooks(machine):
    """[(path, function that stands for it, or None for somebody's own)] in the order of their names; the packages' first, as far as they are there."""
    found = []
    if machine.text("/lib/firmware/amd-ucode/microcode_amd.bin") is not None or initrds.names(machine, "/lib/firmware/amd-ucode"):
        found.append((HOOKS[0] + "/amd64_microcode", amd64_microcode))
    if "intel-microcode" in machine.state()["packages"]:
        found.append((HOOKS[0] + "/intel_microcode", intel_microcode))
    for folder in HOOKS:
        for name in initrds.names(machine, folder):
            path = folder + "/" + name
            if re.match(r"[\w.-]+$", name) and os.stat(machine.at(path)).st_mode & stat.S_IXUSR:
                found.append((path, None))
    return found


def intel_microcode(machine, modules, version, verbose):
    """The early archive that the hook of intel-microcode writes."""
    most = modules == "most"
    conf = {"IUCODE_TOOL_INITRAMFS": "early" if most else "auto", "IUCODE_TOOL_SCANCPUS": "no" if most else "yes"}
    conf.update(settings(machine, "/etc/default/intel-microcode"))
    mode, scan = conf["IUCODE_TOOL_INITRAMFS"] or "no", conf["IUCODE_TOOL_SCANCPUS"] == "yes"

    def words(text):
        if verbose:
            print("intel-microcode: " + text)
    if mode in ("no", "0"):
        words("intel-microcode: disabled by /etc/default/intel-microcode")
        return b""
    if mode in ("yes", "1"):
        say("W: intel-microcode: initramfs mode not supported, using early initramfs mode")
    elif mode not in ("auto", "early"):
        say("E: intel-microcode: invalid IUCODE_TOOL_INITRAMFS, using automatic mode")
        mode = "auto"
    if mode == "auto" and initrds.processor(machine)[0] != "GenuineIntel":
        words("no Intel processors detected, nothing to do")
        return b""
    words("adding microcode for currently online and selected Intel processors" if scan else
          "adding microcode for either all or selected Intel processor models")
    words("using early initramfs microcode update mode...")
    sys.stdout.flush()
    chosen = iucode_tool.select(machine, ["/lib/firmware/intel-ucode"], verbose, not verbose, scan)
    if verbose:
        iucode_tool.said(chosen, "/var/tmp/mkinitramfs-EFW_%s" % uuid.uuid4().hex[:10], "/sbin/iucode_tool")
    return iucode_tool.early(chosen)


def amd64_microcode(machine, modules, version, verbose):  # pylint: disable=unused-argument
    """The early archive that the hook of amd64-microcode writes: all files of AMD's, joined."""
    mode = settings(machine, "/etc/default/amd64-microcode").get("AMD64UCODE_INITRAMFS", "auto") or "no"
    vendor, folder = initrds.processor(machine)[0], "/lib/firmware/amd-ucode"

    def words(text):
        if verbose:
            print("I: amd64-microcode: " + text)
    if mode in ("no", "0"):
        words("disabled by /etc/default/amd64-microcode")
        return b""
    if mode in ("yes", "1"):
        say("W: amd64-microcode: initramfs mode not supported, using early-initramfs mode")
    elif mode not in ("auto", "early"):
        say("E: amd64-microcode: invalid AMD64UCODE_INITRAMFS, using automatic mode")
        mode = "auto"
    if mode == "auto" and vendor != "AuthenticAMD":
        words("no AMD processors detected, nothing to do")
        return b""
    words("installing AMD64 microcode into the early initramfs...")
    data = b"".join(initrds.content(machine, "%s/%s" % (folder, name)) for name in initrds.names(machine, folder))
    return made_microcode.early([(made_cpio.AMD, data)] if data else [], "initramfs-tools")


# --- lsinitramfs ---

def lsinitramfs(machine, options, words):
    if not words:
        raise _usage("lsinitramfs")
    for path in words:
        try:
            with open(machine.at(os.path.abspath(path)), "rb") as stream:
                early, rest = initrds.archives(stream.read())
        except OSError:  # in the words of the functions of a script that go on without it
            say("\n".join("/usr/bin/unmkinitramfs: %d: cannot open %s: No such file" % (number, path) for number in (64, 57, 38)))
            say("cpio: premature end of archive")
            return 2
        for members in early + [rest]:
            for each in members:
                print(initrds.listed(each) if "l" in options else each.name)
    return 0
