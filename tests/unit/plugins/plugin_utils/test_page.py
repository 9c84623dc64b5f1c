# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the pages are made of; what they say is tested beside this. tests/page opens them in a browser."""
import base64
import hashlib
import html.parser
import json
import pathlib
import re

import pytest

from ansible_collections.fleet.microcode.plugins.plugin_utils import page, plan, report

BESIDE = pathlib.Path(page.__file__).parent
EMPTY = {"meta", "col", "input"}  # elements without an end


class Parsed(html.parser.HTMLParser):
    """A page as a parser sees it: kinds, the (tag, attribute names) in it; elements, (tag, attributes, text with that of all within)."""

    def __init__(self, text):
        super().__init__()
        self.open, self.kinds, self.elements, self.declared = [], set(), [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.kinds.add((tag, tuple(sorted(key for key, _value in attrs))))
        self.elements.append((tag, dict(attrs), []))
        if tag not in EMPTY:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _tag, _attributes, texts in self.open:
            texts.append(data)

    def handle_decl(self, decl):
        self.declared.append(decl)

    def handle_comment(self, data):
        raise AssertionError("a comment: %s" % data)

    unknown_decl = handle_pi = handle_comment

    def texts(self, tag, **attributes):
        """Texts of all elements of that tag with these attributes, white space made one."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [" ".join("".join(texts).split()) for name, found, texts in self.elements
                if name == tag and all(found.get(key) == value for key, value in wanted.items())]


def data_of(parsed):
    """What the script reads, with the texts in their places."""
    found = json.loads(next("".join(texts) for tag, attributes, texts in parsed.elements if tag == "script" and attributes.get("id") == "data"))
    found["values"] = {key: [[found["texts"][each] for each in value] if isinstance(value, list) else value for value in values]
                       for key, values in found["values"].items()}
    return found


def row_of(parsed, name):
    """{column: what the script shows of a host}."""
    data = data_of(parsed)
    host = data["names"].index(name)
    return {key: values[data["of"][key][host]] for key, values in data["values"].items()}


def held_to_itself(text, parsed):
    """A page loads nothing, and runs no code but the script that it is delivered with."""
    policy = next(attributes["content"] for tag, attributes, _texts in parsed.elements if tag == "meta" and "http-equiv" in attributes)
    inline = [re.search("<%s>(.*?)</%s>" % (tag, tag), text, re.S).group(1) for tag in ("style", "script")]
    digests = ["'sha256-%s'" % base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline]
    assert policy.split("; ")[:3] == ["default-src 'none'", "style-src " + digests[0], "script-src " + digests[1]]
    assert "unsafe" not in policy
    for each in inline:
        assert "</" not in each and not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg|www\.gnu\.org/licenses)", each)
    assert not [attributes for _tag, attributes, _texts in parsed.elements if any(key == "src" or key == "style" or key.startswith("on") for key in attributes)]


@pytest.mark.parametrize("said, groups", [
    ({"a": "no"}, [("no", ["a"])]),
    ({"a": "carries 0x01", "b": "carries 0x02", "c": "carries none"}, [("carries \u2026", ["a", "b"]), ("carries none", ["c"])]),
    ({"a": "x 1 of 2", "b": "x 1 of 3"}, [("x 1 of \u2026", ["a", "b"])]),
    ({"a": "x 1", "b": "y 1", "c": "y 2"}, [("y \u2026", ["b", "c"]), ("x 1", ["a"])]),
    ({"a": "on CPUs 1-2, 5; rest", "b": "on CPUs 7; rest"}, [("on CPUs \u2026; rest", ["a", "b"])]),
    ({"web.example": "no web.example", "mail.example": "no mail.example"}, [("no \u2026", ["web.example", "mail.example"])]),
    ({"web.example": "cannot resolve web.example"}, [("cannot resolve web.example", ["web.example"])]),
    ({"host": "the host is down", "web1": "the host is down"}, [("the host is down", ["host"]), ("the host is down", ["web1"])]),
    ({"a": "/boot/initrd.img-6.1.0-56-amd64 <b>", "b": "/boot/initrd.img-6.1.0-57-amd64 <b>"}, [("/boot/initrd.img-\u2026 <b>", ["a", "b"])]),
])
def test_alike(said, groups):
    found = [(Parsed(page.element("p", text)).texts("p")[0], names) for text, names in page.alike(said.items())]
    assert found == groups


def luminance(color):
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(color[index:index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_enough_in_light_and_dark():
    style = (BESIDE / "page.css").read_text()
    dark = style.index("prefers-color-scheme: dark")
    kinds = {"." + kind for kind in [*report.STATES, *plan.ACTIONS]}
    for part in (style[:dark], style[dark:style.index("* {")]):
        found = re.findall(r"(--[a-z]+|(?:\.[a-z_]+(?:, )?)+)(?: \{ --c)?: (#[0-9a-f]{6})", part)
        scheme = {name: color for names, color in found for name in names.split(", ")}
        assert kinds < set(scheme)
        for name, least in [("--ink", 7), ("--quiet", 4.5), ("--link", 4.5)] + [(kind, 3) for kind in kinds]:
            for ground in ("--paper", "--ground", "--hover"):
                one, other = sorted(map(luminance, (scheme[name], scheme[ground])))
                assert (other + 0.05) / (one + 0.05) >= least, (name, ground)


def test_what_lies_beside_it_is_plain():
    for name in ("page.css", "page.js"):
        text = (BESIDE / name).read_text(encoding="ascii")
        assert "\r" not in text and "</" not in text


@pytest.mark.parametrize("values, ordered", [
    (["node10", "node9", "Node1"], ["Node1", "node9", "node10"]), (["", "10", "9"], ["9", "10", ""]),
    ([(), ("b", "2"), ("b", "10")], [("b", "2"), ("b", "10"), ()]),
])
def test_numbers_sort_as_numbers_and_what_is_empty_comes_last(values, ordered):
    assert sorted(values, key=page.natural) == ordered


def test_every_kind_has_a_sign_of_its_own_among_those_it_is_seen_with():
    for kinds in (report.STATES, plan.ACTIONS):
        assert len({page.ICONS[kind] for kind in kinds}) == len(kinds)
        assert all(kind in page.TEXTURES for kind in kinds if kind not in ("cpus_differ", "pending_reboot", "nothing_newer", "not_applicable", "early", "none"))
