# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the next boot boots: boot system, default entry, whether GRUB can boot an entry just once, whether a reboot is a kexec."""
import os
import re
from fnmatch import fnmatchcase

from .update import FormatError

EFIVARS, INTERFACE = "/sys/firmware/efi/efivars/", "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  # systemd's boot loader interface
BASES = ("", "/boot", "/boot/efi", "/efi")  # where file systems that a loader reads are mounted
LIMIT = 256 << 10  # bytes of a configuration; generated ones have some 10,000
UNKNOWN = "\0"  # in a variable of GRUB's: what only GRUB can know
TOKEN = re.compile(r"""\#[^\n]*|[;\n]|(?:'[^']*'?|"[^"\\]*(?:\\.[^"\\]*){0,99}"?|\\.?|[^\s;'"\\]+){1,99}""", re.S)  # bounds keep memory small
PIECE = re.compile(r"""'([^']*)'?|"([^"\\]*(?:\\.[^"\\]*){0,99})"?|\\(.?)|\$\{?(\w+|\?)\}?""", re.S)
KINDS = ((r"grub\.cfg", "grub"), (r"systemd-bootx64\.efi", "systemd-boot"), (r"EFI/Linux/.*\.efi", "uki"), (r"xen[^/]*\.cfg", "xen.efi"),
         (r"(extlinux\.conf|syslinux\.cfg)", "extlinux"))
CONFIGURATIONS = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg", "/boot/extlinux.conf", "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg")
ELSEWHERE = {"network": "booted over the network: the boot server decides",
             "proxmox-boot-tool": "proxmox-boot-tool keeps loader and kernels on EFI system partitions that are not mounted"}


def facts(host, command_line):
    """Section boot: system, one_time_entry, why_not, reboot_is_kexec, and next_entry: what an armed one-time entry names."""
    found = {"system": _above(host, command_line), "one_time_entry": None, "next_entry": None, "reboot_is_kexec": _kexec(host)}
    try:
        kind, path, text = _loader(host, found["system"])
        found["why_not"] = None
    except FormatError as exc:
        found["why_not"] = str(exc)
        return found
    if kind in ("grub", "bls"):
        environment = _environment(host, path)
        found["one_time_entry"], found["why_not"] = _one_time(host, environment, path, text)
        found["next_entry"] = (environment or {}).get("next_entry") or None
    elif kind == "systemd-boot" and host.names(EFIVARS):
        found.update(one_time_entry=True, next_entry=_variable(host, "EntryOneShot"))
    else:
        found["why_not"] = "whether %s can boot an entry just once here is not looked into" % kind
    found["system"] = found["system"] or kind
    return found


def default_entry(host):
    """What the next boot boots if nobody chooses, an armed one-time entry included; None with a warning where that cannot be told.

    {"kernel": path on the host, "initrds": [path], "args": str, "xen": path or None, "xen_args": str or None, "ucode": path or None};
    args are None where only the loader knows them. ucode: what EFI's xen.cfg names.
    """
    try:
        kind, path, text = _loader(host, _above(host, host.text("/proc/cmdline")))
        if kind == "uki":
            raise FormatError("unified kernel images are not looked into")
        return _grub(host, path, text) if text else {"systemd-boot": _systemd_boot, "xen.efi": _xen_efi, "extlinux": _extlinux}[kind](host, path)
    except FormatError as exc:
        host.warn("the default boot entry is not known: %s" % exc)
        return None


def xen_ucode(command_line):
    """What ucode= lets Xen load at boot: "scan", a module's number, "off", "none" where nothing is said; None: no command line known.

    What is said last counts, in the forms of all versions (XEN docs/misc/xen-command-line).
    """
    chosen = None if command_line is None else "none"
    for word in ",".join(re.findall(r"(?:^|\s)ucode=(\S*)", command_line or "")).split(","):
        scan = re.match(r"(no-)?scan(?:=(\w+))?$", word)
        if scan:
            chosen = "off" if scan.group(1) or scan.group(2) in ("no", "off", "false", "disable", "0") else "scan"
        elif re.match(r"-?(0x[0-9a-f]{1,8}|\d{1,9})$", word):
            chosen = word
    return chosen


def version_key(name):
    """Sorts names as boot loaders do: numbers after words, more after less, "~" before all; name, version and release apart."""
    return [[(-1 if part == "~" else 1 + part.isdigit(), part.zfill(20) if part.isdigit() else part)
             for part in re.findall("[0-9]+|[A-Za-z]+|~", text)] + [(0, "")] for text in name.rsplit("-", 2)]


def _above(host, command_line):
    """What manages the boot loader, or boots without one; None: nothing of the kind."""
    words = command_line or ""
    if host.exists("/run/ostree-booted") or re.search(r"(^|\s)ostree=", words):
        return "ostree"
    if host.text("/etc/kernel/proxmox-boot-uuids"):
        return "proxmox-boot-tool"
    if re.search(r"(^|\s)(root=(/dev/nfs|nfs|nbd|live:(http|t?ftp|nfs))|nfsroot=|netroot=(?!iscsi)|BOOTIF=|fetch=)", words):
        return "network"
    root = _mount(host, "/") if host.which("transactional-update") else None
    return "transactional-update" if root and root["kind"] == "btrfs" and "ro" in root["options"] else None


def _kexec(host):
    """Whether a plain reboot goes through kexec, which starts neither firmware nor loader; None: not known."""
    loaded = host.text("/sys/kernel/kexec_loaded", 16)
    if (loaded == "1" or (host.link("/etc/systemd/system/reboot.target") or "").endswith("kexec.target")  # systemctl reboot takes what is loaded
            or re.search(r"^\s*LOAD_KEXEC=\W?true", host.text("/etc/default/kexec") or "", re.M) and host.exists("/etc/init.d/kexec-load")
            and not host.is_dir("/run/systemd/system")):  # Debian's; with systemd it loads a kernel that the reboot passes by (LAB)
        return True
    return False if loaded == "0" or host.is_dir("/sys/kernel") else None


def _variable(host, name):
    """The text of a variable of the boot loader interface, or None."""
    data = host.read(EFIVARS + "Loader" + name + INTERFACE, 4096)
    return data and data[4:].decode("utf-16-le", "replace").rstrip("\0") or None


def _loader(host, above):
    """("grub" or "bls", folder, text of grub.cfg), or (kind, path of its program or configuration, None)."""
    if above in ELSEWHERE:
        raise FormatError(ELSEWHERE[above])
    efi, found = host.exists("/sys/firmware/efi"), {}
    paths = ["/".join((base, "EFI", folder, name)) for base in (BASES[1:] if efi or not host.is_dir("/sys/firmware") else ())
             for folder in host.names(base + "/EFI") for name in host.names(base + "/EFI/" + folder)]
    for path in paths + list(filter(host.exists, CONFIGURATIONS)):
        kind = next((kind for end, kind in KINDS if re.search("/%s$" % end, path)), None)
        text = host.text(path, LIMIT) if kind == "grub" else None
        menu = re.search(r"^\s*(menuentry|submenu|blscfg)\b", text or "", re.M)
        if menu and not (efi and path not in paths and any(each[2] for each in found.values())):
            # other files lead to such a menu; one that lies beside the EFI program is the one that is read
            found[path] = "bls" if re.search(r"^\s*blscfg\b", text, re.M) else kind, path[:-9], text
        elif kind not in (None, "grub"):
            found[kind] = kind, path, None
    if "systemd-boot" in found:
        found.pop("uki", None)  # which it starts
        if len(found) > 1 and host.names(EFIVARS):
            started = (_variable(host, "Info") or "").startswith("systemd-boot")
            found = dict((key, each) for key, each in found.items() if (key == "systemd-boot") == started)
    if len(found) != 1:
        raise FormatError("boot loaders found: %s; %s" % (
            ", ".join(sorted("%s (%s)" % each[:2] for each in found.values())) or "none",
            "which one firmware starts is not known" if found else "are /boot and the EFI system partition mounted, is this root?"))
    return found.popitem()[1]


def _mount(host, path):
    """{kind, source, number: "major:minor", options} of the file system that holds path; of an image fstab tells. None: not known."""
    for name, pattern in (("/proc/self/mountinfo", r"\S+ \S+ (?P<number>\S+) \S+ (?P<at>\S+) (?P<options>\S+) .*?- (?P<kind>\S+) (?P<source>\S+)"),
                          ("/etc/fstab", r"(?P<source>[^\s#]\S*)\s+(?P<at>/\S*)\s+(?P<kind>\S+)\s+(?P<options>\S+)(?P<number>)")):
        best = {"at": ""}
        for match in filter(None, (re.match(pattern, line) for line in host.lines(name))):
            if (path + "/").startswith(match.group("at").rstrip("/") + "/") and len(match.group("at")) >= len(best["at"]):
                best = match.groupdict()
        if best["at"]:
            return dict(best, options=best["options"].split(","))
    return None


def _environment(host, folder):
    """{name: value} of GRUB's environment block; None where it cannot be read or is none."""
    data = host.read(folder + "/grubenv", LIMIT) or b""
    if len(data) != 1024 or not data.startswith(b"# GRUB Environment Block\n"):
        return None
    return dict(re.findall(r"^([^#=\n]+)=(.*)", re.sub(r"\\(.)", r"\1", data.decode("utf-8", "replace")), re.M))


def _one_time(host, environment, folder, text):
    """(True, False or None for not known; why not): whether GRUB boots next_entry once, then forgets it by itself (GRUB, Environment block)."""
    path = folder + "/grubenv"
    if "next_entry" not in text:
        return False, folder + "/grub.cfg does not look at next_entry; one written by grub-mkconfig does"
    if environment is None:
        unread = host.exists(path) and host.read(path, LIMIT) is None
        return None if unread else False, "%s %s; grub-editenv %s create makes one" % (path, "cannot be read" if unread else "is no environment block", path)
    mount = _mount(host, os.path.realpath(host.locate(path))[len(host.root.rstrip("/")):])
    if not mount:
        return None, "neither the kernel's mounts nor fstab tell on what %s lies" % path
    kind, source, base = mount["kind"], mount["source"], "/sys/dev/block/%s/" % (mount["number"] or "-")
    mapped = host.text(base + "dm/uuid", 256) or ""
    below = ["LVM"] if mapped.startswith("LVM-") else ["RAID"] if source.startswith("/dev/md") or host.exists(base + "md") else []
    where = "%s lies on %s (%s)" % (path, source, " on ".join([kind] + below))
    if "ro" in mount["options"]:
        return False, where + ", mounted read-only: nothing can be set there before it is mounted read-write"
    block = kind == "btrfs" and "env_block" in environment and "env_block" in text  # in btrfs's header: SUSE, and GRUB from 2.14 on
    if below or kind in ("btrfs", "zfs", "bcachefs", "squashfs", "overlay", "tmpfs", "nfs", "nfs4") and not block:
        return False, where + ", where GRUB cannot write: a one-time entry would stay the default. /boot on a plain ext4 or xfs partition would do"
    device = (re.findall(r"DEVNAME=(\S+)", host.text(base + "uevent", 4096) or "") or [source[5:]])[0]
    if (re.match(r"(sd|hd|vd|xvd|nvme|mmcblk)[^/]*$", device) or "mpath-" in mapped) and (block or re.match(r"(ext[234]|xfs|vfat)$", kind)):
        return True, None
    return None, where + "; whether GRUB can write there is not known"


def _entry(host, bases, kernel, initrds, args, xen=None, xen_args=None, ucode=None):
    """The dict that default_entry() returns, of files as the loader names them in a file system that is mounted on one of bases."""
    def found(path):
        path, places = re.sub(r"^\([^)]*\)", "", path), {}
        for place in [base + "/" + name.lstrip("/") for name in (path, re.sub(r"^.*?@[^/]*/", "/", path)) for base in bases]:  # btrfs /@rootfs/, ZFS /x@/
            info = host.stat(place) if UNKNOWN not in place else None
            if info and not host.is_dir(place):
                places.setdefault((info.st_dev, info.st_ino), place)
        if len(places) != 1:
            raise FormatError("%s of the default entry %s" % (
                path.replace(UNKNOWN, "?"), "may be " + " or ".join(sorted(places.values())) if places else "is not there"))
        return places.popitem()[1]
    args, xen_args = [None if UNKNOWN in (text or "") else text for text in (args, xen_args)]
    return {"kernel": found(kernel), "initrds": [found(each) for each in initrds], "args": args,
            "xen": xen and found(xen), "xen_args": xen_args, "ucode": ucode and found(ucode)}


def _keys(host, path):
    """{key: [value, ...]} of a boot loader entry."""
    found = {}
    for key, value in re.findall(r"^[ \t]*([^\s#]\S*)[ \t]+(.*\S)", host.text(path, LIMIT) or "", re.M):
        found.setdefault(key, []).append(value)
    return found


def _systemd_boot(host, program):
    """systemd-boot's default: the entry that a variable or loader.conf names, else the newest."""
    if not host.names(EFIVARS):
        raise FormatError("the EFI variables, which may choose systemd-boot's default, are not there to be read")
    esp, entries, fits = program.split("/EFI/")[0], [], []
    for base in (esp, "/boot")[:1 + (esp != "/boot")]:
        for folder, end in (base + "/EFI/Linux/", ".efi"), (base + "/loader/entries/", ".conf"):
            entries += [(re.sub(r"\+\d+(-\d+)?(?=\.conf$)", "", name.lower()), base, _keys(host, folder + name) if end == ".conf" else {})
                        for name in host.names(folder) if name.endswith(end) and not re.search(r"\+0+(-\d+)?\.conf$", name)]  # +0: given up
    wanted = [_variable(host, "EntryOneShot"), _variable(host, "EntryDefault")] + _keys(host, esp + "/loader/loader.conf").get("default", [])[-1:]
    for pattern in [_variable(host, "EntryLastBooted") if each == "@saved" else each for each in wanted] + ["*"]:
        if pattern and pattern.count("*") > 4:
            raise FormatError("systemd-boot's pattern %s is like none that is in use" % pattern)
        if pattern and not fits:
            fits = sorted((entry for entry in entries if fnmatchcase(entry[0], pattern.lower())), key=lambda entry: version_key(entry[0]))
    if len(set(str(["linux" in entry[2]] + [entry[2].get(key) for key in ("sort-key", "machine-id")]) for entry in fits)) != 1 or "linux" not in fits[0][2]:
        raise FormatError("which of %d entries systemd-boot takes was not found out" % len(fits))
    _name, base, keys = fits[-1]
    return _entry(host, (base,), keys["linux"][0], keys.get("initrd", []), " ".join(keys.get("options", [])))


def _xen_efi(host, path):
    """The default section of xen.efi's configuration; files lie beside it (XEN docs/misc/efi)."""
    sections, name = {}, ""
    for section, key, value in re.findall(r"^[ \t]*(?:\[([^]\n]+)\]|(\w+)=[ \t]*(.*))", host.text(path, LIMIT) or "", re.M):
        name = section or name
        sections.setdefault(name, {}).setdefault(key, value.strip())
    chosen = dict(sections.get("global", {}))
    chosen.update(sections.get(chosen.get("default"), {}))
    (kernel, _space, args), ramdisk, ucode = [chosen.get(key, "").partition(" ") for key in ("kernel", "ramdisk", "ucode")]
    if not kernel:
        raise FormatError("%s names no kernel in its default section" % path)
    return _entry(host, (os.path.dirname(path),), kernel, list(filter(None, ramdisk[:1])), args.strip(), os.path.basename(path)[:-3] + "efi",
                  chosen.get("options", ""), ucode[0] or None)


def _extlinux(host, path):
    """extlinux's default: the label that DEFAULT names; where that is a menu, its MENU DEFAULT, else its first."""
    top, labels = {}, []
    for key, value in re.findall(r"^[ \t]*(menu[ \t]+default|\w+)\b[ \t]*(.*)", host.text(path, LIMIT) or "", re.M | re.I):
        labels += [{}] if key.lower() == "label" else []
        (labels[-1] if labels else top)[key.lower()] = value.strip()
    wanted = top.get("ontimeout") or top.get("default", "")
    fits = [each for each in labels if each["label"] == wanted]
    if wanted.endswith(".c32"):
        fits = [each for each in labels if any(key[:5] == "menu " or key[:5] == "menu\t" for key in each)] or labels
    kernel = fits and (fits[0].get("linux") or fits[0].get("kernel"))
    if not kernel:
        raise FormatError("%s names no kernel for its default %s" % (path, wanted))
    folder, args = os.path.dirname(path), fits[0].get("append", "")
    images = fits[0].get("initrd") or "".join(re.findall(r"(?:^|\s)initrd=(\S+)", args)[-1:])
    return _entry(host, (folder,) + BASES, kernel, [each for each in images.split(",") if each], args)


def _grub(host, folder, text):
    """The entry that a grub.cfg of this text boots by default, as default_entry() returns it."""
    efi = host.exists("/sys/firmware/efi") or not host.is_dir("/sys/firmware") and host.is_dir("/boot/efi/EFI")
    env = {"prefix": folder, "config_directory": folder, "grub_platform": "efi" if efi else "pc", "?": UNKNOWN}
    menu = _follow(host, env, text)
    wanted = env.get("default", "")
    while menu:  # of a submenu GRUB boots the first entry where the default names none in it; what stands behind an entry's name it ignores
        block, wanted = _choose(menu, wanted, " blscfg" in env)
        menu = _follow(host, env, block)
    linux, initrds, xen, modules = loaded = [env.get(" " + key, ()) for key in ("linux", "initrd", "multiboot", "module")]
    if UNKNOWN in loaded or not (modules if xen else linux):
        raise FormatError("GRUB's default entry loads no Linux, or what it loads is known to GRUB alone")
    if not xen:
        return _entry(host, BASES, linux[0], initrds, " ".join(linux[1:]))
    for line in modules[1:]:
        if line[1:]:  # 20_linux_xen of GRUB 2.06 puts all initrds on one line
            host.warn("GRUB loads for Xen only the first file of a module line, not %s" % " ".join(line[1:]))
    args, xen_args = [" ".join(line[2 if line[1:2] == ("placeholder",) else 1:]) for line in (modules[0], xen)]
    return _entry(host, BASES, modules[0][0], [line[0] for line in modules[1:]], args, xen[0], xen_args)


def _choose(menu, wanted, bls):
    """(block of the entry that wanted names by id, title or number, else of the first; what stands behind a single ">")."""
    name, _behind, rest = wanted.replace(">>", "\1").partition(">")
    name = name.replace("\1", ">")
    named = [entry for entry in menu if entry and name in entry[1:]]
    if not named:
        if re.match(r"\d+\D", name) and not bls:  # upstream's reads the digits; others look for the whole name, as identifiers of entries need
            raise FormatError("GRUB's default %s is no entry; whether it counts as a number depends on GRUB's version" % name)
        place = int(name) if re.match(r"\d{1,3}$", name) and int(name) < len(menu) else 0
        named = menu[place:place + 1] if None not in (menu[:place + 1] if name.isdigit() or not name else menu) else []
    if UNKNOWN in wanted or not named:
        raise FormatError("which entry GRUB takes is known to GRUB alone")
    return named[0][0], rest.replace("\1", ">>")


def _follow(host, env, script):
    """Runs a GRUB script, a text or the tokens of a block; returns its menu: [(block, title, id), ...].

    env holds the variables and, behind a blank, what was loaded. What hangs on a condition that only GRUB can judge is UNKNOWN, an entry None.
    """
    menu, words, frames, live, block, depth = [], [], [], True, [], 0
    for token in (TOKEN.findall(script) if isinstance(script, str) else script) + ["\n"]:
        if depth:
            depth += {"{": 1, "}": -1}.get(token, 0)
            block.append(token)
        elif token == "{":
            depth, block = 1, []
        elif token not in ("\n", ";") and token[0] != "#" and (words or token not in ("then", "else", "fi")):
            words.append(token)
        else:
            words = [_expand(word, env) for word in words] or [token]
            if words[0] == "fi" and frames:
                live = frames.pop()[0]
            elif words[0] == "if":
                frames.append([live, False])  # what is around the if, whether a branch was taken
            if words[0] in ("if", "elif", "else") and frames:
                live, taken = frames[-1]
                if live is True:
                    verdict = taken is not True and (words[0] == "else" or _judge(host, env, words[1:]))
                    live = verdict if taken is not None else verdict and None
                    frames[-1][1] = live if taken is False else taken
            elif live is not False:
                _command(host, env, menu, live, words, block[:-1])
            words, block = [], []
    return menu


def _command(host, env, menu, live, words, block):
    """Runs one command; where live is None, it may be run or not."""
    name, rest = words[0], [word for word in words[1:] if word]
    setting = re.match(r"(\w+)=(.*)", "".join(rest[:1]) if name == "set" else name, re.S)
    loading = re.match(r"(linux|initrd|multiboot|module)(16|efi|2)?$", name)
    if setting:
        env[setting.group(1)] = setting.group(2) if live else UNKNOWN
    elif loading:
        rest, key = tuple(rest[rest[:1] == ["--nounzip"]:]), " " + loading.group(1)
        before = env.get(key, ()) if key == " module" else None
        env[key] = UNKNOWN if not live or before == UNKNOWN else rest if before is None else before + (rest,) * bool(rest)
    elif name in ("menuentry", "submenu"):
        menu.append((block, rest[0], rest[rest.index("--id") + 1] if "--id" in rest[:-1] else rest[0]) if rest and live else None)
    elif name == "blscfg":
        env[" blscfg"] = True
        folder = next((base + "/loader/entries/" for base in BASES if host.names(base + "/loader/entries")), "")
        for each in sorted(host.names(folder), key=lambda each: version_key(each[:-5]), reverse=True):
            keys = _keys(host, folder + each) if each.endswith(".conf") else {}
            if "linux" in keys:
                menu.append(("linux %s %s\ninitrd %s" % (keys["linux"][0], " ".join(keys.get("options", [])[:1]), " ".join(keys.get("initrd", []))),
                             keys.get("title", keys["linux"])[0], each[:-5]))
    elif name == "load_env":
        values = _environment(host, env["prefix"])
        if rest[1:] and not rest[-1].endswith("grubenv"):  # the block in btrfs's header
            shown = host.run(["grub2-editenv", "-", "list"]) or host.run(["grub-editenv", "-", "list"])
            values = dict(re.findall(r"^(\w+)=(.*)", shown.out, re.M)) if shown and not shown.rc else None
        env.update(dict.fromkeys(("next_entry", "saved_entry"), UNKNOWN) if values is None else values)
    elif name in ("source", "configfile", "."):
        env[" files"] = env.get(" files", "") + "x"
        text = host.text(rest[0], LIMIT) if live and rest and rest[0].startswith(env["prefix"]) and len(env[" files"]) < 9 else None
        menu += [None] if text is None else _follow(host, env, text)


def _judge(host, env, words):
    """What [ words ] says: True, False, or None where only GRUB knows."""
    known = words[:1] == ["["] and UNKNOWN not in "".join(words)
    for group in "\n".join(":" + word for word in words[1:-1]).split("\n:-o\n") if known else ():
        parts = [_holds(host, env["prefix"], [word[1:] for word in part.split("\n")]) for part in group.split("\n:-a\n")]
        if all(parts):
            return True
        known = known and False in parts
    return False if known else None


def _holds(host, prefix, words):
    """The same of a condition without -o and -a."""
    if words[0] == "!" and words[1:]:
        return {True: False, False: True}.get(_holds(host, prefix, words[1:]))
    if len(words) == 3 and words[1] in ("=", "==", "!="):
        return (words[0] == words[2]) == (words[1] != "!=")
    if len(words) == 2 and words[0] in ("-n", "-z"):
        return bool(words[1]) == (words[0] == "-n")
    if len(words) == 2 and words[0] in ("-s", "-f", "-e") and words[1].startswith(prefix):
        return host.exists(words[1])
    return bool(words[0]) if len(words) == 1 else None


def _expand(word, env):
    """A word without its quotes, variables put in."""
    def put(match):
        plain, quoted, escaped, name = match.groups()
        if quoted is not None:
            return PIECE.sub(put, quoted.replace("'", "\\'"))
        return env.get(name, "y" if name.startswith("feature_") else "") if name else (plain or escaped or "")
    return PIECE.sub(put, word)
