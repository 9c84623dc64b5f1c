# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd: transient units, as tests/lab/recordings/systemd-run.yml has them of version 252, and how a machine goes down.

A unit in the state is {description, argv, pid: its main process, leader of a session of its own, or null, watcher: the process that waits for its end in
systemd's place, or null, active, result, properties, collect, timer: unit it starts or null}. It ends with the boot.
"""
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid

PROGRAMS = {"systemd-run": "/usr/bin/systemd-run", "systemctl": "/usr/bin/systemctl", "shutdown": "/usr/sbin/shutdown", "reboot": "/usr/sbin/reboot",
            "poweroff": "/usr/sbin/poweroff"}
FLAGS = ("--no-block", "--quiet", "-q", "--collect", "-G", "--wait", "--scope", "--pipe", "-P", "--remain-after-exit", "-r", "--no-ask-password", "--pty", "-t",
         "--same-dir", "-d", "--send-sighup", "--system")
SHORT = {"-u": "--unit", "-p": "--property", "-E": "--setenv", "-q": "--quiet", "-G": "--collect", "-P": "--pipe", "-r": "--remain-after-exit"}
UNITS = {"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600,
         "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400}
LIBVIRT = ["%s.%s" % (daemon, kind) for daemon in ("libvirtd", "virtqemud") for kind in ("service", "socket")]
SITE = {"PYTHONPATH": "/.simulated/fleet/inside/site", "PYTHONDONTWRITEBYTECODE": "1"}  # where stand-ins for Python's modules lie
STOP = 90  # seconds that a unit has to end once it is told to (TimeoutStopSec)
DOWN = {"reboot": "boots", "poweroff": "off", "halt": "off", "kexec": "boots"}


def say(text):
    sys.stderr.write(text + "\n")


def main(machine, name, argv):
    if name == "systemd-run":
        return run(machine, argv)
    if name == "systemctl":
        return control(machine, argv)
    if name == "shutdown":
        return shutdown(machine, argv)
    return down(machine, name, forced=sum(word.count("f") for word in argv if re.match("-[a-z]+$", word)))


def seconds(text):
    """A time span (systemd.time(7)); None where it is none."""
    parts = re.findall(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)", text)
    if not re.match(r"(\s*\d+(\.\d+)?\s*[a-z]*)+$", text) or any(unit not in UNITS for _number, unit in parts):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


# --- transient units ---

def run(machine, argv):
    """systemd-run."""
    options, words = {"--property": [], "--setenv": []}, list(argv)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            name, equals, value = word[:2], "=", word[2:]
        if name in FLAGS:
            options[SHORT.get(name, name)] = True
            continue
        name = SHORT.get(name, name)
        value = value if equals else words.pop(0) if words else ""
        if name in ("--property", "--setenv"):
            options[name].append(value)
        elif name in ("--unit", "--description", "--on-active", "--on-boot", "--slice", "--uid", "--gid", "--working-directory", "--nice", "--service-type",
                      "--timer-property"):
            options[name] = value
        else:
            say("systemd-run: unrecognized option '%s'" % name)
            return 1
    if not words:
        say("Command line to execute required.")
        return 1
    delay = options.get("--on-active", options.get("--on-boot"))
    if delay is not None and seconds(delay) is None:
        say("Failed to parse timer value: %s" % delay)
        return 1
    program = shutil.which(words[0])
    if program is None:
        say("Failed to find executable %s: No such file or directory" % words[0])
        return 1
    name = re.sub(r"\.(service|scope|timer)$", "", options.get("--unit") or "run-%s%s" % ("r" if delay is None else "u", uuid.uuid4().hex))
    service = name + (".scope" if "--scope" in options else ".service")
    argv = [program] + words[1:]
    unit = {"description": options.get("--description", " ".join(argv)), "argv": argv, "pid": None, "watcher": None,
            "active": "inactive" if delay else "active", "result": "success", "properties": options["--property"],
            "collect": "--collect" in options, "timer": None}
    timer = dict(unit, active="active", timer=service)
    with machine.change() as state:
        for one in [service] + [name + ".timer"] * (delay is not None):
            if one in state["units"] or machine.text("/etc/systemd/system/" + one) is not None or machine.text("/lib/systemd/system/" + one) is not None:
                say("Failed to start transient %s unit: Unit %s was already loaded or has a fragment file." % (one.rpartition(".")[2], one))
                return 1
        state["units"][service] = unit
        if delay is not None:
            state["units"][name + ".timer"] = timer
    if "--scope" in options:
        return _scope(machine, service, argv, options)
    pipe = "--pipe" in options
    began = time.time()
    child = _start(machine, service, argv, options, seconds(delay) if delay is not None else None, None if pipe else name + ".timer", pipe)
    if "--quiet" not in options:
        say("Running %s as unit: %s" % ("timer", name + ".timer") if delay is not None else "Running as unit: " + service)
        if delay is not None:
            say("Will run service as unit: " + service)
    if "--wait" in options or pipe:
        return _wait(child, "--quiet" in options, began)
    return 0


def environment(options):
    """What a unit is given of it: nothing of the one that asks for it."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "INVOCATION_ID": uuid.uuid4().hex}
    return dict(env, **dict(SITE, **asked(options)))


def asked(options):
    """What of it was asked for."""
    env = {}
    for text in options["--setenv"] + [text[len("Environment="):].strip('"') for text in options["--property"] if text.startswith("Environment=")]:
        name, equals, value = text.partition("=")
        env[name] = value if equals else os.environ.get(name, "")
    return env


def _scope(machine, service, argv, options):
    """Become the program, in a unit of its own: it keeps the session's terminal, its parent and its environment. Never returns."""
    held, holds = os.pipe()  # which all that the scope is of keep open, unless they close what they do not know
    watcher = os.fork()
    if watcher == 0:
        try:
            os.setsid()
            os.close(holds)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.read(held, 1)
            _ended(machine, service, 0)
        finally:
            os._exit(0)
    with machine.change() as state:
        state["units"][service].update(pid=os.getpid(), watcher=watcher)
    if "--quiet" not in options:
        say("Running scope as unit: " + service)
    sys.stdout.flush()
    os.set_inheritable(holds, True)
    os.execve(argv[0], argv, dict(os.environ, **asked(options)))


def _start(machine, service, argv, options, delay, timer, pipe):
    """Run a unit, which is not of this session: the process that watches it. Its exit status is the unit's."""
    said, says = os.pipe()
    sys.stdout.flush()
    watcher = os.fork()
    if watcher:
        os.close(says)
        os.read(said, 1)  # the unit has been started, or waits for its time, and the state says so, once this returns
        os.close(said)
        return watcher
    status = 255
    try:
        os.setsid()
        os.close(said)
        if not pipe:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
        if delay is not None:
            with machine.change() as state:
                state["units"][timer]["watcher"] = os.getpid()
            os.close(says)
            time.sleep(delay)
        folder = options.get("--working-directory") or next((text[17:] for text in options["--property"] if text.startswith("WorkingDirectory=")), "/")
        limit = next((seconds(text.partition("=")[2]) for text in options["--property"] if text.startswith("RuntimeMaxSec=")), None)
        with machine.change() as state:  # nobody sees it run before it is known as a unit
            unit = state["units"][service]
            state["units"].pop(timer, None)
            process = subprocess.Popen(argv, cwd=folder, env=environment(options), start_new_session=True)
            unit.update(pid=process.pid, watcher=os.getpid(), active="active")
        if delay is None:
            os.close(says)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            status = process.wait()
        _ended(machine, service, status, "--remain-after-exit" in options)
    except OSError:
        status = 200  # EXIT_CHDIR, what else is there
        _ended(machine, service, status)
    finally:
        os._exit(status if status >= 0 else 128 - status)


def _ended(machine, service, status, remain=False):
    """A unit's process has ended: it is forgotten, unless it failed or was told to remain."""
    with machine.change() as state:
        unit = state["units"].get(service)
        if unit is None:
            return
        if status and not unit["collect"]:
            unit.update(active="failed", pid=None, watcher=None, result="signal" if status < 0 else "exit-code")
        elif remain:
            unit.update(pid=None, watcher=None)
        else:
            del state["units"][service]


def _wait(child, quiet, began):
    status = os.waitpid(child, 0)[1]
    status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if not quiet:
        say("Finished with result: %s" % ("success" if status == 0 else "exit-code"))
        say("Main processes terminated with: code=exited/status=%d" % status)
        say("Service runtime: %dms" % (1000 * (time.time() - began)))
    return status


# --- systemctl ---

def control(machine, argv):
    values = [place + 1 for place, word in enumerate(argv) if word in ("-s", "--signal", "-p", "--property")]
    words = [word for place, word in enumerate(argv) if not word.startswith("-") and place not in values]
    flags = [word for word in argv if word.startswith("-")]
    command, names = (words[0], [each if re.search(r"\.\w+$|[*?[]", each) else each + ".service" for each in words[1:]]) if words else ("list-units", [])
    units = machine.state()["units"]
    if command in DOWN:
        return down(machine, command, forced=sum(2 if word == "-ff" else 1 for word in flags if word in ("-f", "--force", "-ff")))
    if command == "is-system-running":
        failed = any(unit["active"] == "failed" for unit in units.values())
        print("degraded" if failed else "running")
        return int(failed)
    if command in ("is-active", "is-failed"):
        found = [units[name]["active"] if name in units else "inactive" for name in names]
        if "-q" not in flags and "--quiet" not in flags:
            print("\n".join(found))
        return 0 if ("active" if command == "is-active" else "failed") in found else 3 if command == "is-active" else 1
    if command in ("start", "restart", "stop", "kill"):
        return _stop(machine, names, command, _signal(argv))
    if command == "reset-failed":
        with machine.change() as state:
            state["units"] = dict((name, unit) for name, unit in state["units"].items() if unit["active"] != "failed" or names and name not in names)
        return 0
    if command == "show":
        return _show(units, names, argv)
    if command == "list-units":
        for name, unit in sorted(units.items()):
            print("  %s loaded %s %s %s" % (name, unit["active"], "failed" if unit["active"] == "failed" else "running", unit["description"]))
        return 0
    if command in ("daemon-reload", "enable", "disable", "mask", "unmask", "status"):
        return 0 if command != "status" or all(name in units for name in names) else 4
    say("Unknown command verb %s." % command)
    return 1


def _signal(argv):
    """The number of the signal that systemctl kill is told to send."""
    said = [word.partition("=")[2] for word in argv if word.startswith("--signal=")] + [
        argv[place + 1] for place, word in enumerate(argv[:-1]) if word in ("-s", "--signal")]
    word = (said or ["15"])[-1]
    return int(word) if word.isdigit() else getattr(signal, word if word.startswith("SIG") else "SIG" + word)


def _stop(machine, names, command, number=signal.SIGTERM):
    """Stop, kill, start or restart units; a pattern means those that there are, if any."""
    status = 0
    for name in names:
        with machine.change() as state:
            daemon = bool(state.get("libvirt")) and any(fnmatch.fnmatch(each, name) for each in LIBVIRT)
            fits = fnmatch.filter(state["units"], name)
            if daemon:
                state["libvirt"]["stopped"] = command == "stop"
            ended = [] if command in ("start", "restart") else [
                (os.kill if each.endswith(".scope") else os.killpg, state["units"][each]["pid"] or state["units"][each]["watcher"]) for each in fits]
            for each in fits if command == "stop" else ():
                unit = state["units"].pop(each, {"timer": None})
                state["units"].pop(unit["timer"], None)
        if not fits and not daemon and not set(name) & set("*?["):
            say("Failed to %s %s: Unit %s not %s." % (command, name, name, "loaded" if command in ("stop", "kill") else "found"))
            status = 1 if command == "kill" else 5
        for send, pid in ended:
            one, end = number, time.monotonic() + STOP
            while pid and _sent(send, pid, one) and command == "stop":  # until it is gone
                one = signal.SIGKILL if time.monotonic() > end else 0
                time.sleep(0.01)
    return status


def _sent(send, pid, number):
    """Send a signal to what a unit runs; whether it is there."""
    try:
        send(pid, number)
    except ProcessLookupError:
        return False
    return True


def _show(units, names, argv):
    wanted = [word.partition("=")[2] for word in argv if word.startswith(("--property=", "-p="))]
    wanted += [argv[place + 1] for place, word in enumerate(argv[:-1]) if word in ("-p", "--property")]
    wanted = ",".join(wanted).split(",") if wanted else []
    for name in names or [""]:
        unit = units.get(name)
        facts = {"Id": name, "LoadState": "loaded" if unit else "not-found", "ActiveState": unit["active"] if unit else "inactive",
                 "SubState": "running" if unit and unit["pid"] else "waiting" if unit and unit["timer"] else
                             "failed" if unit and unit["active"] == "failed" else "dead",
                 "Result": unit["result"] if unit else "success", "MainPID": str(unit["pid"] or 0) if unit else "0"}
        for key, value in facts.items():
            if not wanted or key in wanted:
                print(value if "--value" in argv else "%s=%s" % (key, value))
    return 0


# --- going down ---

def down(machine, how, forced=0):
    """Reboot, or turn the power off, now. Forced twice, nobody looks whether a kernel is loaded for kexec."""
    with machine.change() as state:
        state["power"] = DOWN[how]
        if forced > 1 or how in ("poweroff", "halt"):
            state["kexec"] = None
    machine.say("systemd-shutdown: %s." % {"boots": "Rebooting", "off": "Powering off"}[DOWN[how]])
    machine.stop()
    return 0


def shutdown(machine, argv):
    """shutdown [-r|-h|-P|-c] [TIME] [WORDS]; later than now, a process of its own waits for the time."""
    how, words, flags = "poweroff", [], []
    for word in argv:
        flags += re.findall("[a-zA-Z]", word) if re.match("-[a-zA-Z]+$", word) else [word] if word.startswith("--") else []
        words += [word] * (not word.startswith("-"))
    if "c" in flags:
        _stop(machine, [name for name in machine.state()["units"] if name == "shutdown.timer"], "stop")
        return 0
    if "r" in flags or "--reboot" in flags:
        how = "reboot"
    when = words[0] if words else "+1"
    if when in ("now", "0", "+0"):
        return down(machine, how)
    match = re.match(r"\+?(\d+)$|(\d\d?):(\d\d)$", when)
    if not match:
        say("Failed to parse time specification: " + when)
        return 1
    if match.group(1):
        delay = 60 * int(match.group(1))
    else:
        now = time.localtime()
        delay = ((int(match.group(2)) - now.tm_hour) * 3600 + (int(match.group(3)) - now.tm_min) * 60 - now.tm_sec) % 86400
    say("%s scheduled for %s, use 'shutdown -c' to cancel." % ("Reboot" if how == "reboot" else "Shutdown", time.strftime(
        "%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + delay))))
    return run(machine, ["--quiet", "--unit=shutdown", "--on-active=%d" % delay, "systemctl", how])
