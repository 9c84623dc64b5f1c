# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""In which order a fleet is worked on: first one host of each kind, the canaries, then waves that grow.

Hosts stand in the order of a hash of their names, and each takes the first wave that has room for it. So the order of the inventory says nothing, and a
host that is added pushes at most one other out of each wave that it touches.
"""
import hashlib

SIZES = (5, 20, 80, 320, 1280)  # hosts of each wave of the canaries, and again of those after them; the last holds for all that follow


def arrange(hosts, sizes=SIZES, limits=None, down=None):
    """([[name, …], …], how many of these waves are canaries') of {name: (kind, {domain variable: the host's value})}.

    No wave holds more than limits[variable] hosts of one value, less down[variable, value] that are down already, nor more than its size.
    For each host there must be some room().
    """
    kinds = {}
    for name in sorted(hosts, key=_rank):
        kinds.setdefault(hosts[name][0], []).append(name)
    first, then = (_Waves(sizes, limits or {}, down or {}) for _waves in range(2))
    canaries = set()
    for kind in sorted(kinds, key=_rank):
        canary = min(kinds[kind], key=lambda name: first.room(hosts[name][1]))  # of those that come as early, the first by rank
        first.put(canary, hosts[canary][1])
        canaries.add(canary)
    for name in sorted(set(hosts) - canaries, key=_rank):
        then.put(name, hosts[name][1])
    return [sorted(wave) for wave in first.waves + then.waves], len(first.waves)


def room(limits, down, domain):
    """How many hosts of a domain, (variable, value), may be worked on at once."""
    return limits[domain[0]] - down.get(domain, 0)


def _rank(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), text


class _Waves:
    """Waves as they fill."""

    def __init__(self, sizes, limits, down):
        self.sizes, self.limits, self.down, self.waves = sizes, limits, down, []
        self.used, self.full = {}, {}  # of a domain: hosts in each wave; below which wave all are full. None stands for the whole fleet

    def room(self, domains):
        """Number of the first wave with room for a host of these domains."""
        keys = [None] + [(variable, value) for variable, value in domains.items() if variable in self.limits]
        wave = max(self._skip(key) for key in keys)
        while not all(self._fits(key, wave) for key in keys):
            wave += 1
        return wave

    def put(self, name, domains):
        """Put a host into the first wave with room for it."""
        wave = self.room(domains)
        for key in [None] + list(domains.items()):
            self.used[key, wave] = self.used.get((key, wave), 0) + 1
        self.waves += [[] for _number in range(len(self.waves), wave + 1)]
        self.waves[wave].append(name)

    def _skip(self, key):
        wave = self.full.get(key, 0)
        while not self._fits(key, wave):
            wave += 1
        self.full[key] = wave
        return wave

    def _fits(self, key, wave):
        most = self.sizes[min(wave, len(self.sizes) - 1)] if key is None else room(self.limits, self.down, key)
        return self.used.get((key, wave), 0) < most
