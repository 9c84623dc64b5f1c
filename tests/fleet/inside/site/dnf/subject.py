# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody means by a word."""
from collections import namedtuple

from .package import Query

Nevra = namedtuple("Nevra", "name has_just_name")


class Subject:
    """A word."""

    def __init__(self, spec):
        self.spec = spec

    def get_best_query(self, sack):
        """The packages it may mean."""
        return Query(each for each in sack.query() if each.called(self.spec))

    def get_best_solution(self, sack):
        """The same, and how it was understood."""
        query = self.get_best_query(sack)
        nevra = Nevra(query[0].name, lambda: self.spec == query[0].name) if query else None
        return {"query": query, "nevra": nevra}
