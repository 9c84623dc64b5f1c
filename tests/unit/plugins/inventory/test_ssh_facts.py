# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory as users meet it: ansible-inventory over real OpenSSH servers, good ones, broken ones and hostile ones."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
import yaml

pytest.importorskip("ansible")
pytest.importorskip("paramiko")

from ansible_collections.fleet.microcode.plugins.module_utils import facts
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.plugin_utils import ssh, sweep, tree
from ansible_collections.fleet.microcode.tests.fleet import openssh
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo
from ansible_collections.fleet.microcode.tests.gate.cache import CHECKOUT

GOOD = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
ODD = {"endless": "127.0.0.4", "silent": "127.0.0.5", "hostile": "127.0.0.6", "noise": "127.0.0.7", "keyless": "127.0.0.8", "changed": "127.0.0.9",
       "unknown": "127.0.0.10", "metal": "127.0.0.11", "reserved": "127.0.0.12"}
TEMPLATE = "{{ lookup('ansible.builtin.pipe', 'touch %s') }}"


def frames(**files):
    files = dict({"/proc/cpuinfo": cpuinfo(), "/proc/sys/kernel/osrelease": "6.1.0"}, **files)
    texts = [(path, text.encode()) for path, text in files.items()]
    return tree.START + b"".join(b"file %d %s\n%s\n" % (len(text), path.encode(), text) for path, text in texts) + tree.END[1:]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """OpenSSH servers on addresses of their own, of which some are told to do one thing whatever they are asked."""
    folder = tmp_path_factory.mktemp("servers")
    hostile = {"/sys/class/dmi/id/sys_vendor": TEMPLATE % (folder / "pwned"), "/sys/class/dmi/id/product_name": "\x1b[31mred",
               "/etc/os-release": "ID=debian\nVERSION_ID=\"%s\"" % (TEMPLATE % (folder / "pwned")),
               "/proc/xen/capabilities": TEMPLATE % (folder / "pwned")}
    (folder / "hostile").write_bytes(frames(**hostile))
    (folder / "metal").write_bytes(frames(**{"/sys/devices/system/cpu/vulnerabilities/mds": "Vulnerable: Clear CPU buffers attempted, no microcode"}))
    reserved = ["/sys/devices/system/cpu/vulnerabilities/__ansible_" + name for name in ("type", "unsafe", "vault")]
    (folder / "reserved").write_bytes(frames(**dict.fromkeys(reserved, "x")))
    (folder / "noise").write_bytes(b"\x1b]0;title\x07 this is\x00 no answer\n" * 3)
    commands = {"endless": "yes", "silent": "sleep 1000", "hostile": "cat %s" % (folder / "hostile"), "noise": "cat %s" % (folder / "noise"),
                "metal": "cat %s" % (folder / "metal"), "reserved": "cat %s" % (folder / "reserved")}
    more = "".join("Match LocalAddress %s\n  ForceCommand %s\n" % (ODD[name], command) for name, command in commands.items())
    more += "Match LocalAddress %s\n  AuthorizedKeysFile none\n" % ODD["keyless"]
    try:
        made = openssh.Servers(folder, GOOD + tuple(ODD.values()), more=more).start()
    except openssh.Unavailable as exc:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(exc))
    known = [line for line in (folder / "known_hosts").read_text().splitlines() if "[%s]" % ODD["unknown"] not in line]
    openssh.make_key(folder / "other_key")
    known = [line if "[%s]" % ODD["changed"] not in line else "[%s]:%d %s" % (ODD["changed"], made.port, (folder / "other_key.pub").read_text().strip())
             for line in known]
    (folder / "known_hosts").write_text("\n".join(known) + "\n")
    yield made
    made.stop()


@pytest.fixture
def inventory(tmp_path, servers):
    """inventory(options) -> (hostvars, {group: [host]}, stderr) of ansible-inventory --list; settings of Ansible as further arguments."""
    collections = tmp_path / "collections" / "ansible_collections" / "fleet"
    collections.mkdir(parents=True)
    (collections / "microcode").symlink_to(CHECKOUT)

    def run(options, status=0, **env):
        source = tmp_path / "all.ssh_facts.yml"
        source.write_text(yaml.safe_dump(dict({"plugin": "fleet.microcode.ssh_facts", "ssh_config": str(servers.folder / "ssh_config")}, **options)))
        env = dict({key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}, ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "collections"),
                   ANSIBLE_HOME=str(tmp_path / "home"), ANSIBLE_NOCOLOR="1", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1", COLUMNS="10000", **env)
        done = subprocess.run([str(pathlib.Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--list"], env=env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, check=False)
        said = " ".join(done.stderr.split())
        assert (done.returncode != 0) == bool(status), done.stderr
        assert "Traceback" not in done.stderr
        if status:
            return said
        listed = json.loads(done.stdout, object_hook=lambda each: each["__ansible_unsafe"] if list(each) == ["__ansible_unsafe"] else each)  # core 2.16
        return listed.pop("_meta")["hostvars"], {name: sorted(group.get("hosts", ())) for name, group in listed.items()}, said
    return run


def test_hosts_with_what_the_module_tells_of_this_machine(inventory, servers):
    before = servers.logins()
    hosts, groups, said = inventory({"hosts": ["127.0.0.[1:3]", "127.0.0.2"], "sudo": True,
                                     "keyed_groups": [{"key": "microcode.hypervisor.role", "prefix": "role"}],
                                     "groups": {"all_of_them": "microcode.schema == 1"}, "compose": {"cpu": "microcode.cpu.name"}})
    read = facts.gather(Host(), tree.SUBSET)
    assert sorted(hosts) == sorted(GOOD) and "not looked at" not in said
    for each in hosts.values():
        swept = dict(each["microcode"], gathered=None, warnings=None)
        assert swept == dict(read, gathered=None, warnings=None)
        assert each["cpu"] == read["cpu"]["name"] and each["microcode_lacks"] == []
    assert groups["all_of_them"] == groups["role_%s" % read["hypervisor"]["role"]] == sorted(GOOD)
    assert servers.logins() - before == 3  # one connection each


def test_each_bad_host_says_why_and_costs_no_other_one(inventory, servers, tmp_path):
    with socket.socket() as mute:  # takes connections, says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        (tmp_path / "config").write_text("Host mute\n  HostName 127.0.0.1\n  Port %d\nHost closed\n  HostName 127.0.0.1\n  Port 1\n%s"
                                         % (mute.getsockname()[1], (servers.folder / "ssh_config").read_text()))
        names = [address for name, address in ODD.items() if name not in ("metal", "reserved")]
        hosts, groups, said = inventory({"hosts": ["127.0.0.1", "mute", "closed", "nowhere.invalid"] + names, "ssh_config": str(tmp_path / "config"),
                                         "connect_timeout": 10, "timeout": 15, "strict": True,
                                         "compose": {"firmware": "(microcode.firmware or {}).vendor | default('none')"},
                                         "keyed_groups": [{"key": "firmware", "prefix": "made_by"}]})
    failed = {name: hosts[address]["microcode_failure"] for name, address in dict(ODD, mute="mute", closed="closed", nowhere="nowhere.invalid").items()
              if name not in ("hostile", "metal", "reserved")}
    assert {name: each["kind"] for name, each in failed.items()} == {
        "endless": "answer", "silent": "time", "noise": "answer", "keyless": "login", "changed": "host_key", "unknown": "host_key", "mute": "connect",
        "closed": "connect", "nowhere": "address"}
    assert "sends without end" in failed["endless"]["why"] and "nothing of SSH within 10 s" in failed["mute"]["why"]
    assert "Connection refused" in failed["closed"]["why"] and "is not the known one" in failed["changed"]["why"]
    assert "add it" in failed["unknown"]["why"] and "SHA256:" in failed["unknown"]["why"]
    assert str(servers.folder / "user_key") in failed["keyless"]["why"]
    assert failed["noise"]["why"] == ("it answered something else: ?]0;title? this is? no answer ?]0;title? this is? no answer ?]0;title? this is? no answer; "
                                      "is its login shell one that runs commands?")
    assert len(groups["microcode_failed"]) == 9 and hosts[ODD["silent"]]["microcode_state"] == "not_reached"
    assert "9 of 11 hosts" not in said and "2 of 11 hosts not looked at (host_key)" in said
    # what a host sends is text, wherever it comes to
    hostile = hosts[ODD["hostile"]]
    assert hostile["microcode"]["firmware"]["vendor"] == hostile["firmware"] == TEMPLATE % (servers.folder / "pwned")
    assert not (servers.folder / "pwned").exists()
    assert [name for name in groups if name.startswith("made_by")] and all(char.isalnum() or char == "_" for name in groups for char in name)
    assert "microcode" in hosts["127.0.0.1"]


def test_the_state_and_what_is_lacking(inventory):
    hosts, groups, _said = inventory({"hosts": [ODD["metal"]], "groups": {"lacking": "microcode_lacks | length > 0"},
                                      "keyed_groups": [{"key": "microcode_state", "prefix": "state"}]})
    each = hosts[ODD["metal"]]
    assert each["microcode_lacks"] == ["mds"] and each["microcode_state"] == "unknown"  # no file was read: nothing says that it is current
    assert groups["lacking"] == groups["state_unknown"] == [ODD["metal"]]


def test_a_new_key_is_noted_only_where_that_is_asked_for(inventory, servers, tmp_path):
    known = tmp_path / "known"
    (tmp_path / "config").write_text("Host *\n  UserKnownHostsFile %s\n  StrictHostKeyChecking no\n%s" % (known, (servers.folder / "ssh_config").read_text()))
    options = {"hosts": ["127.0.0.1"], "ssh_config": str(tmp_path / "config")}
    assert inventory(options)[0]["127.0.0.1"]["microcode_failure"]["kind"] == "host_key" and not known.exists()
    assert "microcode" in inventory(dict(options, host_keys="accept-new"))[0]["127.0.0.1"]
    assert "microcode" in inventory(options)[0]["127.0.0.1"]
    if shutil.which("ssh"):  # the note is as ssh wants it
        done = subprocess.run(["ssh", "-F", str(tmp_path / "config"), "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "127.0.0.1", "true"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout


def test_through_a_jump_host(inventory, servers, tmp_path):
    (tmp_path / "config").write_text("Host 127.0.0.2 127.0.0.3\n  ProxyJump %s@127.0.0.1:%d\nHost 127.0.0.11\n  ProxyJump %s:%d\n%s" % (
        servers.user, servers.port, ODD["keyless"], servers.port, (servers.folder / "ssh_config").read_text()))
    before = servers.logins()
    hosts, _groups, _said = inventory({"hosts": ["127.0.0.[2:3]", "127.0.0.11"], "ssh_config": str(tmp_path / "config")})
    assert "microcode" in hosts["127.0.0.2"] and "microcode" in hosts["127.0.0.3"]
    assert servers.logins() - before == 3  # one at the jump host for both
    why = hosts["127.0.0.11"]["microcode_failure"]
    assert why["kind"] == "login" and why["why"].startswith("the jump host %s" % ODD["keyless"])


def test_keys_of_the_agent_and_keys_that_cannot_be_used(inventory, servers, tmp_path):
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "a passphrase", "-P", "", "-f", str(shutil.copy(str(servers.folder / "user_key"), str(locked)))],
                   check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "config").write_text((servers.folder / "ssh_config").read_text().replace(str(servers.folder / "user_key"), str(locked)))
    options = {"hosts": ["127.0.0.1"], "ssh_config": str(tmp_path / "config")}
    hosts, _groups, said = inventory(options)
    assert "%s: it has a passphrase, give it to the agent (ssh-add)" % locked in hosts["127.0.0.1"]["microcode_failure"]["why"]
    (tmp_path / "locked.pub").write_text((servers.folder / "user_key.pub").read_text())
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as agent:
        try:
            until = time.monotonic() + 60
            while not os.path.exists(path) and time.monotonic() < until:
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", str(servers.folder / "user_key")], env=dict(os.environ, SSH_AUTH_SOCK=path), check=True)
            assert "microcode" in inventory(options, SSH_AUTH_SOCK=path)[0]["127.0.0.1"]
            locked.unlink()
            (tmp_path / "locked.pub").unlink()  # IdentitiesOnly: the agent's key is none of the named ones
            assert "microcode_failure" in inventory(options, SSH_AUTH_SOCK=path)[0]["127.0.0.1"]
        finally:
            agent.terminate()


def test_another_inventory_with_its_groups_and_variables(inventory, servers, tmp_path):
    (tmp_path / "fleet.ini").write_text("[web]\none ansible_host=127.0.0.1 rack=r1 ansible_password=hunter2\n[db]\ntwo\n[site:children]\nweb\ndb\n"
                                        "[site:vars]\ncolour=green\ndb_secret=hunter2\n[db:vars]\naddress=127.0.0.2\n"
                                        "[here]\nlocalhost ansible_connection=local\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "db.yml").write_text("ansible_host: '{{ address }}'\n")
    (tmp_path / "more.txt").write_text("# appliances\n\n127.0.0.3  # the third\none\n")
    before = servers.logins()
    hosts, groups, _said = inventory({"from": ["fleet.ini"], "files": ["more.txt"], "hosts": ["two"]})
    assert "ansible_connection=local, and only SSH" in hosts.pop("localhost")["microcode_failure"]["why"]
    assert sorted(hosts) == ["127.0.0.3", "one", "two"] and all("microcode" in each for each in hosts.values()), hosts
    assert groups["web"] == ["one"] and groups["db"] == ["two"] and servers.logins() - before == 3
    assert hosts["one"]["rack"] == "r1" and hosts["one"]["colour"] == "green" and hosts["one"]["ansible_host"] == "127.0.0.1"
    assert "hunter2" not in json.dumps(hosts)


def test_the_cache_spares_the_hosts_and_holds_no_secret(inventory, servers, tmp_path):
    settings = {"ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(tmp_path / "cache")}
    (tmp_path / "fleet.ini").write_text("127.0.0.1 ansible_password=hunter2\n")
    options = {"from": ["fleet.ini"], "cache": True, "hosts": [ODD["hostile"], ODD["reserved"]]}
    first = inventory(options, **settings)[0]
    assert "no possible name" in first[ODD["reserved"]]["microcode_failure"]["why"]  # a cache would take that for something else
    before = servers.logins()
    again = inventory(options, **settings)[0]
    assert servers.logins() == before and again == first
    assert first[ODD["hostile"]]["microcode"]["firmware"]["vendor"].startswith("{{ lookup") and not (servers.folder / "pwned").exists()
    hosts = inventory(dict(options, hosts=options["hosts"] + ["127.0.0.2"]), **settings)[0]
    assert "microcode" in hosts["127.0.0.2"] and servers.logins() == before + 1  # only the one that it does not know
    written = "".join(path.read_text() for path in (tmp_path / "cache").iterdir())
    assert "127.0.0.2" in written and "hunter2" not in written and "PRIVATE KEY" not in written


@pytest.mark.parametrize("options, said", [
    ({"hosts": ["web[05:01]"]}, "web[05:01] is an empty range: it begins after its end"),
    ({"hosts": ["web[1:999999999]"]}, "is more than 100000 hosts"),
    ({"hosts": ["web[1:9999][1:9999]"]}, "is more than 100000 hosts"),
    ({"hosts": ["a b"]}, "a b is no name of a host"),
    ({"hosts": ["{{lookup('ansible.builtin.pipe','id')}}"]}, "is no name of a host"),
    ({"hosts": ["-oProxyCommand=id"]}, "-oProxyCommand=id is no name of a host"),
    ({"hosts": ["web[01:9]"]}, "is no range: host range must specify equal-length"),
    ({}, "none of hosts, files and from names a host"),
    ({"files": ["nothing.txt"]}, "nothing.txt cannot be read: No such file"),
    ({"from": ["nothing.ini"]}, "nothing.ini is not there"),
    ({"hosts": ["a"], "sessions": 0}, "sessions: 0 is too few"),
    ({"hosts": ["a"], "ssh_config": "/nowhere/config"}, "/nowhere/config cannot be used: No such file"),
    ({"hosts": ["a"], "host_keys": "no"}, "host_keys"),
])
def test_options_that_cannot_be_meant(inventory, options, said):
    assert said in inventory(options, status=1)


def test_without_paramiko_a_sentence(inventory, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "paramiko.py").write_text("raise ModuleNotFoundError('No module named paramiko', name='paramiko')\n")
    path = os.pathsep.join(filter(None, (str(tmp_path / "without"), os.environ.get("PYTHONPATH"))))
    assert "the Python package paramiko is not there" in inventory({"hosts": ["a"]}, status=1, PYTHONPATH=path)


def test_a_sweep_of_which_most_is_dead_ends_in_time(servers):
    config = ssh.configuration(str(servers.folder / "ssh_config"))
    alive = dict.fromkeys(GOOD)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(4096)
        hosts = {"dead%d" % number: ((lambda: ssh.target(config, "127.0.0.1", port=mute.getsockname()[1])), False) for number in range(400)}
        hosts.update((name, ((lambda name=name: ssh.target(config, name)), False)) for name in alive)
        started = time.monotonic()
        found = sweep.Sweep(ssh.Connector(config, connect_timeout=300), 10, 300, 15).run(hosts)
    assert time.monotonic() - started < 200  # not 400 times 300 s
    assert len(found) == 403 and all(found[name][1][0] in ("time", "connect") for name in hosts if name not in alive)


def test_the_examples_of_the_documentation_are_those_that_are_tested():
    text = (CHECKOUT / "docs" / "inventory.md").read_text()
    for name in ("fleet.constructed.yml", "waves.yml"):
        assert (CHECKOUT / "tests/integration/targets/ssh_facts" / name).read_text() in text
