# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work on many guests at once, where each takes a program or an answer of a daemon."""
from concurrent.futures import ThreadPoolExecutor


def at_once(call, guests):
    """{uuid: call(guest)}, all of them begun before the first is waited for."""
    if not guests:
        return {}
    with ThreadPoolExecutor(max_workers=len(guests)) as pool:
        return dict(zip([guest.uuid for guest in guests], pool.map(call, guests)))
