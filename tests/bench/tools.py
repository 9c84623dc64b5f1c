# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tools that the bench compares with: those of this machine, else Debian's packages unpacked into the cache, which needs no root."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from ansible_collections.fleet.microcode.tests.gate import debian

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NEEDRESTART = ("needrestart", "libintl-perl", "libmodule-find-perl", "libproc-processtable-perl", "libsort-naturally-perl", "libterm-readkey-perl")
ABSOLUTE = ("usr/share/perl5/NeedRestart/uCode/Intel.pm", "usr/lib/needrestart/iucode-scan-versions", "etc/needrestart/needrestart.conf")


def unpacked(packages):
    """Folder into which these packages were unpacked; fetched once for a set of sources. Raises debian.Unavailable."""
    lines = debian.sources()
    root = debian.CACHE / ("debian-" + hashlib.sha256("\n".join(lines + sorted(packages)).encode()).hexdigest()[:12])
    if root.is_dir():
        return root
    debian.CACHE.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="debian-", dir=str(debian.CACHE)))
    try:
        (work / "sources.list").write_text("\n".join(lines) + "\n")
        (work / "settings").write_text(debian.SETTINGS.format(work))
        for folder in ("lists/partial", "cache/archives/partial", "root"):
            (work / folder).mkdir(parents=True)
        apt = ["apt-get", "-q", "-c", str(work / "settings")]
        run(apt + ["update"], work)
        run(apt + ["download"] + list(packages), work)
        for package in sorted(work.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(work / "root")], work)
        for name in ABSOLUTE:  # needrestart's own files name each other by absolute paths
            path = work / "root" / name
            if path.exists():
                text = path.read_text()
                for folder in ("/usr/lib/needrestart", "/etc/needrestart"):
                    text = text.replace(folder, str(root) + folder)
                path.write_text(text)
        (work / "root").rename(root)
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
    return root


def run(argv, cwd):
    """Run one step of the fetching; debian.Unavailable where it fails."""
    try:
        done = subprocess.run(argv, cwd=str(cwd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise debian.Unavailable("%s: %s" % (" ".join(argv), exc))
    if done.returncode:
        raise debian.Unavailable("%s: %s" % (" ".join(argv[:1] + argv[-2:]), done.stdout.strip()[-300:]))


def needrestart():
    """{"perl": [perl and where its modules lie], "program": [...], "settings": the file that its Intel check sources}. Raises debian.Unavailable."""
    program, settings = shutil.which("needrestart", path=PATH), "/etc/needrestart/iucode.sh"
    if program and os.path.exists(settings):
        return {"perl": ["perl"], "program": [program], "settings": settings}
    if not shutil.which("perl", path=PATH):
        raise debian.Unavailable("perl, in which it is written, is not installed")
    root = unpacked(NEEDRESTART)
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
