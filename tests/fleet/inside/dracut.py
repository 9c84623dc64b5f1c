# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""dracut and lsinitrd, as tests/lab/recordings/dracut.yml has them of version 059."""
import errno
import os
import re
import stat
import sys

import initrds
import versions
from ansible_collections.fleet.microcode.tests.fleet import made_cpio, made_microcode

PROGRAMS = {"dracut": "/usr/bin/dracut", "lsinitrd": "/usr/bin/lsinitrd"}
VERSION = "059-4"
USAGE = """Usage: /usr/bin/dracut [OPTION]... [<initramfs> [<kernel-version>]]

Version: %s

Creates initial ramdisk images for preloading modules

  -h, --help  Display all options
"""
LS_USAGE = """Usage: lsinitrd [options] [<initramfs file> [<filename> [<filename> [...] ]]]
Usage: lsinitrd [options] -k <kernel version>
"""
FLAGS = {"-f": "force", "--force": "force", "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "-H": "hostonly",
         "--hostonly": "hostonly", "-N": "no-hostonly", "--no-hostonly": "no-hostonly",
         "--early-microcode": "early", "--no-early-microcode": "no-early", "-h": "help", "--help": "help",
         "--regenerate-all": "all", "-p": "parallel", "--parallel": "parallel", "--version": "version", "--gzip": "gzip", "--zstd": "zstd", "--xz": "xz",
         "--no-compress": "plain", "--reproducible": "reproducible", "--no-hostonly-cmdline": "", "--hostonly-cmdline": "", "--no-kernel": "", "--debug": ""}
WITH_VALUE = ("-a", "--add", "-m", "--modules", "-o", "--omit", "-d", "--drivers", "--add-drivers", "--force-drivers", "--omit-drivers", "--filesystems", "-I",
              "--install", "-k", "--kmoddir", "--kver", "-c", "--conf", "--confdir", "--tmpdir", "-L", "--stdlog", "--compress", "--kernel-cmdline", "--fwdir")
IMAGES = ("intel-uc.img", "intel-ucode.img", "amd-uc.img", "amd-ucode.img", "early_ucode.cpio", "microcode.cpio")
MODULES = ("base", "fs-lib", "shutdown")  # of many more


def say(text):
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(machine, name, argv):
    if name == "lsinitrd":
        return lsinitrd(machine, argv)
    options, values, words, rest = set(), {}, [], list(argv)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if key in WITH_VALUE:
            values[key] = value if equals else rest.pop(0) if rest else ""
        elif word in FLAGS:
            options.add(FLAGS[word])
        elif word.startswith("-"):
            say("getopt: %s" % ("unrecognized option '%s'" % word if word.startswith("--") else "invalid option -- '%s'" % word[1]))
            print(USAGE % _version(machine))
            return 1
        else:
            words.append(word)
    if options & {"help", "version"}:
        print("dracut " + _version(machine) if "version" in options else USAGE % _version(machine))
        return int("version" in options)
    version = values.get("--kver") or (words[1] if words[1:] else None)
    if "all" in options:
        if version or words:
            say("--regenerate-all cannot be called with a %s" % ("kernel version" if version else "image file"))
            return 1
        folder = machine.at("/lib/modules")
        return sum(_build(machine, argv, options - {"all"}, values, None, each) for each in sorted(os.listdir(folder))
                   if os.path.exists("%s/%s/modules.dep" % (folder, each)))
    return _build(machine, argv, options, values, words[0] if words else None, version or machine.state()["boot"]["kernel"])


def _version(machine):
    return machine.state()["packages"].get("dracut", VERSION)


def settings(machine):
    """{name: value} of the configuration, later files win; as far as it is plain."""
    found, files = {}, {}
    for folder in ("/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d"):  # the latter hides a file of the same name
        files.update((name, folder + "/" + name) for name in initrds.names(machine, folder) if name.endswith(".conf"))
    for path in ["/etc/dracut.conf"] + [files[name] for name in sorted(files)]:
        found.update(re.findall(r"""(?m)^[ \t]*(\w+)\+?=["']?([^"'#\n]*?)["']?[ \t]*(?:#.*)?$""", machine.text(path) or ""))
    return found


def target(machine, version):
    """Where the initrd of a kernel lies, unless somebody says otherwise."""
    for path in ("/lib/modules/%s/initrd" % version, "/boot/initrd.img-" + version, "/boot/initramfs-%s.img" % version, "/boot/initrd-" + version):
        if os.path.exists(machine.at(path)):
            return path
    ident = re.search(r"(?m)^ID(?:_LIKE)?=.*(suse|fedora|rhel|gentoo)", machine.text("/etc/os-release") or "")
    return {"suse": "/boot/initrd-%s", None: "/boot/initrd.img-%s"}.get(ident and ident.group(1), "/boot/initramfs-%s.img") % version


def _build(machine, argv, options, values, path, version):
    conf = settings(machine)
    quiet = "quiet" in options

    def info(text):
        if not quiet:
            say("dracut: " + text)
    modules = "/lib/modules/%s/" % version
    if not os.path.isdir(machine.at(modules)):
        say("dracut: Cannot find module directory %s\ndracut: and --no-kernel was not specified" % modules)
        return 1
    folder = values.get("--tmpdir") or conf.get("tmpdir", "/var/tmp")
    if not os.path.isdir(machine.at(folder)):
        say("dracut: Invalid tmpdir '%s'." % folder)
        return 1
    path = os.path.abspath(path) if path else target(machine, version)
    info("Executing: /usr/bin/dracut " + " ".join(argv))
    if os.path.exists(machine.at(path)) and "force" not in options:
        say("dracut: Will not override existing initramfs (%s) without --force" % path)
        return 1
    if not os.path.isdir(machine.at(os.path.dirname(path))):
        say("dracut: Can't write to {0}: Directory {0} does not exist or is not accessible.".format(os.path.dirname(path)))
        return 1
    hostonly = conf.get("hostonly") == "yes" and "no-hostonly" not in options or "hostonly" in options
    early = conf.get("early_microcode", "yes") == "yes" and "no-early" not in options or "early" in options
    if early and not _supported(machine, version, hostonly):
        say("dracut: Disabling early microcode, because kernel does not support it. CONFIG_MICROCODE_[AMD|INTEL]!=y")
        early = False
    for module in MODULES:
        info("*** Including module: %s ***" % module)
    members = _microcode(machine, conf, version, hostonly, info) if early else []
    head = made_microcode.early(members, "dracut")
    lib = "usr/lib/dracut/"
    info("*** Creating image file '%s' ***" % path)
    rest = initrds.main_part({"init": b"#!/bin/sh\n", lib + "dracut-" + _version(machine): (_version(machine) + "\n").encode(),
                              lib + "build-parameter.txt": ("".join(" '%s'" % word if " " in word else " " + word for word in argv) + "\n").encode(),
                              lib + "modules.txt": "".join(module + "\n" for module in MODULES).encode()},
                             "zstd" if "zstd" in options or conf.get("compress") == "zstd" else "gzip")
    try:
        machine.check_space(folder + "/dracut", len(head) + initrds.MAIN)
    except OSError:
        say("dracut: Creation of %s failed" % path)
        return 1
    try:
        initrds.write(machine, path, head + rest, 0o600)
    except OSError as exc:
        say("cp: %s '%s': %s" % ("error writing" if exc.errno == errno.ENOSPC else "cannot create regular file", path, exc.strerror))
        if os.path.exists(machine.at(path)) and exc.errno != errno.EROFS:
            os.unlink(machine.at(path))
        say("dracut: Creation of %s failed" % path)
        return 1
    info("*** Creating initramfs image file '%s' done ***" % path)
    return 0


def _supported(machine, version, hostonly):
    """Whether the kernel takes early microcode, as dracut finds it in its configuration: the vendors' options went with 6.6, which 059 does not know yet."""
    text = next(filter(None, (machine.text(path % version) for path in ("/boot/config-%s", "/lib/modules/%s/config"))), None)
    if text is None:
        return True
    if versions.compare(_version(machine), "060") >= 0 and re.search("^CONFIG_MICROCODE=y", text, re.M):
        return True
    vendor = {"GenuineIntel": "INTEL", "AuthenticAMD": "AMD"}.get(initrds.processor(machine)[0], "-") if hostonly else "(INTEL|AMD)"
    return re.search("^CONFIG_MICROCODE_%s=y" % vendor, text, re.M) is not None


def _microcode(machine, conf, version, hostonly, info):
    """[(name, bytes)] for the early archive: all files of a vendor joined, or with hostonly this processor's alone; else what a ready image carries."""
    info("*** Generating early-microcode cpio image ***")
    own, found = initrds.file_name(machine), []
    folders = (conf.get("fw_dir") or "/lib/firmware/updates /lib/firmware /lib/firmware/" + version).replace(":", " ").split()
    for member, name in ((made_cpio.AMD, "amd-ucode"), (made_cpio.INTEL, "intel-ucode")):
        if hostonly and (own is None or not own.startswith(name)):
            continue
        data = b""
        for folder in folders:
            there = initrds.names(machine, "%s/%s" % (folder, name))
            if not there:
                continue
            info("*** Constructing %s ***" % member.rpartition("/")[2])
            if hostonly:
                base = own.rpartition("/")[2]
                there = [each for each in (base, base + ".initramfs", base + ".xz") if each in there][:1]
            data += b"".join(initrds.content(machine, "%s/%s/%s" % (folder, name, each)) for each in there if not each.endswith((".asc", "README")))
        for image in IMAGES:
            if not data:
                data = initrds.carried(machine, "/boot/" + image, member)
                if data:
                    info("*** Using microcode found in '/boot/%s' ***" % image)
        if data:
            found.append((member, data))
    return found


# --- lsinitrd ---

def lsinitrd(machine, argv):
    wanted, words, rest, version, modules = [], [], list(argv), None, False
    while rest:
        word = rest.pop(0)
        if word in ("-f", "--file"):
            wanted.append(rest.pop(0))
        elif word in ("-k", "--kver"):
            version = rest.pop(0)
        elif word in ("-m", "--mod"):
            modules = True
        elif word in ("-s", "--size", "-v", "--verbose"):
            continue
        elif word.startswith("-"):
            if word not in ("-h", "--help"):
                say("getopt: unrecognized option '%s'" % word)
            say(LS_USAGE)
            return int(word not in ("-h", "--help"))
        else:
            words.append(word)
    path = words[0] if words else target(machine, version or machine.state()["boot"]["kernel"])
    try:
        with open(machine.at(os.path.abspath(path)), "rb") as stream:
            data = stream.read()
    except OSError:
        say("%s does not exist\n" % path if words else "No <initramfs file> specified and the default image '%s' cannot be accessed!\n" % path)
        say(LS_USAGE)
        return 1
    early, main_part = initrds.archives(data)
    early = [each for each in early if any(member.name == "early_cpio" or re.match("kernel/.*/microcode/.*bin$", member.name) for member in each)][:1]
    wanted = [each.lstrip("/") for each in wanted + words[1:]]
    if wanted:
        for each in [member for members in early + [main_part] for member in members if member.name in wanted]:
            sys.stdout.buffer.write(each.data)
        return 0
    line = "=" * 72
    print("Image: %s: %dK\n%s" % (path, -(-len(data) // 4096) * 4, line))
    for members in early:
        print("Early CPIO image\n%s\n%s\n%s" % (line, _listing(members), line))
    rest = dict((each.name, each.data.decode(errors="replace")) for each in main_part)
    lib = "usr/lib/dracut/"
    print("Version: %s\n" % next(("dracut-" + text.strip() for name, text in rest.items() if name.startswith(lib + "dracut-")), ""))
    if not modules:
        print("Arguments:%s" % rest.get(lib + "build-parameter.txt", "\n"))
    print("dracut modules:\n%s%s" % (rest.get(lib + "modules.txt", ""), line))
    if not modules:
        print("%s\n%s" % (_listing(main_part), line))
    return 0


def _listing(members):
    """Members by their names; the links of a folder are those of a file system that held them: its own two, and one of each folder in it."""
    folders = [each.name.rpartition("/")[0] or "." for each in members if stat.S_ISDIR(each.mode) and each.name != "."]
    return "\n".join(initrds.listed(each, 2 + folders.count(each.name)) for each in sorted(members, key=lambda each: each.name))
