# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a host is and whose key it must show, as ssh's own files say."""
import base64
import socket
import subprocess
import threading
import time

import pytest

paramiko = pytest.importorskip("paramiko")

from ansible_collections.fleet.microcode.plugins.plugin_utils import ssh, sweep


class Key:
    """A public key as paramiko shows it."""

    def __init__(self, text, kind="ssh-ed25519"):
        self.blob, self.kind, self.fingerprint = text.encode(), kind, "SHA256:" + text

    def asbytes(self):
        return self.blob

    def get_name(self):
        return self.kind

    def line(self, names):
        return "%s %s %s comment\n" % (names, self.kind, base64.b64encode(self.blob).decode())


@pytest.fixture
def known(tmp_path):
    def make(*lines):
        path = tmp_path / "known_hosts"
        path.write_text("".join(lines))
        return ssh.KnownHosts((str(path), str(tmp_path / "missing")))
    return make


@pytest.mark.parametrize("names, asked, good", [
    ("web1,10.0.0.1", "10.0.0.1", True), ("WEB1", "web1", True), ("web1", "web2", False), ("[web1]:2222", "[web1]:2222", True), ("[web1]:2222", "web1", False),
    ("web*,!web3", "web2", True), ("web*,!web3", "web3", False), ("web?", "web12", False), ("[web*]:22", "[web1]:22", True),
])
def test_which_hosts_a_line_is_about(known, names, asked, good):
    right = Key("right")
    hosts = known("# a comment\n", "\n", "broken line\n", right.line(names))
    if good:
        hosts.check(asked, right, False)
        with pytest.raises(ssh.SSHError, match="is not the known one") as caught:
            hosts.check(asked, Key("wrong"), True)  # also with accept-new
        assert caught.value.kind == "host_key" and "ssh-keygen -R '%s'" % asked in str(caught.value)
    else:
        with pytest.raises(ssh.SSHError, match="is in none of .*known_hosts"):
            hosts.check(asked, right, False)


def test_hashed_names_as_ssh_keygen_writes_them(tmp_path, known):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    kind, blob = (tmp_path / "key.pub").read_text().split()[:2]
    known("web1 %s %s\n[web2]:2222 %s %s\n" % (kind, blob, kind, blob))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(tmp_path / "known_hosts")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert "web" not in (tmp_path / "known_hosts").read_text()
    hosts = ssh.KnownHosts((str(tmp_path / "known_hosts"),))
    for name in ("web1", "[web2]:2222"):
        assert [key[:2] for key in hosts.keys(name)] == [(kind, base64.b64decode(blob))]
    assert hosts.keys("web3") == []


def test_a_revoked_key_and_a_certificate_authority(known):
    right = Key("right")
    with pytest.raises(ssh.SSHError, match="marked as revoked"):
        known(right.line("web1"), right.line("@revoked *")).check("web1", right, True)
    with pytest.raises(ssh.SSHError, match="is in none of"):
        known(right.line("@cert-authority *")).check("web1", right, False)


def test_a_new_key_is_noted_once_and_then_held_to(tmp_path, known):
    hosts = known("web0 ssh-ed25519 AAAA")  # its last line has no end
    hosts.check("web1", Key("first"), True)
    hosts.check("web1", Key("first"), False)
    with pytest.raises(ssh.SSHError, match="is not the known one"):
        hosts.check("web1", Key("second", "ssh-rsa"), True)  # of another type: an impostor could choose that
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert lines == ["web0 ssh-ed25519 AAAA", "web1 ssh-ed25519 " + base64.b64encode(b"first").decode()]
    ssh.KnownHosts((str(tmp_path / "known_hosts"),)).check("web1", Key("first"), False)


def test_the_configuration(tmp_path):
    (tmp_path / "more").write_text("Host web*\n  User deploy\n  Port 2222\n  HostName %h.example.org\n")
    (tmp_path / "config").write_text("Host db1\n  HostKeyAlias db\n  ProxyJump admin@jump:2200,second\n  IdentitiesOnly yes\n  IdentityFile ~/one\n"
                                     "Include %s\n  IdentityFile ~/two\n"
                                     "Host odd\n  ProxyCommand nc %%h %%p\nHost *\n  UserKnownHostsFile ~/k1 ~/k2\n" % (tmp_path / "more"))
    config = ssh.configuration(str(tmp_path / "config"))
    web = ssh.target(config, "web1")
    assert (web.address, web.port, web.user, web.known_as, web.jumps) == ("web1.example.org", 2222, "deploy", "[web1.example.org]:2222", ())
    assert [path.rsplit("/", 1)[1] for path in web.known_hosts] == ["k1", "k2", "ssh_known_hosts"] and not web.known_hosts[0].startswith("~")
    assert ssh.target(config, "x", address="web1", user="other", port="22").known_as == "web1.example.org"
    database = ssh.target(config, "db1")
    assert database.jumps == ("admin@jump:2200", "second") and database.known_as == "db" and database.only_these
    assert [path.rsplit("/", 1)[1] for path in database.keys] == ["one", "two"]  # after what was included, the block goes on
    with pytest.raises(ssh.SSHError, match="ProxyCommand, which is a shell command"):
        ssh.target(config, "odd")
    with pytest.raises(ssh.SSHError, match="is no port"):
        ssh.target(config, "web1", port=99999)
    assert "secret" not in repr(ssh.target(config, "web1", password="secret"))


@pytest.mark.parametrize("text, said", [
    ("Match exec \"touch %s\"\n  User x\n", "runs a shell command"), ("Include %s/config\n", "include each other"), ("Host\n", "cannot be used"),
])
def test_a_configuration_that_is_not_used(tmp_path, text, said):
    path = tmp_path / "config"
    path.write_text(text % tmp_path if "%s" in text else text)
    with pytest.raises(ssh.SSHError, match=said):
        ssh.configuration(str(path))


class Deaf(paramiko.ServerInterface):
    """A server that lets everybody in, and then does not answer what it is asked to run."""
    until = threading.Event()

    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL if password == "hunter2" else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username):
        return "password"

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        self.until.wait(300)
        return False


@pytest.fixture
def deaf(tmp_path):
    """Target of such a server, whose key is known."""
    key = paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            while True:
                try:
                    transport = paramiko.Transport(listening.accept()[0])
                except OSError:
                    return
                transport.set_log_channel(ssh.LOG)
                transport.add_server_key(key)
                transport.start_server(server=Deaf(), event=threading.Event())
        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        (tmp_path / "known_hosts").write_text("[127.0.0.1]:%d %s %s\n" % (port, key.get_name(), key.get_base64()))
        yield ssh.Target("deaf", "127.0.0.1", port, "me", (str(tmp_path / "none"),), True, "hunter2", (), "[127.0.0.1]:%d" % port,
                         (str(tmp_path / "known_hosts"),))
        Deaf.until.set()
        listening.shutdown(socket.SHUT_RDWR)


def test_a_host_that_lets_us_in_and_then_says_nothing(deaf, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    started = time.monotonic()
    wrong = ssh.Target(**dict(vars(deaf), password="wrong-one"))
    found = sweep.Sweep(ssh.Connector(None), 5, 3, 600).run({"deaf": (lambda: deaf, False), "wrong": (lambda: wrong, False)})
    assert found["deaf"] == (None, ("time", "no end within its time limit; stopped"))
    assert found["wrong"] == (None, ("login", "me was not let in with a password"))
    assert "wrong-one" not in str(found) and time.monotonic() - started < 100


class Ended:
    """A connection and its channel, of a login shell that says something and ends before it is given anything."""
    said, sock = [b"This account is ", b"not available.", b""], ssh.Metered(None, 0)

    def open_session(self, timeout):
        return self

    def recv(self, size):
        return self.said.pop(0)

    def sendall(self, data):
        raise OSError("Socket is closed")

    def recv_stderr_ready(self):
        return False

    def exec_command(self, command):
        """Taken."""

    settimeout = exec_command

    def close(self):
        """Nothing is left to close."""


def test_a_login_shell_that_ends_at_once_is_heard():
    assert ssh.Connector(None).run(Ended(), "x", b"script", 1000, b"end", time.monotonic() + 60) == (b"This account is not available.", b"")


@pytest.mark.parametrize("before", [b"", b"SSH-2.0-x\r\n\x3f\xff\xff\xfc"], ids=["greeting", "packet of 1 GB"])
def test_a_host_that_greets_without_end(tmp_path, before):
    (tmp_path / "known_hosts").touch()
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            with listening.accept()[0] as sock:
                sock.sendall(before)
                try:
                    while True:
                        taken.append(sock.send(bytes(65536)))
                except OSError:
                    pass
        threading.Thread(target=serve, daemon=True).start()
        where = ssh.Target("endless", "127.0.0.1", listening.getsockname()[1], "me", known_as="x", known_hosts=(str(tmp_path / "known_hosts"),))
        found = sweep.Sweep(ssh.Connector(None), 5, 120, 600).run({"endless": (lambda: where, False)})
    assert found["endless"] == (None, ("answer", "it sends without end; stopped after %d bytes" % ssh.GREETING))
    assert sum(taken) < 100 * ssh.GREETING
