# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pages of several fleets and a browser that shows them. Skipped where there is none and none can be had; in CI that fails."""
import os

import pytest

from ansible_collections.fleet.microcode.plugins.plugin_utils import page_plan, page_posture, page_rollout, report
from ansible_collections.fleet.microcode.tests.gate.cache import CACHE
from ansible_collections.fleet.microcode.tests.gate.debian import Unavailable
from ansible_collections.fleet.microcode.tests.page import fleets
from ansible_collections.fleet.microcode.tests.page.browser import Browser, Tab


@pytest.fixture(scope="session", name="shown")
def shown_fixture(tmp_path_factory):
    """{fleet: {name: entry}, "plan-" fleet: {name: decision}, "rollout-" fleet: {name: its end}} of what has pages in the browser's folder, and the browser."""
    facts = fleets.recorded(tmp_path_factory.mktemp("trees"))
    hosts = {"recorded": fleets.fleet(facts), "many": fleets.many(facts, 10000), "nasty": fleets.nasty(facts["deb12-db1"]), "none": {}}
    folder = tmp_path_factory.mktemp("pages")
    for name, each in hosts.items():
        (folder / (name + ".html")).write_text(page_posture.render(each, report.posture(each), fleets.WHEN), encoding="ascii")
    plans = {"recorded": fleets.planned(dict(facts, lost=None)), "many": fleets.racked(facts, 2000), "nasty": fleets.nasty_plan(facts["deb12-db1"]),
             "none": fleets.planned({})}
    for name, each in plans.items():
        (folder / ("plan-%s.html" % name)).write_text(page_plan.render(*each), encoding="ascii")
        hosts["plan-" + name] = each[0]["hosts"]
        found = fleets.rolled(each[0], *(fleets.NASTY if name == "nasty" else ()))
        (folder / ("rollout-%s.html" % name)).write_text(page_rollout.render(*found), encoding="ascii")
        hosts["rollout-" + name] = found[1]["hosts"]
    try:
        browser = Browser(folder)
    except Unavailable as exc:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(exc))
    with browser:
        yield hosts, browser


@pytest.fixture
def visit(shown):
    """visit(fleet, …) -> Tab; when the test ends, no page may have complained or asked for anything."""
    tabs = []

    def go(name, **how):
        tabs.append(Tab(shown[1], name + ".html", **how))
        return tabs[-1]
    yield go
    for tab in tabs:
        assert tab.complaints() == []
        tab.close()


@pytest.fixture(scope="session")
def shots():
    """Folder (pathlib.Path) that keeps pictures of the pages, to be looked at."""
    folder = CACHE / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
