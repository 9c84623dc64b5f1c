# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real browser, driven over Chromium's debugging pipe: the machine's own Chromium, or else one in a Debian root that is made for it and kept.

The pipe's words are those of the Chrome DevTools Protocol; messages end with a NUL byte.
"""
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PACKAGES = ["chromium", "fonts-dejavu-core"]
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"]
# the mounts and the browser's processes live in namespaces of their own, so that they end with it
INSIDE = 'mount --bind "$1" "$2/mnt" && mount -t proc proc "$2/proc" && mount -t tmpfs tmpfs "$2/tmp" && root=$2 && shift 2 && exec chroot "$root" "$@"'
PIPES = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
OPTIONS = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars", "--disable-gpu", "--disable-dev-shm-usage",
           "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]
SECONDS = 120  # for one answer, on a slow machine


class Broken(Exception):
    """The browser does not do what it was asked to."""


def root():
    """Folder (pathlib.Path) of a Debian system that holds Chromium. Raises debian.Unavailable."""
    lines = debian.sources()
    options = ["--dpkgopt=path-exclude=" + path for path in LEFT_OUT]
    return kept("browser", lines + PACKAGES, lambda folder: debian.bootstrap(folder, lines, PACKAGES, options), days=30)


def command(folder):
    """(argument list of a browser, address of the folder as that browser sees it). Raises debian.Unavailable."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program:
        return [program], folder.as_uri()
    if os.geteuid():
        raise debian.Unavailable("there is no %s here, and a Debian root that holds one is made as root" % " or ".join(PROGRAMS))
    inside = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8", "chromium"]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", INSIDE, "sh", str(folder), str(root())] + inside, "file:///mnt"


class Browser:
    """A running browser that sees one folder; a context manager."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        argv, self.address = command(self.folder)
        profile = "--user-data-dir=%s/profile" % self.address.partition("://")[2]
        options = OPTIONS + [profile] + ([] if os.geteuid() else ["--no-sandbox"])  # which Chromium refuses to set up for root
        (take, self.give), (self.take, give) = os.pipe(), os.pipe()
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (take, give)]
        self.log = open(self.folder / "browser.log", "wb")
        self.process = subprocess.Popen([sys.executable, "-c", PIPES] + list(map(str, high)) + argv + options, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, pass_fds=high)
        for each in (take, give, *high):
            os.close(each)
        self.number, self.rest, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        os.close(self.give)  # at the pipe's end the browser ends
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.take)
        self.log.close()

    def message(self, until):
        """The next message."""
        while b"\0" not in self.rest:
            ready, _write, _error = select.select([self.take], [], [], max(0, until - time.monotonic()))
            read = os.read(self.take, 1 << 20) if ready else b""
            if not read:
                raise Broken("no answer from the browser; it said:\n" + (self.folder / "browser.log").read_text(errors="replace")[-3000:])
            self.rest += read
        text, _nul, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def call(self, method, session=None, **parameters):
        """The result of a command; events that come before it are kept."""
        self.number += 1
        said = dict({"id": self.number, "method": method, "params": parameters}, **({"sessionId": session} if session else {}))
        data = json.dumps(said).encode() + b"\0"
        while data:
            data = data[os.write(self.give, data):]
        until = time.monotonic() + SECONDS
        while True:
            heard = self.message(until)
            if heard.get("id") == self.number:
                if "error" in heard:
                    raise Broken("%s: %s" % (method, heard["error"]["message"]))
                return heard["result"]
            self.events.append(heard)

    def wait(self, method, session):
        """The next event of this kind, also one that was heard before."""
        until = time.monotonic() + SECONDS
        while True:
            found = next((each for each in self.events if each["method"] == method and each.get("sessionId") == session), None)
            if found:
                self.events.remove(found)
                return found["params"]
            self.events.append(self.message(until))


class Tab:
    """One page in a browser. scripts: whether the page's own may run."""

    def __init__(self, browser, name, width=1280, height=900, dark=False, scripts=True):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.width(width, height)
        self.media("screen", dark)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url="%s/%s" % (browser.address, name))
        browser.wait("Page.loadEventFired", self.session)

    def call(self, method, **parameters):
        """The result of a command to this page."""
        return self.browser.call(method, self.session, **parameters)

    def close(self):
        """Leave the page."""
        self.browser.call("Target.closeTarget", targetId=self.target)

    def width(self, width, height=900):
        """Make the window, or the phone, that large."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)

    def media(self, kind, dark=False):
        """Show it as on a screen or on paper, in light or dark."""
        self.call("Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def value(self, expression):
        """What a JavaScript expression comes to."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise Broken("%s: %s" % (expression, found["exceptionDetails"]["exception"].get("description")))
        return found["result"].get("value")

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def complaints(self):
        """What the browser found wrong with the page so far, and what the page asked for beside itself."""
        self.value("1")  # what was said before this is here by now
        found = []
        for each in self.browser.events:
            said, kind = each["params"], each["method"]
            if each.get("sessionId") == self.session and (kind in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")):
                found.append(json.dumps(said))
            elif each.get("sessionId") == self.session and kind == "Network.requestWillBeSent" and said["documentURL"] != said["request"]["url"]:
                found.append("asked for " + said["request"]["url"])
        return found

    def shot(self, path, whole=True):
        """Write a picture of the page, or of what the window shows of it."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def paper(self, path):
        """Print it to a PDF."""
        data = self.call("Page.printToPDF", preferCSSPageSize=False, paperWidth=8.27, paperHeight=11.69)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
