# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module: its documentation names what it returns and nothing else, and a sysroot that cannot be read is refused with the reason."""
import pathlib
import re
from unittest import mock

import pytest
import yaml

pytest.importorskip("ansible")

from ansible_collections.fleet.microcode.plugins.module_utils.facts import SUBSETS, gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.modules import microcode_facts
from ansible_collections.fleet.microcode.tests.fleet import trees

DOCUMENTED = yaml.safe_load(pathlib.Path(microcode_facts.__file__).with_suffix(".yml").read_text())
DATA = ("revisions", "states", "vulnerabilities")  # dicts whose keys are what hosts say


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The facts of every recorded host."""
    folder = tmp_path_factory.mktemp("fleet")
    trees.build_all(folder)
    return [gather(Host(str(folder / name))) for name in trees.hosts()]


def documented():
    return DOCUMENTED["RETURN"]["ansible_facts"]["contains"]["microcode"]["contains"]


def keys(value):
    """Every key in a section's value, at any depth."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set().union(value, *(keys(each) for key, each in value.items() if key not in DATA)) if isinstance(value, dict) else set()


def test_every_fact_is_documented_and_every_documented_fact_is_returned(recorded):
    for facts in recorded:
        assert set(facts) == set(documented())
    for name, section in documented().items():
        returned = set().union(*(keys(facts[name]) for facts in recorded)) if name not in DATA else set()
        assert set(re.findall(r"C\((\w+)\)", str(section["description"]))) - set(documented()) == returned - set(documented()), name


def test_every_fact_is_of_its_documented_type(recorded):
    types = {"int": int, "str": str, "bool": bool, "dict": dict, "list": list}
    for name, section in documented().items():
        said = [facts[name] for facts in recorded if facts[name] is not None]
        assert said and all(isinstance(value, types[section["type"]]) for value in said), name


def test_what_is_null_where_microcode_is_not_the_hosts_own_business(recorded):
    for facts in recorded:
        if not facts["applicable"]:
            assert [facts[name] for name in ("kernel_config", "early", "boot", "files", "pending")] == [None] * 5


def test_every_subset_is_documented():
    options = DOCUMENTED["DOCUMENTATION"]["options"]["gather_subset"]
    assert set(re.findall(r"V\(([a-z]+)\)", str(options["description"]))) == set(SUBSETS) | {"all", "min", "null"}


class Stopped(Exception):
    """What ends the module's run."""


def run(**params):
    """The arguments of exit_json or fail_json, one of which the module must call."""
    module = mock.Mock(params=dict({"sysroot": "/", "gather_subset": ["min"]}, **params))
    module.exit_json.side_effect = module.fail_json.side_effect = Stopped
    with mock.patch.object(microcode_facts, "AnsibleModule", return_value=module), pytest.raises(Stopped):
        microcode_facts.main()
    return (module.fail_json if module.fail_json.called else module.exit_json).call_args[1]


@pytest.mark.parametrize("name, why", [("nowhere", "No such file"), ("file", "Not a directory"), ("loop", "Too many levels"), ("\0", "null"), ("", "empty")])
def test_a_sysroot_that_cannot_be_read_is_refused_with_the_reason(name, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    message = run(sysroot=name)["msg"]
    assert 'sysroot "%s"' % name in message and why in message and "name a folder" in message


def test_an_image_without_its_processor_tells_the_distribution(tmp_path):
    """As documented: a mounted image alone has no /proc; a copy of cpuinfo makes the rest readable."""
    tree = trees.build(trees.hosts()["deb12-web1"], tmp_path / "tree")
    cpuinfo = (tree / "proc" / "cpuinfo").read_bytes()
    image = tmp_path / "image"
    image.mkdir()
    for name in ("etc", "usr", "lib", "boot", "var"):
        if (tree / name).exists():
            (tree / name).rename(image / name)
    facts = run(sysroot=str(image), gather_subset=["all"])["ansible_facts"]["microcode"]
    assert facts["distro"]["id"] == "debian" and facts["files"] is None and facts["applicable"] is None
    (image / "proc").mkdir()
    (image / "proc" / "cpuinfo").write_bytes(cpuinfo)
    facts = run(sysroot=str(image), gather_subset=["all"])["ansible_facts"]["microcode"]
    assert facts["files"][0]["revision"] == facts["pending"] == "0x02007006"
