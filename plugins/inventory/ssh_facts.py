# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An inventory whose hosts were looked at: many at once over SSH, one connection and one command each, no Python there."""
DOCUMENTATION = r"""
name: ssh_facts
short_description: Hosts with the microcode that their CPUs run, all looked at in parallel over SSH
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Looks at many hosts at once, each with one SSH connection and one command of plain C(sh). Nothing is changed and nothing needs to be installed there, not
    even Python, so that it also reaches hypervisors such as XCP-ng's dom0.
  - Gives each host the variable C(microcode), of the shape that M(fleet.microcode.microcode_facts) returns. Initrds, boot loader and firmware files are not
    read - C(early), C(boot), C(files) and C(pending) are V(null), which means not known.
  - What ran, and which vulnerabilities the kernel says it has for want of microcode, is known of thousands of hosts in a minute. What would be loaded,
    and a plan, take M(fleet.microcode.microcode_facts).
  - A host that could not be looked at is in the group C(microcode_failed), and its variables say why.
  - What hosts send is never evaluated as a template.
requirements:
  - paramiko >= 3.4 where Ansible runs
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin. The file's name ends in C(ssh_facts.yml) or C(ssh_facts.yaml).
    type: str
    required: true
    choices: [fleet.microcode.ssh_facts]
  hosts:
    description:
      - Hosts by name or address, with Ansible's ranges such as V(web[01:20].example.org) and, after a colon, a port.
      - A host that several sources name is looked at once.
    type: list
    elements: str
    default: []
  files:
    description: Files with one entry as in O(hosts) on each line; from C(#) on a line is a comment. Relative to this file's folder.
    type: list
    elements: str
    default: []
  from:
    description:
      - Other inventories of any kind whose hosts to look at, with their groups and variables. Relative to this file's folder.
      - C(ansible_host), C(ansible_port), C(ansible_user), C(ansible_ssh_private_key_file) and C(ansible_password) of the host go before the SSH configuration,
        also where they come from C(group_vars) and C(host_vars) beside that inventory.
      - Variables that hold passwords are used and not taken over.
    type: list
    elements: str
    default: []
  user:
    description: Who to log in as where the inventory under O(from) does not say; else the SSH configuration says, or it is who runs Ansible.
    type: str
  private_key_file:
    description: A private key to offer first. One with a passphrase is for the agent, which is asked by itself.
    type: path
  sudo:
    description:
      - Become root by C(sudo -n), which some facts take - above all Xen's, and the revisions in sysfs of older kernels.
      - Where sudo refuses, the host is read without, and C(microcode.warnings) say so.
    type: bool
    default: false
  ssh_config:
    description:
      - The SSH configuration to read instead of the user's and the system's.
      - Read are C(Host), C(Match) but C(exec), C(Include), C(HostName), C(Port), C(User), C(IdentityFile), C(IdentitiesOnly), C(ProxyJump), C(HostKeyAlias),
        C(UserKnownHostsFile) and C(GlobalKnownHostsFile). A host with a C(ProxyCommand), which is a shell command, fails.
    type: path
  host_keys:
    description:
      - With V(strict) a host whose key is not in a known_hosts file is not looked at.
      - With V(accept-new) its key is noted in the first of these files, as ssh's C(StrictHostKeyChecking=accept-new) does.
      - A key that is not the known one is refused always, whatever the SSH configuration says.
    type: str
    choices: [strict, accept-new]
    default: strict
  sessions:
    description: How many hosts to speak with at a time. Five times as many are waited for, as most time of a dead host is waiting.
    type: int
    default: 50
  connect_timeout:
    description: Seconds for the connection and the host's first word.
    type: int
    default: 10
  timeout:
    description: Seconds for all else with one host.
    type: int
    default: 60
  sweep_timeout:
    description: Seconds for all hosts; those that are not done then have failed.
    type: int
    default: 900
seealso:
  - module: fleet.microcode.microcode_facts
  - plugin: fleet.microcode.state
    plugin_type: filter
  - plugin: ansible.builtin.constructed
    plugin_type: inventory
notes:
  - Each host gets the variables C(microcode), C(microcode_state) as the filter P(fleet.microcode.state#filter) gives it, and C(microcode_lacks), the
    vulnerabilities that its kernel says newer microcode would close. One that failed gets C(microcode_state), V(not_reached), and C(microcode_failure), with
    C(why) and a C(kind) - V(address), V(connect), V(host_key), V(login), V(answer), V(time) or V(host).
"""

EXAMPLES = r"""
# production.ssh_facts.yml; ansible-inventory -i production.ssh_facts.yml --graph
plugin: fleet.microcode.ssh_facts
hosts:
  - web[01:20].example.org
  - xen-[a:c].example.org:2222
files: [appliances.txt]
from: [production.ini]
user: audit
sudo: true
cache: true
keyed_groups:
  - {key: microcode.cpu.signature, prefix: signature}
  - {key: microcode.cpu.revision, prefix: runs}
  - {key: microcode.hypervisor.role, prefix: role}
  - {key: microcode_failure.kind, prefix: failed}
groups:
  lacking: microcode_lacks | length > 0
compose:
  cpu: microcode.cpu.name
"""

import os
import re
from collections import Counter

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.fleet.microcode.plugins.plugin_utils import report, ssh, sweep

try:
    from ansible.template import trust_as_template  # noqa: F401  pylint: disable=unused-import
except ImportError:  # before core 2.19 text is a template unless it is marked
    from ansible.utils.unsafe_proxy import wrap_var as untrusted
else:
    def untrusted(value):
        return value

FAILED = "microcode_failed"
MOST = 100000  # hosts of one entry
SSH = ("ssh", "smart", "paramiko", "paramiko_ssh", "libssh")  # connections that come to the same
NO_NAME = re.compile(r"^-|[\s'\"`$\\;&<>|(){}]")  # as ssh has it
SECRET = re.compile(r"pass(word|wd|phrase)?$|_pass_|secret|token", re.I)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "fleet.microcode.ssh_facts"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(("ssh_facts.yml", "ssh_facts.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        if ssh.paramiko is None:
            raise AnsibleParserError("the Python package paramiko is not there: install it into Ansible's own environment, or use an execution environment "
                                     "made with this collection's requirements.txt")
        for name in ("sessions", "connect_timeout", "timeout", "sweep_timeout"):
            if self.get_option(name) < 1:
                raise AnsibleParserError("%s: %s is too few; 1 or more makes sense" % (name, self.get_option(name)))
        self.load_cache_plugin()
        hosts = self._hosts(path)
        found = self._looked_at(path, hosts, cache)
        for name in hosts:
            self._enter(name, *found[name])
        self._say(found)

    # --- which hosts ---

    def _hosts(self, path):
        """{name: variables that say how to reach it}; they are entered into the inventory with their groups."""
        folder, hosts = os.path.dirname(path), {}
        for source in self.get_option("from"):
            hosts.update(self._other(source if "," in source else os.path.join(folder, source)))
        entries = [("hosts", entry) for entry in self.get_option("hosts")]
        for name in self.get_option("files"):
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as stream:
                    entries += [(name, line.partition("#")[0].strip()) for line in stream]
            except (OSError, UnicodeDecodeError) as exc:
                raise AnsibleParserError("%s cannot be read: %s" % (name, getattr(exc, "strerror", None) or exc)) from None
        for where, entry in entries:
            names, port = self._names(where, entry) if entry else ((), None)
            for name in names:
                if name not in hosts:
                    hosts[name] = {"ansible_port": port} if port else {}
                    self.inventory.add_host(name, port=port)
                    if self.get_option("user"):
                        self.inventory.set_variable(name, "ansible_user", self.get_option("user"))
        if not hosts:
            raise AnsibleParserError("none of hosts, files and from names a host")
        return hosts

    def _names(self, where, entry):
        """(names, port or None) of a host or a range of hosts."""
        size = 1
        for first, last, step in re.findall(r"\[(\d*):(\d+)(?::(\d+))?\]", entry):
            size *= max(0, int(last) - int(first or 0)) // max(1, int(step or 1)) + (int(last) >= int(first or 0))
        problem = None
        if size > MOST:
            problem = "is more than %d hosts" % MOST
        elif not size:
            problem = "is an empty range: it begins after its end"
        elif not entry.isprintable() or NO_NAME.search(entry):
            problem = "is no name of a host"
        else:
            try:
                names, port = self._expand_hostpattern(entry)
                if names:
                    return names, port
                problem = "names no host"
            except (AnsibleError, ValueError) as exc:
                problem = "is no range: %s" % exc
        raise AnsibleParserError("%s: %s %s; a range is written as in web[01:20].example.org" % (where, report.clean(entry), problem))

    def _other(self, source):
        """The same of another inventory."""
        if "," not in source and not os.path.exists(source):
            raise AnsibleParserError("from: %s is not there" % source)
        other, hosts = InventoryManager(loader=self.loader, sources=[source]), {}
        if not other.hosts:
            raise AnsibleParserError("from: %s has no hosts, or could not be read" % source)
        for name, group in other.groups.items():
            self.inventory.add_group(name)
            self._take_over(name, group.vars)
        for name, host in other.hosts.items():
            self.inventory.add_host(name)
            self._take_over(name, host.vars)
            groups = sorted(host.get_groups(), key=lambda group: (group.depth, group.priority, group.name))
            variables = {}
            for group in groups:
                variables = combine_vars(variables, group.get_vars())
                variables = combine_vars(variables, get_vars_from_inventory_sources(self.loader, [source], [group], "all"))
            variables = combine_vars(variables, host.vars)
            hosts[name] = combine_vars(variables, get_vars_from_inventory_sources(self.loader, [source], [host], "all"))
        for name, group in other.groups.items():
            for child in [each.name for each in group.child_groups] + [each.name for each in group.hosts]:
                if name not in ("all", "ungrouped"):
                    self.inventory.add_child(name, child)
        return hosts

    def _take_over(self, name, variables):
        for key, value in variables.items():
            if not SECRET.search(key):
                self.inventory.set_variable(name, key, value)

    # --- looking ---

    def _looked_at(self, path, hosts, cache):
        """{name: [facts or None, None or [kind, why]]}; of those that the cache knows, what it knows."""
        key, wanted = self.get_cache_key(path), self.get_option("cache")
        known = self._cache.get(key) if wanted and cache else None
        found = {name: each for name, each in (known if isinstance(known, dict) else {}).items() if name in hosts and isinstance(each, list) and len(each) == 2}
        todo = {name: variables for name, variables in hosts.items() if name not in found}
        if todo:
            found.update((name, list(each)) for name, each in self._sweep(todo).items())
            if wanted:
                self._cache[key] = found
        return found

    def _sweep(self, hosts):
        try:
            config = ssh.configuration(self.get_option("ssh_config"))
        except ssh.SSHError as exc:
            raise AnsibleParserError(str(exc)) from None
        connector = ssh.Connector(config, self.get_option("host_keys") == "accept-new", self.get_option("connect_timeout"))
        root = self.get_option("sudo")
        todo, elsewhere = {}, {}
        for name, variables in hosts.items():
            connection = self._said(variables, "ansible_connection") or "ssh"
            if connection.rpartition(".")[2] not in SSH:
                why = "the inventory says ansible_connection=%s, and only SSH is done here; microcode_facts takes any" % report.clean(connection)
                elsewhere[name] = None, (ssh.HOST, why)
                continue
            said = {"address": self._said(variables, "ansible_host", "ansible_ssh_host"), "port": self._said(variables, "ansible_port", "ansible_ssh_port"),
                    "user": self._said(variables, "ansible_user", "ansible_ssh_user") or self.get_option("user"),
                    "key": self._said(variables, "ansible_ssh_private_key_file", "ansible_private_key_file") or self.get_option("private_key_file"),
                    "password": self._said(variables, "ansible_password", "ansible_ssh_pass", "ansible_ssh_password")}
            todo[name] = (lambda name=name, said=said: ssh.target(config, name, **said)), root
        limits = [self.get_option(name) for name in ("sessions", "timeout", "sweep_timeout")]
        return dict(elsewhere, **sweep.Sweep(connector, *limits).run(todo))

    def _said(self, variables, *names):
        """The first of these variables that is there, as text; the other inventory's own templates are evaluated."""
        value = next((variables[name] for name in names if variables.get(name) is not None), None)
        if isinstance(value, str) and "{{" in value:
            self.templar.available_variables = variables
            try:
                value = self.templar.template(value)
            except AnsibleError as exc:
                raise AnsibleParserError("from: a host's %s cannot be evaluated: %s" % (names[0], report.clean(str(exc)))) from None
        return None if value is None else str(value)

    # --- what was found ---

    def _enter(self, name, facts, failure):
        """The variables and groups of one host."""
        tries = {"ansible_facts": {"microcode": facts}}
        if failure:
            kind, why = failure
            said = {"microcode_failure": {"kind": kind, "why": why}, "microcode_state": "not_reached"}
            self.inventory.add_group(FAILED)
            self.inventory.add_child(FAILED, name)
        else:
            entry = report.assess([tries])
            said = {"microcode": facts, "microcode_state": entry["state"], "microcode_lacks": report.lacking(entry)}
        for key, value in untrusted(said).items():
            self.inventory.set_variable(name, key, value)
        variables = self.inventory.get_host(name).get_vars()
        strict = self.get_option("strict") and not failure  # a host that failed has none of what the expressions speak of
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        variables = self.inventory.get_host(name).get_vars()
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict, fetch_hostvars=False)

    def _say(self, found):
        """One warning for each kind of failure; all of them stand in the hosts' variables."""
        kinds = Counter(failure[0] for _facts, failure in found.values() if failure)
        for kind, count in kinds.most_common():
            some = [(name, failure[1]) for name, (_facts, failure) in found.items() if failure and failure[0] == kind]
            self.display.warning("%d of %s not looked at (%s): %s%s" % (
                count, report.quantity(len(found), "host"), kind, "; ".join("%s: %s" % (report.clean(name), report.clean(why)) for name, why in some[:3]),
                "; and %d more" % (count - 3) if some[3:] else ""))
