# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many real OpenSSH servers a second are looked at: the inventory, beside Ansible's own raw and setup, in turns, on the same servers.

    python sweep.py [HOSTS ...]            these numbers of hosts; without any 10, 100 and 500
    python sweep.py relay PORT TO SECONDS ADDRESS ...    hand on connections to port TO, each way so much later; until standard input ends

All of them are on one machine with the servers, and share its cores: so the CPU time a host is told apart, of who looks and of the servers. Ansible has its
best settings: pipelining, so many forks that more bring nothing, no ControlPersist (each host is gone to once), keys and host keys like ours.
"""
import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":  # as bench.py, which imports this, has done it
    HERE = pathlib.Path(__file__).resolve().parent
    WORK = tempfile.mkdtemp(prefix="sweep-", dir=os.environ.get("FLEET_MICROCODE_CACHE"))
    os.makedirs(WORK + "/ansible_collections/fleet")
    os.symlink(HERE.parents[1], WORK + "/ansible_collections/fleet/microcode")
    sys.path.insert(0, WORK)

from ansible_collections.fleet.microcode.tests.fleet import openssh  # noqa: E402, pylint: disable=wrong-import-position

FORKS, DELAY = 40, 0.05  # seconds there and back


def run(argv, env):
    """(seconds, seconds of CPU of it and its children, standard output) of a command."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err) as process:
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        for stream in (out, err):
            stream.seek(0)
        text = out.read().decode(errors="replace")
        if process.returncode:
            raise RuntimeError("%s: exit status %d: %s" % (" ".join(argv[:6]), process.returncode, (err.read().decode(errors="replace") + text)[-1500:]))
    return seconds, used.ru_utime + used.ru_stime, text


def looked_at(argv, env, count):
    """What run() tells of ansible-inventory, where all hosts have facts."""
    done = run(argv, env)
    found = json.loads(done[2])["_meta"]["hostvars"]
    good = sum("microcode" in each for each in found.values())
    if good != count:
        raise RuntimeError("%d of %d hosts were looked at: %s" % (good, count, next(each for each in found.values() if "microcode" not in each)))
    return done


def measure(count, base, delay=None):
    """[(what, hosts a second, CPU of who looks, CPU of the servers)] of so many servers; CPU in seconds a host."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="servers-", dir=base))
    bin_folder = pathlib.Path(sys.executable).parent
    addresses = tuple("127.0.%d.%d" % (number // 250, number % 250 + 1) for number in range(count))
    relay, rows = None, {}
    try:
        servers = openssh.Servers(folder, addresses)
        if delay:
            inner, servers.port = servers.port, openssh.free_port()
            servers.know()
            servers.port = inner
            outer = (folder / "ssh_config").read_text().split("Port ")[1].split()[0]
        cases = {
            "fleet.microcode.ssh_facts": lambda env: looked_at([bin_folder / "ansible-inventory", "-i", folder / "all.ssh_facts.yml", "--list"], env, count),
            "ansible -m raw -a true": lambda env: run([bin_folder / "ansible", "all", "-i", folder / "hosts", "-f", str(FORKS), "-m", "ansible.builtin.raw",
                                                       "-a", "true"], env),
            "ansible -m setup": lambda env: run([bin_folder / "ansible", "all", "-i", folder / "hosts", "-f", str(FORKS), "-m", "ansible.builtin.setup"], env),
        }
        (folder / "hosts").write_text("\n".join(addresses) + "\n[all:vars]\nansible_python_interpreter=%s\nansible_ssh_common_args=-F %s -o ControlMaster=no\n"
                                      % (sys.executable, folder / "ssh_config"))
        (folder / "all.ssh_facts.yml").write_text("plugin: fleet.microcode.ssh_facts\nfiles: [list]\nssh_config: %s\n" % (folder / "ssh_config"))
        (folder / "list").write_text("\n".join(addresses))
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(base), ANSIBLE_HOME=str(folder / "home"), ANSIBLE_PIPELINING="true", ANSIBLE_NOCOLOR="1",
                   ANSIBLE_SSH_ARGS="", PYTHONDONTWRITEBYTECODE="1")
        for what, case in list(cases.items()) * (3 if count <= 100 else 1):  # in turns; the fastest time counts, which a busy machine disturbs least
            servers.start()
            if delay:
                relay = subprocess.Popen([sys.executable, __file__, "relay", outer, str(servers.port), str(delay / 2), *addresses],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                relay.stdout.readline()
            try:
                seconds, used, _text = case(env)
            finally:
                if relay:
                    relay.communicate()
                theirs = servers.stop()
            rows[what] = max(rows.get(what, (0,)), (count / seconds, used / count, theirs / count))
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
    return [(what, *figures) for what, figures in rows.items()]


def show(say, counts, base):
    """Measure and show all of it; say(text)."""
    for count, delay in [(count, None) for count in counts] + [(counts[min(1, len(counts) - 1)], DELAY)]:
        rows = measure(count, base, delay)
        say("%d OpenSSH servers on this machine%s" % (count, ", all that is sent comes %d ms later" % (delay * 500) if delay else ""))
        for what, speed, used, theirs in rows:
            ratio = "%.1f times as many hosts a second" % (rows[0][1] / speed) if what != rows[0][0] else ""
            say("  %-40s %7.1f hosts a second; CPU a host: %6.1f ms here, %6.1f ms the servers  %s" % (what, speed, used * 1000, theirs * 1000, ratio))


async def hand_on(port, target, seconds, addresses):
    """Serve as the relay."""
    loop = asyncio.get_running_loop()

    async def pump(reader, writer):
        while True:
            data = await reader.read(65536)
            loop.call_later(seconds, writer.write if data else writer.close, *[data] * bool(data))
            if not data:
                return

    async def serve(reader, writer):
        there, back = await asyncio.open_connection(writer.get_extra_info("sockname")[0], target)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    await asyncio.start_server(serve, list(addresses), port, backlog=1024)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # connections may still be open


def main(*words):
    if words[:1] == ("relay",):
        asyncio.run(hand_on(int(words[1]), int(words[2]), float(words[3]), words[4:]))
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (WORK, os.environ.get("PYTHONPATH"))))
    show(print, [int(word) for word in words] or [10, 100, 500], WORK)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except openssh.Unavailable as exc:
        sys.exit("left out: %s" % exc)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
