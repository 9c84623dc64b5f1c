# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gate: runs demo, bench and the checks, each in an environment made for it and kept in the cache. `make` calls it.

Checks run two at a time; the output of each goes to a log, which is shown where it failed.
"""
import ast
import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("FLEET_MICROCODE_CACHE") or CHECKOUT / ".cache").absolute()
REQUIREMENTS = CHECKOUT / "tests" / "requirements"
CORES = {  # ansible-core line: first and last Python 3 that runs it, oldest Python 3 of its hosts, get-pip its ansible-test wants
    "2.16": (10, 12, 6, "23_1_2"),
    "2.19": (11, 13, 8, "24_2"),
    "2.21": (12, 14, 9, "25_2"),
}
NEWEST = {"rollout": "wave_by_wave or canary_that_fails or rolled_back"}  # tests/contract/test_rollout.py: which of it the newest ansible-core runs too
LAB_TOOLS = {"mmdebstrap": "mmdebstrap", "ssh": "openssh-client", "unshare": "util-linux"}  # program: the package that has it
GET_PIP = """\
# ansible-test downloads its get-pip from a host that many networks do not reach; Python's own copy of pip serves.
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
"""


class Failed(Exception):
    """A command failed; its output says why."""


def find_pythons():
    """{minor version: program} of each Python 3.6 or newer at hand that can make environments; PATH first, then pyenv."""
    found = {}
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
    names = ["python3"] + ["python3.%d" % minor for minor in range(6, 20)]
    programs = [sys.executable] + [shutil.which(name) for name in names] + sorted(map(str, pyenv.glob("versions/3.*/bin/python3")))
    for program in filter(None, programs):
        code = "import ensurepip, sys, venv; print(sys.version_info[1], sys.executable)"
        done = subprocess.run([program, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, check=False)
        if done.returncode == 0:
            minor, real = done.stdout.strip().split(" ", 1)
            found.setdefault(int(minor), real)
    return dict((minor, found[minor]) for minor in sorted(found) if minor >= 6)


PYTHONS = find_pythons()


def python_of(core):
    """Minor version of the Python that runs this ansible-core: the newest for the newest, the oldest for the others; or None."""
    first, last = CORES[core][:2]
    fit = [minor for minor in PYTHONS if first <= minor <= last]
    return (max if core == max(CORES) else min)(fit) if fit else None


CORES_AT_HAND = [core for core in CORES if python_of(core)]


@contextlib.contextmanager
def locked(name):
    """Hold a lock in the cache against other steps and other runs."""
    path = CACHE / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(str(path), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def fingerprint(path):
    """Text that changes when a requirements file, or one that it includes, does."""
    text = path.read_text()
    return text + "".join(fingerprint(path.parent / name) for name in re.findall(r"^-r (\S+)", text, re.M))


class Step(object):
    """One thing to run: its log, its work folder, and the environment that its commands see."""

    def __init__(self, name, output=None):
        self.name, self.output, self.home = name, output, CACHE / "home"
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=name + "-", dir=str(CACHE / "work")))
        self.env = dict((key, value) for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON", "VIRTUAL_ENV", "XDG_")))
        self.env.update(LC_ALL="C.UTF-8", PYTHONDONTWRITEBYTECODE="1", FLEET_MICROCODE_CACHE=str(CACHE), HOME=str(self.home), ANSIBLE_NOCOWS="1")

    def run(self, *argv, cwd=CHECKOUT, seconds=1800, status=0, **env):
        """Run a command; Failed where it does not exit with this status."""
        argv = [str(word) for word in argv]
        print("+ " + " ".join(argv), file=self.output, flush=True)
        done = subprocess.run(argv, cwd=str(cwd), env=dict(self.env, **env), stdin=subprocess.DEVNULL, stdout=self.output,
                              stderr=self.output and subprocess.STDOUT, timeout=seconds, check=False)
        if done.returncode != status:
            raise Failed("exit status %d of: %s" % (done.returncode, " ".join(argv)))

    def use(self, requirements, minor):
        """From here on, commands are those of an environment with these requirements, made where the cache has none; its bin folder."""
        python = PYTHONS[minor]
        key = hashlib.sha256((fingerprint(REQUIREMENTS / requirements) + python).encode()).hexdigest()[:12]
        name = "%s-py3.%d-%s" % (requirements.replace(".txt", ""), minor, key)
        folder = CACHE / "venv" / name
        with locked(name):
            if not (folder / "complete").exists():
                shutil.rmtree(str(folder), ignore_errors=True)
                self.run(python, "-m", "venv", folder)
                self.pip_settings(folder / "bin" / "python")
                if minor == 6:  # its own pip knows neither today's wheels nor, of all indexes, which versions fit; this is the last for 3.6
                    self.run(folder / "bin" / "python", "-m", "pip", "install", "pip==21.3.1")
                self.run(folder / "bin" / "python", "-m", "pip", "install", "-r", REQUIREMENTS / requirements)
                (folder / "complete").touch()
        self.env["PATH"] = "%s:%s" % (folder / "bin", os.environ.get("PATH", os.defpath))
        return folder / "bin"

    def use_core(self, core):
        """The same for this ansible-core, with a home of its own, which ansible-test fills."""
        self.home = CACHE / "home" / core
        self.env["HOME"] = str(self.home)
        return self.use("ansible-%s.txt" % core, python_of(core))

    def pip_settings(self, python):
        """Hand on pip's settings as they hold for the caller: here the home is another, and ansible-test drops PIP_* variables."""
        listed = subprocess.run([str(python), "-m", "pip", "config", "list"], stdout=subprocess.PIPE, universal_newlines=True, check=True)
        settings = {"cache-dir": str(CACHE / "pip"), "disable-pip-version-check": "1", "quiet": "1"}
        for key, value in re.findall(r"^(?:global|install|:env:)\.([\w-]+)=('.*')$", listed.stdout, re.M):
            settings.setdefault(key, ast.literal_eval(value).replace("\n", "\n    "))
        path = self.home / ".config" / "pip" / "pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.work / "pip.conf"
        draft.touch(0o600)  # an index's address may hold a password
        draft.write_text("[global]\n" + "".join("%s = %s\n" % item for item in sorted(settings.items())))
        draft.replace(path)  # whole at any moment: others may be reading it

    def collection(self):
        """A copy of the checkout without what git ignores, at the path where Ansible looks for collections."""
        target = self.work / "ansible_collections" / "fleet" / "microcode"
        listed = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=str(CHECKOUT), stdout=subprocess.PIPE, check=True)
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            if os.path.lexists(str(CHECKOUT / name)):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(CHECKOUT / name), str(target / name), follow_symlinks=False)
        self.run("git", "init", "-q", cwd=target)  # else tools ask the checkout's git, which ignores all that lies in the cache
        self.env["ANSIBLE_COLLECTIONS_PATH"] = str(self.work)
        return target

    def ansible_test(self, core, command, *argv):
        """Run ansible-test of this ansible-core over the collection."""
        self.use_core(core)
        with locked("ansible-test-" + core):
            seed = self.home / ".ansible" / "test" / "cache" / ("get_pip_%s.py" % CORES[core][3])
            seed.parent.mkdir(parents=True, exist_ok=True)
            seed.write_text(GET_PIP)
            self.run("ansible-test", command, "--local", "--color", "no", "--python", "3.%d" % python_of(core), *argv, cwd=self.collection())
        if "All targets skipped" in pathlib.Path(self.output.name).read_text():
            raise Failed("ansible-test found nothing to check")

    def build(self, folder):
        """Build the tarball into a folder; its path."""
        self.run("ansible-galaxy", "collection", "build", "--force", "--output-path", folder, cwd=self.collection())
        return sorted(folder.glob("fleet-microcode-*.tar.gz"))[-1]


def lint(step):
    """Style and documentation, all offline."""
    step.use("lint.txt", python_of("2.19"))
    copy = step.collection()
    step.run("yamllint", "--strict", ".", cwd=copy)
    step.run("antsibull-changelog", "lint", cwd=copy)
    step.run("ansible-lint", "--offline", "--strict", "--nocolor", cwd=copy)
    step.run("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=dependent",
             "--disallow-unknown-collection-refs", ".", cwd=copy)
    step.run("ansible-builder", "introspect", step.work, cwd=copy)


def sanity(step, core):
    """ansible-test's own checks; its pylint, which takes most of the time, not in the oldest version too."""
    step.ansible_test(core, "sanity", *(["--skip-test", "pylint"] if core == min(CORES) else []))


def integration(step, core):
    """The targets under tests/integration, on this machine: by the Python of this ansible-core and by the oldest at hand that it drives."""
    step.ansible_test(core, "integration")
    oldest = min(minor for minor in PYTHONS if minor >= CORES[core][2])
    if oldest == python_of(core):
        return
    copy = step.collection()
    for target in sorted(copy.glob("tests/integration/targets/microcode_*")):
        step.run("ansible", "localhost", "-e", "ansible_python_interpreter=" + PYTHONS[oldest],
                 "-m", "ansible.builtin.include_role", "-a", "name=" + target.name, ANSIBLE_ROLES_PATH=str(target.parent))


def unit(step, *folders):
    """pytest over these folders."""
    step.run("python", "-m", "pytest", "--basetemp", step.work / "tmp", "-rs", "--color=no", *folders)


def unit_core(step, core):
    """All unit tests of the collection; with the newest alone, of what runs on hosts, which the oldest Python runs too."""
    step.use_core(core)
    unit(step, "tests/unit/plugins", *(["--ignore=tests/unit/plugins/module_utils"] if core != CORES_AT_HAND[-1] and min(PYTHONS) < 10 else []))


def contract(step, core, *folders):
    """Simulated hosts held to the lab's tests and recordings, and with faults; their Python is the oldest at hand that this ansible-core drives."""
    step.use_core(core)
    step.env["FLEET_MICROCODE_HOST_PYTHON"] = PYTHONS[min(minor for minor in PYTHONS if minor >= CORES[core][2])]
    unit(step, *folders)


def unit_oldest(step):
    """What runs on hosts, without Ansible, on the oldest Python at hand."""
    step.use("unit.txt", min(PYTHONS))
    unit(step, "tests/unit/plugins/module_utils")


def package(step, core):
    """The tarball, installed into an empty folder, runs from there."""
    step.use_core(core)
    tarball = step.build(step.work)
    empty = step.work / "empty"
    empty.mkdir()
    step.env["ANSIBLE_COLLECTIONS_PATH"] = str(empty)
    step.run("ansible-galaxy", "collection", "install", "--offline", "-p", empty, tarball, cwd=empty)
    step.run("ansible", "localhost", "-m", "fleet.microcode.microcode_facts", cwd=empty)
    step.run("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter={{ ansible_playbook_python }}",
             "fleet.microcode.assess", cwd=empty)


def importer(step):
    """What Galaxy checks when it imports the tarball."""
    step.use("importer.txt", python_of("2.19"))
    settings = step.work / "importer.cfg"
    settings.write_text("[galaxy-importer]\nRUN_ANSIBLE_TEST = false\nOFFLINE_ANSIBLE_LINT = true\n")
    step.run("python", "-m", "galaxy_importer.main", step.build(step.work), cwd=step.work, GALAXY_IMPORTER_CONFIG=str(settings))


def page(step):
    """The page in a real browser: the machine's Chromium or, as root on Debian, one in a root that is made for it and kept."""
    step.use("unit.txt", python_of("2.19"))
    unit(step, "tests/page")


def root(step):
    """Debian systems made on the spot."""
    step.use_core("2.19")
    unit(step, "tests/debian_root")


def checks():
    """[(name, function, arguments)] of all checks, long ones first; what cannot run here is said."""
    for core in CORES:
        if core not in CORES_AT_HAND:
            say("left out: ansible-core %s, which needs Python 3.%d to 3.%d" % ((core,) + CORES[core][:2]))
    oldest, newest = CORES_AT_HAND[0], CORES_AT_HAND[-1]
    files = sorted((CHECKOUT / "tests/contract").glob("test_*.py"), key=lambda path: -path.stat().st_size)
    rows = [("contract-%s-%s" % (path.stem[5:], oldest), contract, oldest, path) for path in files]
    rows += [("fleet-" + oldest, contract, oldest, "tests/unit/fleet")]
    rows += [("contract-%s-%s" % (path.stem[5:], newest), contract, newest, path, "-k", NEWEST[path.stem[5:]])
             for path in files if path.stem[5:] in NEWEST and newest != oldest]
    rows += [("%s-%s" % (name, core), run, core) for name, run in (("sanity", sanity), ("unit", unit_core), ("integration", integration), ("package", package))
             for core in CORES_AT_HAND]
    if min(PYTHONS) > 6:
        say("left out: Python 3.6, the oldest on hosts; the oldest at hand is 3.%d" % min(PYTHONS))
    if min(PYTHONS) not in map(python_of, CORES_AT_HAND):
        rows.append(("unit-python3.%d" % min(PYTHONS), unit_oldest))
    return rows + [("lint", lint), ("page", page), ("import", importer), ("root", root)]


def say(text):
    print(text, flush=True)


def run_check(name, function, *arguments):
    """Run one check into its log; whether it was good, and pytest's last words."""
    log, started = CACHE / "logs" / (name + ".log"), time.monotonic()
    with open(str(log), "w") as output:
        step = Step(name, output)
        try:
            function(step, *arguments)
            failure = None
        except (Failed, OSError, subprocess.SubprocessError) as exc:
            failure = str(exc)
        finally:
            shutil.rmtree(str(step.work), ignore_errors=True)
    text = log.read_text(errors="replace")
    say("%s%-7s %-25s %4d s" % (text if failure else "", "FAILED" if failure else "ok", name, time.monotonic() - started))
    if failure:
        say("        " + failure)
    return failure is None, re.findall(r"^SKIPPED .*|^.*\b\d+ (?:passed|failed|error).* in [\d.]+s.*", text, re.M)


def test(only):
    """Run checks: all that need nothing special, or those whose names begin with one of these words."""
    started = time.monotonic()
    between = CORES_AT_HAND[1:-1]  # the oldest and the newest tell
    wanted = [row for row in checks() if any(row[0].startswith(word) for word in only)
              or not only and row[0] not in ("import", "root") and not row[0].endswith(tuple(between))]
    if not wanted:
        sys.exit("no check is called %s" % " or ".join(only))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda row: run_check(*row), wanted))
    failed = sum(not good for good, _words in results)
    say("%d checks, %d failed, %d s; logs: %s" % (len(results), failed, time.monotonic() - started, CACHE / "logs"))
    lines = [line for _good, words in results for line in words]
    for line in sorted(set(lines), key=lambda line: (not line.startswith("SKIPPED"), lines.index(line))):
        say(line)
    sys.exit(1 if failed else 0)


def demo(step):
    """Assess the simulated fleet, plan it, and roll the plan out: a canary fails, the rollout stops by itself, and the next run does what is left."""
    step.use_core(CORES_AT_HAND[-1])
    simulated = step.collection() / "tests" / "fleet"
    hosts = step.work / "hosts"
    step.run("python", simulated / "simulated.py", hosts, PYTHONPATH=str(step.work))
    step.env.update(ANSIBLE_DISPLAY_OK_HOSTS="false", ANSIBLE_DISPLAY_SKIPPED_HOSTS="false", ANSIBLE_PIPELINING="true",
                    ANSIBLE_CONNECTION_PLUGINS=str(simulated / "connection"))
    pages = [CACHE / "demo.html", CACHE / "demo-plan.html", CACHE / "demo-rollout.html"]
    plan = CACHE / "demo-plan.json"
    try:
        step.run("ansible-playbook", "-i", hosts / "inventory.yml", "-e", "assess_report=%s assess_page=%s" % (CACHE / "demo.json", pages[0]),
                 "fleet.microcode.assess")
        step.run("ansible-playbook", "-i", hosts / "inventory.yml", "-e", "plan_late=allowed plan_path=%s plan_page=%s" % (plan, pages[1]),
                 "-e", '{"plan_domains": {"rack": 2, "pool": 2}, "plan_explain": ["sles15-hana", "fedora-build", "xen-node3"]}', "fleet.microcode.plan")
        made = json.loads(plan.read_text())
        canary = next(name for name in made["waves"][0]["hosts"] if made["hosts"][name]["action"] == "late")
        rollout = ["ansible-playbook", "-i", hosts / "inventory.yml", "-e", "rollout_plan=%s rollout_digest=%s" % (plan, made["digest"]),
                   "-e", "rollout_path=%s rollout_page=%s early_guests=save" % (CACHE / "demo-rollout.json", pages[2]),
                   "--limit", "!pve-node1,!gentoo-ws", "fleet.microcode.rollout"]  # a person must see to Proxmox VE's guests, and to an image of microcode
        for fault, status in (('{"load": {"fails": "Failed to update microcode. (err: Input/output error)"}}', 2), ('{"load": null}', 0)):
            step.run("python", simulated / "simulated.py", "fault", hosts, canary, fault, PYTHONPATH=str(step.work))
            step.run(*rollout, status=status)
    finally:
        step.run("python", simulated / "simulated.py", "stop", hosts, PYTHONPATH=str(step.work))
    say("The fleet, its plan and the rollout as pages: %s" % " ".join(page.as_uri() for page in pages))


def bench(step, *arguments):
    """Figures, side by side with other tools; how large the modules are is measured with every ansible-core."""
    others = [step.use_core(core) for core in CORES_AT_HAND if core != "2.19"]
    step.use_core("2.19")
    step.run("python", "tests/bench/bench.py", *arguments, *others)


def lab(step, *arguments):
    """Real Xen and Linux on an emulated processor; arguments are pytest's. Whatever is missing on this Debian is installed."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise Failed("the lab makes Debian systems, which takes root and Debian's apt; run it as root on Debian")
    missing = [package for program, package in LAB_TOOLS.items() if not shutil.which(program)]
    if missing:
        step.run("apt-get", "-qq", "update")
        step.run("apt-get", "-qq", "install", "--no-install-recommends", *missing)
    step.use("lab.txt", python_of("2.19"))
    step.collection()
    images = ["bookworm-xen"] if "smoke" in arguments else []
    step.run("python", "tests/lab/build.py", *images, seconds=3 * 3600, PYTHONPATH=str(step.work))
    step.run("python", "-m", "pytest", "--basetemp", step.work / "tmp", "-rs", "-v", "--color=no", "--durations=0", "--durations-min=5",
             "-n", min(os.cpu_count(), 4), "--dist", "worksteal", "tests/lab",  # machines know nothing of each other; each keeps one CPU busy
             *(arguments or ["-m", "not on_demand"]), seconds=6 * 3600)


def build(step):
    """The tarball, in dist/."""
    step.use_core("2.19")
    (CHECKOUT / "dist").mkdir(exist_ok=True)
    say(str(step.build(CHECKOUT / "dist")))


def main(command, *words):
    if "2.19" not in CORES_AT_HAND:
        sys.exit("found no Python 3.11 to 3.13 with venv and ensurepip (on Debian: apt-get install python3-venv); all else is made with it")
    for name in ("logs", "work"):
        (CACHE / name).mkdir(parents=True, exist_ok=True)
    for left in (CACHE / "work").iterdir():  # by a run that was killed
        if left.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(str(left), ignore_errors=True)
    if command == "test":
        test(words)
    step = Step(command)
    try:
        {"demo": demo, "bench": bench, "lab": lab, "build": build}[command](step, *words)
    except Failed as exc:
        sys.exit(str(exc))
    finally:
        shutil.rmtree(str(step.work), ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
