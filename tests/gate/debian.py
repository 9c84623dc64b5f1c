# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's microcode packages and iucode_tool, fetched with the machine's own apt and unpacked into the cache; needs no root.

apt works on lists and folders of its own: nothing of the machine's changes, nothing is installed.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("FLEET_MICROCODE_CACHE") or CHECKOUT / ".cache")
PACKAGES = ("intel-microcode", "amd64-microcode", "iucode-tool")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SETTINGS = """\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "{0}";
Dir::State::lists "{0}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{0}/cache";
APT::Sandbox::User "root";
APT::Architecture "amd64";
APT::Architectures "amd64";
Acquire::Languages "none";
"""


class Unavailable(Exception):
    """Debian's packages cannot be had here; the text says why and what would change it."""


def _run(argv, cwd):
    try:
        done = subprocess.run(argv, cwd=str(cwd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=300, check=False)
    except OSError as exc:
        raise Unavailable("Debian's microcode packages: %s cannot be run (%s); they are fetched on Debian with apt" % (argv[0], exc.strerror))
    except subprocess.TimeoutExpired:
        raise Unavailable("Debian's microcode packages: no end of %s after 300 s; is the archive reachable?" % " ".join(argv))
    return done.returncode, done.stdout


def sources():
    """Lines of a sources.list: the machine's own Debian archives, with the component that holds firmware."""
    if not os.path.exists(KEYRING):
        raise Unavailable("Debian's microcode packages: %s is missing, so this is no Debian; run the tests on one" % KEYRING)
    # apt reads every form of sources for us; it names all archives, and the origin of those whose lists were fetched before
    _status, listed = _run(["apt-get", "-q", "update", "--print-uris"], "/")
    _status, fetched = _run(["apt-get", "-q", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)", "Created-By: Packages"], "/")
    origins = dict(((uri.rstrip("/"), suite), origin) for uri, suite, origin in re.findall(r"^(\S+) (\S+) (.*)$", fetched, re.M))
    archives = set()
    for uri, suite in re.findall(r"^'(\S+?)/*/dists/(\S+)/InRelease'", listed, re.M):
        usual = re.match(r"\w+:/*[^/]+/debian(-security)?$", uri)
        if origins.get((uri, suite), "Debian" if usual else None) == "Debian":
            archives.add("deb [signed-by=%s] %s %s main non-free-firmware" % (KEYRING, uri, suite))
    if not archives:
        raise Unavailable("Debian's microcode packages: apt's sources name no Debian archive; add one to /etc/apt, or run apt-get update once where "
                          "there is one")
    return sorted(archives)


def microcode():
    """Folder (pathlib.Path) that holds lib/firmware/intel-ucode, lib/firmware/amd-ucode and usr/sbin/iucode_tool.

    Fetched once for a set of sources, then kept in the cache. Raises Unavailable.
    """
    lines = sources()
    root = CACHE / ("debian-" + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12])
    if root.is_dir():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="debian-", dir=str(CACHE)))
    try:
        (work / "sources.list").write_text("\n".join(lines) + "\n")
        (work / "settings").write_text(SETTINGS.format(work))
        for folder in ("lists/partial", "cache/archives/partial", "root"):
            (work / folder).mkdir(parents=True)
        apt = ["apt-get", "-q", "-c", str(work / "settings")]
        said = _run(apt + ["update"], work)[1]  # one archive of several may fail; what matters is the next line
        status, text = _run(apt + ["download"] + list(PACKAGES), work)
        if status:
            raise Unavailable("Debian's microcode packages could not be downloaded; is the archive reachable?\n" + said + text)
        for package in work.glob("*.deb"):
            status, text = _run(["dpkg-deb", "-x", str(package), str(work / "root")], work)
            if status:
                raise Unavailable("Debian's microcode packages: %s cannot be unpacked: %s" % (package.name, text))
        if not (work / "root" / "lib").exists():  # a release whose packages hold usr/lib alone
            (work / "root" / "lib").symlink_to("usr/lib")
        try:
            (work / "root").rename(root)
        except OSError:  # another run was faster
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
    return root
