# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ucode=scan, by which Xen looks for microcode in dom0's initrd: in GRUB's settings, from which the menu is made anew, or in EFI's xen.cfg (XEN docs)."""
import os
import re
import tempfile
from collections import namedtuple

from .. import atomic, boot
from .kept import Failed, Instead, Refused

OPTION = "ucode=scan"
SETTINGS, PARTS = "/etc/default/grub", "/etc/default/grub.d"
OURS = PARTS + "/zz-fleet-microcode.cfg"  # read after Debian's xen.cfg, which may set the variable anew
NAME = "GRUB_CMDLINE_XEN_DEFAULT"
DROP_IN = ("# Xen is to look for microcode in dom0's initrd. The module microcode_early_load wrote this; its state=absent takes it away.\n"
           '%s="$%s %s"\n' % (NAME, NAME, OPTION))
MENUS = (("/boot/grub2/grub.cfg", "grub2-mkconfig"), ("/boot/grub/grub.cfg", "grub-mkconfig"))  # update-grub is the latter

Edit = namedtuple("Edit", "path old new before after")  # old, new: bytes or None for no file; before, after: the line that was changed, before may be None
Menu = namedtuple("Menu", "path text")  # text: of the new one, bytes


def is_set(entry):
    """Whether Xen scans in this boot entry."""
    return (entry["ucode"] or boot.xen_ucode(entry["xen_args"])) == "scan"


def check(entry, version):
    """Refused where the option must not be set in this boot entry; version: Xen's as a tuple, True where not known."""
    said = entry["ucode"] or boot.xen_ucode(entry["xen_args"])
    if entry["xen_args"] is None:
        raise Refused("the options that the boot loader gives Xen are known to it alone, so what would be changed is not known; set %s by hand" % OPTION)
    if version is not True and version < (4, 4):
        raise Refused("Xen %d.%d does not know %s; it takes ucode=<number> of a module that is the vendor's file, which is not done here: add that by hand"
                      % (version + (OPTION,)))
    if said not in ("none", "scan"):
        raise Refused("Xen's options have ucode= already, so that it loads %s; somebody decided that: take it out, then this sets %s"
                      % ({"off": "none"}.get(said, "the file %s" % said if said.startswith("/") else "module %s" % said), OPTION))


# --- edits ---

def add(host, system, family, entry):
    """The Edit that sets the option. Refused."""
    if system == "xen.efi":
        return _xen_cfg(host, entry)
    if family in ("debian", "ubuntu"):
        return Edit(OURS, host.read(OURS), DROP_IN.encode(), None, DROP_IN)
    data = host.read(SETTINGS)
    if data is None:
        raise Refused("%s is not there, from which GRUB's menu would be made; set %s where this host's menu comes from (XCP-ng, XenServer: "
                      "/opt/xensource/libexec/xen-cmdline --set-xen %s)" % (SETTINGS, OPTION, OPTION))
    lines = re.findall(br"^[^#\n]*\b%s\b.*\n?" % NAME.encode(), data, re.M)
    if not lines:
        line = b"\n" * (data[-1:] not in b"\n") + b'%s="%s"\n' % (NAME.encode(), OPTION.encode())
        return _edit(SETTINGS, data, data + line, None, line)
    plain = re.match(br'((?:export )?%s=)(?:"([^"\\$`\n]*)"|\'([^\'\n]*)\'|([\w=,.:-]*))([ \t]*(?:#.*)?\n?)$' % NAME.encode(), lines[0])
    if len(lines) > 1 or not plain:
        raise Refused("%s sets %s in a way that is not plainly one text; add %s to it by hand, then run this again" % (SETTINGS, NAME, OPTION))
    head, double, single, bare, tail = plain.groups()
    quote = b"'" if single is not None else b'"'
    line = head + quote + ((double or single or bare or b"") + b" " + OPTION.encode()).lstrip() + quote + tail
    return _edit(SETTINGS, data, data.replace(lines[0], line), lines[0], line)


def _edit(path, old, new, before, after):
    return Edit(path, old, new, None if before is None else before.decode("latin-1"), after.decode("latin-1"))


def _xen_cfg(host, entry):
    """The Edit of xen.cfg, which lies beside Xen: options= of the section that is the default's, or of [global], which it falls back to."""
    path = entry["xen"][:-len("efi")] + "cfg"
    data = host.read(path)
    lines = (data or b"").splitlines(True)
    sections, at, name = {b"": {}}, {}, b""
    for number, line in enumerate(lines):
        match = re.match(br"[ \t]*(?:\[([^]\n]+)\]|(\w+)=[ \t]*(.*))", line)
        if match:
            name = match.group(1) or name
            sections.setdefault(name, {})
            at.setdefault(name, number)
            if match.group(2):
                sections[name].setdefault(match.group(2), (number, match.group(3).strip()))
    default = sections.get(b"global", {}).get(b"default", (None, b""))[1]
    place = sections.get(default, {}).get(b"options") or sections.get(b"global", {}).get(b"options")
    if place:
        number, line = place[0], lines[place[0]]
        text = line.rstrip(b"\r\n")
        new = text.rstrip() + b" " + OPTION.encode() + line[len(text):]
        return _edit(path, data, b"".join(lines[:number] + [new] + lines[number + 1:]), line, new)
    if default not in at:
        raise Refused("%s has no section %s, so where Xen's options belong is not known; add options=%s by hand" % (path, default.decode("latin-1"), OPTION))
    new, number = b"options=%s\n" % OPTION.encode(), at[default] + 1
    return _edit(path, data, b"".join(lines[:number] + [new] + lines[number:]), None, new)


def remove(host, known):
    """The Edit that takes back what the record says we set, or None where that is no longer there; somebody else has changed it then."""
    data, after, before = host.read(known["path"]), known["after"].encode("latin-1"), known["before"]
    if data is None or after not in data:
        return None
    if known["path"] == OURS and data == after:
        return Edit(OURS, data, None, known["after"], "")
    old = b"" if before is None else before.encode("latin-1")
    return Edit(known["path"], data, data.replace(after, old, 1), known["after"], before or "")


def apply(edit, back=False):
    """Write the file as the edit has it, or as it was."""
    data = edit.old if back else edit.new
    if data is not None:
        os.makedirs(os.path.dirname(edit.path), exist_ok=True)
        mode = os.stat(edit.path).st_mode & 0o7777 if os.path.exists(edit.path) else 0o644
        atomic.replace(os.path.realpath(edit.path), data, mode)
    elif os.path.exists(edit.path):
        os.unlink(edit.path)
        atomic.sync_folder(os.path.dirname(edit.path))


# --- the menu ---

def menu(host, tools):
    """The Menu as the distribution's command makes it of the settings as they are now; it is not in place yet. tools: a Host with time for it. Refused."""
    for path, program in MENUS:
        present = host.read(path)
        if present is None:
            continue
        with tempfile.TemporaryDirectory(prefix="fleet-microcode-") as folder:
            made = folder + "/grub.cfg"
            done = tools.run([program, "-o", made])  # its output would have what settings print, too (Debian 11: grub.d/xen.cfg; LAB)
            text = host.read(made) or b""
        if done is None or done.rc or b"menuentry" not in text:
            raise Refused("%s, which would make the boot menu, %s; nothing can be changed in the menu before that is mended" % (
                program, "does not come to an end, or is not there (%s)" % "; ".join(tools.warnings[-1:]) if done is None
                else "ends with %d: %s" % (done.rc, " / ".join(done.err.strip().splitlines()[-3:]))))
        return Menu(os.path.realpath(path), text)
    raise Refused("GRUB's menu is neither %s; set %s by hand where this host's menu comes from" % (" nor ".join(each[0] for each in MENUS), OPTION))


def compare(host, entry, made):
    """Refused where the new menu would change more than ucode=: by default boot something else, or lose entries that are in the present one."""
    instead = Instead(host, {made.path: made.text})
    differs = differences(entry, boot.default_entry(instead))
    if differs:
        raise Refused("the menu that GRUB's tools make is not the one that is there: by default it would boot %s; somebody edited %s by hand, or changed "
                      "settings since: put that into the settings or into /etc/grub.d/40_custom, make the menu anew and look, then run this again"
                      % (differs if differs != "?" else "what is not known (%s)" % "; ".join(instead.warnings), made.path))
    lost = _titles(host.read(made.path).decode("utf-8", "replace")) - _titles(made.text.decode("utf-8", "replace"))
    lost = sorted(each for each in lost if not any(not host.exists("/boot/vmlinuz-" + version) for version in re.findall(r"Linux (\d\S+)", each)))
    if lost:
        raise Refused("%s has entries that a new menu would lose: %s; put them into /etc/grub.d/40_custom, then run this again" % (made.path, ", ".join(lost)))


def _titles(text):
    return set(title for _quote, title in re.findall(r"""^\s*(?:menuentry|submenu)\s+(['"])(.*?)\1""", text, re.M))


def differences(before, after):
    """What else than ucode= differs between two boot entries, in words; "?" where one is not known, None where nothing does."""
    if before is None or after is None:
        return "?"
    for key in ("xen", "kernel", "initrds", "args", "xen_args", "ucode"):
        old, new = before[key], after[key]
        if key in ("args", "xen_args"):
            old, new = [[word for word in (text or "").split() if key == "args" or not word.startswith("ucode=")] for text in (old, new)]
        if old != new:
            old, new = [" ".join(each) if isinstance(each, list) else each for each in (old, new)]
            return "%s %s rather than %s" % ({"args": "Linux with", "xen_args": "Xen with", "initrds": "the initrd"}.get(key, "the " + key), new, old)
    return None


def put(host, entry, made, wanted, folder):
    """Write the menu, once its default entry is the present one apart from ucode=, which is set or not as wanted says. Failed, Refused: it is not written."""
    compare(host, entry, made)
    instead = Instead(host, {made.path: made.text})
    if wanted and not is_set(boot.default_entry(instead)):
        raise Failed("with %s in GRUB's settings the new menu's default entry still does not have it: somebody's settings win (%s), or the menu comes from "
                     "elsewhere; set it by hand" % (OPTION, NAME))
    checker, new = host.which("grub-script-check"), folder + "/grub.cfg.new"
    if checker:  # as grub-mkconfig does before it lets a menu count
        atomic.replace(new, made.text)
        done = host.run([checker, new])
        os.unlink(new)
        if done is None or done.rc:
            raise Failed("grub-script-check takes the new menu for damaged: %s" % (done.err.strip() if done else "; ".join(host.warnings[-1:])))
    if host.read(made.path) != made.text:
        atomic.replace(made.path, made.text, os.stat(made.path).st_mode & 0o7777)
