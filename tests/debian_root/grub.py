# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What GRUB itself boots by default: GRUB as a program (grub-emu of the root) follows the root's own grub.cfg and says what it would load."""
import os
import pty
import re
import select
import subprocess
import time

LOADERS = ("linux", "initrd", "multiboot2", "module2")
# grub-emu has no loaders of its own for Xen: functions take the place of all of them. It wraps lines at 80 columns: one line a word.
FUNCTIONS = "".join("function said_{0} {{\n echo '[{0}'\n for word in \"$@\"; do echo \"[+${{word}}\"; done\n echo '[-'\n}}\n".format(name) for name in LOADERS)
SECONDS = 60


def boots(root):
    """[(command, [word, ...]), ...] of the entry that GRUB boots if nobody presses a key."""
    folder, place = root / "boot" / "grub", root / "boot" / "grub-emu"
    place.mkdir(exist_ok=True)
    text = re.sub(r"^(\s*)(%s)(?=\s)" % "|".join(LOADERS), r"\1said_\2", (folder / "grub.cfg").read_text(), flags=re.M)
    text = re.sub(r"timeout=\d+", "timeout=0", text.replace("gfxterm", "console"))
    (place / "grub.cfg").write_text("grub_platform=pc\n" + FUNCTIONS + text)
    (place / "grubenv").write_bytes((folder / "grubenv").read_bytes())
    said = _talk(root, ["/usr/bin/grub-emu", "-d", "/boot/grub-emu"])
    found = []
    for kind, word in re.findall(r"^\[([+-]|(?=\w))(.*)$", said, re.M):
        if kind == "+":
            found[-1][1].append(word)
        elif not kind:
            found.append((word, []))
    assert found, "GRUB loads nothing; it says: " + said[-2000:]
    return found


def _talk(root, argv):
    """What a program in the root shows on its terminal, up to where it waits for a key."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(["chroot", str(root)] + argv, env={"TERM": "vt100", "PATH": "/usr/sbin:/usr/bin"}, stdin=its_end, stdout=its_end,
                               stderr=its_end, start_new_session=True)
    os.close(its_end)
    shown, deadline = b"", time.monotonic() + SECONDS
    try:
        while b"Press any key" not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536)
    except OSError:  # the program has ended
        pass
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.decode("utf-8", "replace"))
