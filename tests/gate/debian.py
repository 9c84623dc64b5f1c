# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's archives through the machine's own apt, on lists and folders of its own: nothing of the machine's changes, nothing is installed.

Packages need no root to be fetched and unpacked; whole systems do.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from ansible_collections.fleet.microcode.tests.gate.cache import kept

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


def _run(argv, cwd, seconds=300):
    try:
        done = subprocess.run(argv, cwd=str(cwd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=seconds, check=False)
    except OSError as exc:
        raise Unavailable("Debian's packages: %s cannot be run (%s); they are fetched on Debian with apt" % (argv[0], exc.strerror))
    except subprocess.TimeoutExpired:
        raise Unavailable("Debian's packages: no end of %s after %d s; is the archive reachable?" % (" ".join(argv), seconds))
    return done.returncode, done.stdout


def sources(suite=None):
    """Lines of a sources.list: the machine's own Debian archives, with the components that hold firmware and its tools; of another suite if named."""
    if not os.path.exists(KEYRING):
        raise Unavailable("Debian's packages: %s is missing, so this is no Debian; run the tests on one" % KEYRING)
    # apt reads every form of sources for us; it names all archives, and the origin of those whose lists were fetched before
    _status, listed = _run(["apt-get", "-q", "update", "--print-uris"], "/")
    _status, fetched = _run(["apt-get", "-q", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)", "Created-By: Packages"], "/")
    origins = dict(((uri.rstrip("/"), release), origin) for uri, release, origin in re.findall(r"^(\S+) (\S+) (.*)$", fetched, re.M))
    archives = set()
    for uri, release in re.findall(r"^'(\S+?)/*/dists/(\S+)/InRelease'", listed, re.M):
        usual = re.match(r"\w+:/*[^/]+/debian(-security)?$", uri)
        if origins.get((uri, release), "Debian" if usual else None) != "Debian" or suite == "sid" and re.search("-security|-updates", release):
            continue
        release = re.sub("^[^-]+", suite, release) if suite else release
        components = "main contrib non-free" if release.startswith("bullseye") else "main contrib non-free-firmware"
        archives.add("deb [signed-by=%s] %s %s %s" % (KEYRING, uri, release, components))
    if not archives:
        raise Unavailable("Debian's packages: apt's sources name no Debian archive; add one to /etc/apt, or run apt-get update once where there is one")
    return sorted(archives)


def fetch(folder, lines, *packages, source=False):
    """Download packages, or the sources of one, into a folder."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="apt-", dir=str(folder)))
    try:
        (work / "sources.list").write_text("\n".join(lines + [re.sub("^deb ", "deb-src ", line) for line in lines if source]) + "\n")
        (work / "settings").write_text(SETTINGS.format(work))
        for name in ("lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        apt = ["apt-get", "-q", "-c", str(work / "settings")]
        said = _run(apt + ["update"], folder)[1]  # one archive of several may fail; what matters is the next line
        status, text = _run(apt + (["source", "--download-only"] if source else ["download"]) + list(packages), folder, 900)
        if status:
            raise Unavailable("Debian's packages could not be downloaded (%s); is the archive reachable?\n%s" % (", ".join(packages), said + text))
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


def unpack(folder, lines, *packages):
    """Fetch packages and unpack them into a folder."""
    fetch(folder, lines, *packages)
    for package in folder.glob("*.deb"):
        status, text = _run(["dpkg-deb", "-x", str(package), str(folder)], folder)
        package.unlink()
        if status:
            raise Unavailable("Debian's packages: %s cannot be unpacked: %s" % (package.name, text))


def bootstrap(target, lines, packages, options=()):
    """Install a Debian system with these packages into an empty folder; needs root and mmdebstrap, whose further options may be given."""
    if not shutil.which("mmdebstrap"):
        raise Unavailable("Debian systems are made with mmdebstrap, which is not here; apt-get install mmdebstrap brings it")
    said = subprocess.run(["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
    settings = re.findall(r"^Acquire::(?:Check-(?:Valid-Until|Date)|https?::Proxy\S*) .*(?=;$)", said, re.M)  # how this machine reaches its archives
    argv = ["nice", "mmdebstrap", "--mode=root", "--variant=minbase", "--verbose", "--dpkgopt=force-unsafe-io", "--include=" + ",".join(packages)]
    argv += ["--aptopt=" + line for line in settings + ["Acquire::Languages \"none\""]] + list(options)
    try:
        done = subprocess.run(argv + ["", str(target), "-"], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=1500, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("Debian systems: no end of mmdebstrap after 1500 s; is the archive reachable?")
    if done.returncode:
        raise Unavailable("Debian systems: mmdebstrap failed; is the archive reachable?\n" + done.stdout[-4000:])
    for name in ("proc", "sys", "dev"):  # mmdebstrap leaves what it cannot unmount, because somebody looks at it, and only says so
        while os.path.ismount(str(target / name)):
            subprocess.run(["umount", "--recursive", "--lazy", str(target / name)], check=True)


def microcode():
    """Folder (pathlib.Path) that holds lib/firmware/intel-ucode, lib/firmware/amd-ucode and usr/sbin/iucode_tool.

    Fetched once for a set of sources, then kept in the cache. Raises Unavailable.
    """
    lines = sources()

    def make(folder):
        unpack(folder, lines, *PACKAGES)
        if not (folder / "lib").exists():  # a release whose packages hold usr/lib alone
            (folder / "lib").symlink_to("usr/lib")
    return kept("microcode", lines, make)
