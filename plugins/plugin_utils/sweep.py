# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many hosts looked at in parallel, each with one connection and one command; it ends in time, and says of each host what became of it."""
import queue
import threading
import time

from ansible_collections.fleet.microcode.plugins.plugin_utils import ssh, tree
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean

WAITING = 5  # so many times as many hosts may be waited for as are spoken with: most time of a dead one is waiting
THREADS = 1000
COMMANDS = {False: "exec /bin/sh", True: "sudo -n /bin/sh || exec /bin/sh"}  # by whether root is asked for; where sudo refuses, the second gets the script


class Sweep:
    """The hosts still to look at, and what is known of the others: found is {name: (facts or None, None or (kind, why))}."""

    def __init__(self, connector, sessions, timeout, sweep_timeout):
        self.connector, self.timeout, self.found = connector, timeout, {}
        self.speaking = threading.Semaphore(sessions)
        self.threads = min(sessions * WAITING, THREADS)
        self.sweep_timeout, self.end, self.todo = sweep_timeout, None, queue.SimpleQueue()

    def run(self, hosts):
        """found of hosts: {name: (function that returns its ssh.Target, whether root is asked for)}."""
        self.end = time.monotonic() + self.sweep_timeout
        for item in hosts.items():
            self.todo.put(item)
        # daemons: looking up a name cannot be stopped, and must not keep the program from ending
        threads = [threading.Thread(target=self._work, daemon=True) for _number in range(min(self.threads, len(hosts)))]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and time.monotonic() < self.end + 2:
            for thread in threads:
                if thread.is_alive():
                    thread.join(0.2)
                    break
            self.connector.cut()
        self.connector.close()
        over = "the sweep's time limit of %d s was over before it was looked at" % self.sweep_timeout
        return {name: self.found.get(name, (None, (ssh.TIME, over))) for name in hosts}

    def _work(self):
        while True:
            try:
                name, (where, root) = self.todo.get_nowait()
            except queue.Empty:
                return
            if time.monotonic() >= self.end:
                return
            try:
                self.found[name] = self._look(where(), root), None
            except ssh.SSHError as exc:
                self.found[name] = None, (exc.kind, clean(str(exc), 1000))
            except tree.TreeError as exc:
                self.found[name] = None, (ssh.ANSWER, clean(str(exc), 1000))
            except Exception as exc:  # pylint: disable=broad-except  # a mistake of our own costs one host, not all
                self.found[name] = None, (ssh.ANSWER, "internal error, please report it: %s: %s" % (type(exc).__name__, clean(str(exc), 500)))

    def _look(self, where, root):
        sock = self.connector.reach(where, min(self.end, time.monotonic() + self.timeout))
        with self.speaking:
            deadline = min(self.end, time.monotonic() + self.timeout)  # the wait for the others is not its fault
            transport = self.connector.login(where, sock, deadline)
            try:
                data, error = self.connector.run(transport, COMMANDS[root], tree.SCRIPT, tree.LIMIT, tree.END, deadline)
            finally:
                self.connector.leave(transport)
            host = tree.parse(data)
        user = host.run(["id", "-u"])
        if root and not (user and user.out == "0"):
            why = clean(error.decode("utf-8", "replace")) or "no reason was given"
            host.warn("sudo -n did not make root of %s, so not all could be read: %s" % (where.user, why))
        return tree.gather(host)
