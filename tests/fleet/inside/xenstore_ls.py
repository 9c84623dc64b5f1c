# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""XenStore, and xenstore-ls, xenstore-write and xenstore-rm, as Xen's source has them (tools/xenstore, tools/xs-clients; docs/misc/xenstore-paths.pandoc).

Of what a toolstack writes for a domain there are its name, UUID, number and memory; what else a program has written is in the state's xen.store,
{path: text}, and what lies below a domain's folder ends with the domain.
"""
import sys


def entries(hypervisor, state):
    """{path: text} of all entries; hypervisor: the module xen, whose name is another's where this is called from."""
    found = {"/tool/xenstored": ""}
    domains = hypervisor.domains(state)
    for domain in domains:
        base = "/local/domain/%d" % domain["id"]
        found.update({base: "", base + "/vm": "/vm/" + domain["uuid"], base + "/name": domain["name"], base + "/domid": str(domain["id"]),
                      base + "/memory": "", base + "/memory/target": str(domain["memory"] << 10)})
    there = ["/local/domain/%d/" % domain["id"] for domain in domains]
    found.update((path, value) for path, value in state["xen"].get("store", {}).items()
                 if not path.startswith("/local/domain/") or any(path.startswith(base) for base in there))
    return found


def main(machine, name, argv):
    import xen  # pylint: disable=import-outside-toplevel  # see entries()
    words = [word for word in argv if not word.startswith("-")]
    if machine.state()["xen"] is None:
        sys.stderr.write("xs_open: No such file or directory\n")
        return 1
    if name == "xenstore-ls":
        if "-f" not in argv:
            sys.stderr.write("a simulated xenstore-ls shows whole paths only: -f\n")
            return 1
        show(entries(xen, machine.state()), words[0].rstrip("/") if words else "")
        return 0
    with machine.change() as state:
        store = state["xen"].setdefault("store", {})
        if name == "xenstore-write":
            for path, value in zip(words[::2], words[1::2]):
                parts = path.split("/")
                for depth in range(2, len(parts)):  # folders above it
                    store.setdefault("/".join(parts[:depth]), "")
                store[path] = value
        else:
            for path in [path for path in store for word in words if (path + "/").startswith(word.rstrip("/") + "/")]:
                del store[path]
    return 0


def show(found, base):
    """Those below a path, in the form of -f."""
    for path, value in sorted(found.items(), key=lambda item: item[0].split("/")):
        if path.startswith(base + "/"):
            escaped = "".join(letter if " " <= letter <= "~" and letter not in '\\"' else "\\" + letter if letter in '\\"' else "\\%03o" % ord(letter)
                              for letter in value)
            print('%s = "%s"' % (path, escaped))
