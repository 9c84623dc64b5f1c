# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tools that the bench compares with: those of this machine, else Debian's packages unpacked into the cache, which needs no root."""
import os
import shutil

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NEEDRESTART = ("needrestart", "libintl-perl", "libmodule-find-perl", "libproc-processtable-perl", "libsort-naturally-perl", "libterm-readkey-perl")
ABSOLUTE = ("usr/share/perl5/NeedRestart/uCode/Intel.pm", "usr/lib/needrestart/iucode-scan-versions", "etc/needrestart/needrestart.conf")


def unpacked(packages):
    """Folder into which these packages were unpacked; fetched once for a set of sources. Raises debian.Unavailable."""
    lines = debian.sources()
    return kept("bench-" + packages[0], lines + sorted(packages), lambda folder: debian.unpack(folder, lines, *packages))


def needrestart():
    """{"perl": [perl and where its modules lie], "program": [...], "settings": the file that its Intel check sources}. Raises debian.Unavailable."""
    program, settings = shutil.which("needrestart", path=PATH), "/etc/needrestart/iucode.sh"
    if program and os.path.exists(settings):
        return {"perl": ["perl"], "program": [program], "settings": settings}
    if not shutil.which("perl", path=PATH):
        raise debian.Unavailable("perl, in which it is written, is not installed")
    root = unpacked(NEEDRESTART)
    for path in (root / name for name in ABSOLUTE if (root / name).exists()):  # needrestart's own files name each other by absolute paths
        text = path.read_text()
        for folder in ("/usr/lib/needrestart", "/etc/needrestart"):
            text = text.replace(folder, str(root) + folder)
        if str(root) not in path.read_text():
            path.write_text(text)
    perl = ["perl"] + ["-I%s" % folder for folder in [root / "usr/share/perl5"] + sorted(root.glob("usr/lib/*/perl5/*"))]
    return {"perl": perl, "program": perl + [str(root / "usr/sbin/needrestart"), "-c", str(root / "etc/needrestart/needrestart.conf")],
            "settings": str(root) + settings}


def spectre():
    """argv of spectre-meltdown-checker. Raises debian.Unavailable."""
    program = shutil.which("spectre-meltdown-checker", path=PATH)
    return [program or str(unpacked(["spectre-meltdown-checker"]) / "usr/bin/spectre-meltdown-checker")]


def microcode():
    """(folder of Debian's microcode packages, path of iucode_tool). Raises debian.Unavailable."""
    root = debian.microcode()
    return root, shutil.which("iucode_tool", path=PATH) or str(root / "usr/sbin/iucode_tool")
