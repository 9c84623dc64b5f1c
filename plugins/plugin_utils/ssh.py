# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One command on one host over SSH: as ssh would go there (configuration, known hosts, keys, agent, jump hosts), but without a process or a shell here."""
import base64
import binascii
import contextlib
import fnmatch
import getpass
import glob
import hashlib
import hmac
import logging
import math
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field

try:
    import paramiko
except ImportError:
    paramiko = None

LOG = "fleet.microcode.ssh"  # paramiko writes there what a host did wrong, with its own stack; the reason that is given here says it
logging.getLogger(LOG).addHandler(logging.NullHandler())
logging.getLogger(LOG).propagate = False
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")  # tried where the configuration names none
KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # a key of this type: what it signs with; else its type's own name
HOPS = 8  # jump hosts on the way to one host
GREETING = 256 << 10  # bytes that a host may send before it has let us in
HOST, ADDRESS, CONNECT, HOST_KEY, LOGIN, ANSWER, TIME = "host", "address", "connect", "host_key", "login", "answer", "time"  # kinds of failure


class SSHError(Exception):
    """A host was not looked at: kind is one of the words above; the text says what was found and what would change it."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


# --- the configuration ---

def configuration(path=None):
    """paramiko.SSHConfig of this file, or of the user's and the system's as ssh reads them. Raises SSHError."""
    files = [path] if path else [each for each in (os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config") if os.path.exists(each)]
    try:
        return paramiko.SSHConfig.from_text("\n".join("Host *\n" + _included(each) for each in files))
    except (OSError, UnicodeDecodeError, paramiko.SSHException, ValueError) as exc:
        raise SSHError(HOST, "the SSH configuration %s cannot be used: %s" % (" and ".join(files), getattr(exc, "strerror", None) or exc)) from None


def _included(path, depth=0):
    """The text of a configuration with what it includes in place, after which the Host or Match line before it holds again."""
    if depth > 16:
        raise ValueError("%s: files include each other" % path)
    found, block = [], "Host *"
    with open(path, encoding="utf-8") as stream:
        for line in stream.read().splitlines():
            word, _space, rest = re.sub(r"^(\w+)\s*=\s*", r"\1 ", line.strip()).partition(" ")
            if word.lower() == "match" and re.search(r"\bexec\b", rest, re.I):
                raise ValueError("%s: \"%s\" runs a shell command, which is not done here; name a file without it (option ssh_config)" % (path, line.strip()))
            if word.lower() in ("host", "match"):
                block = line
            if word.lower() != "include":
                found.append(line)
                continue
            for pattern in rest.split():
                base = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.expanduser("~/.ssh")
                for each in sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern.strip('"'))))):
                    found += [_included(each, depth + 1), block]
    return "\n".join(found)


@dataclass(frozen=True)
class Target:
    """Where and as whom to go, as the configuration and the inventory say."""
    name: str
    address: str
    port: int
    user: str
    keys: tuple = ()  # files of private keys, in order
    only_these: bool = False  # IdentitiesOnly: nothing of the agent but these
    password: str = field(default=None, repr=False)
    jumps: tuple = ()  # "user@host:port", the first one first
    known_as: str = ""  # in known_hosts
    known_hosts: tuple = ()


def target(config, name, address=None, port=None, user=None, key=None, password=None):
    """Target of a host of this name; what is given goes before the configuration. Raises SSHError."""
    asked = address or name
    try:
        found = config.lookup(asked)
        port = int(port or found.get("port", 22))
    except (paramiko.SSHException, ValueError, KeyError) as exc:
        raise SSHError(HOST, "the SSH configuration says nothing usable of %s: %s" % (asked, exc)) from None
    if not 0 < port < 65536:
        raise SSHError(HOST, "%d is no port" % port)
    jump = (found.get("proxyjump") or "none").strip()
    if jump.lower() == "none" and found.get("proxycommand"):
        raise SSHError(HOST, "the SSH configuration reaches it by a ProxyCommand, which is a shell command and not run here; ProxyJump names a jump host")
    address = found["hostname"]
    known_as = found.get("hostkeyalias") or (address if port == 22 else "[%s]:%d" % (address, port))
    known = (found.get("userknownhostsfile", KNOWN_HOSTS) + " " + found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")).replace('"', "").split()
    keys = ([key] if key else []) + found.get("identityfile", [])
    return Target(name, address, port, user or found.get("user") or getpass.getuser(), tuple(map(os.path.expanduser, keys)),
                  found.get("identitiesonly", "no").lower() == "yes", password, () if jump.lower() == "none" else tuple(re.split(r"\s*,\s*", jump)),
                  known_as.lower(), tuple(map(os.path.expanduser, known)))


# --- host keys ---

class KnownHosts:
    """The keys of ssh's known_hosts files, read once: plain and hashed names, patterns, [host]:port, @revoked; certificates are not looked at."""

    def __init__(self, paths):
        self.paths, self.plain, self.hashed, self.patterns, self.lock = paths, {}, [], [], threading.Lock()
        for path in paths:
            try:
                with open(path, encoding="utf-8", errors="replace") as stream:
                    for line in stream:
                        self._add(line)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise SSHError(HOST_KEY, "%s cannot be read: %s" % (path, exc.strerror)) from None

    def _add(self, line):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else None
        if len(words) < 3 or words[0].startswith("#") or marker not in (None, "@revoked"):
            return
        try:
            key = words[1], base64.b64decode(words[2]), marker is not None
            if words[0].startswith("|1|"):
                self.hashed.append(tuple(base64.b64decode(part) for part in words[0].split("|")[2:4]) + (key,))
                return
        except (binascii.Error, ValueError):
            return
        names = words[0].lower().split(",")
        if re.search(r"[*?!]", words[0]):
            self.patterns.append((names, key))
        else:
            for name in names:
                self.plain.setdefault(name, []).append(key)

    def keys(self, name):
        """[(type, blob, revoked)] of a host."""
        found = list(self.plain.get(name, ()))
        found += [key for salt, digest, key in self.hashed if hmac.digest(salt, name.encode(), hashlib.sha1) == digest]
        for names, key in self.patterns:
            if any(_like(name, each) for each in names if each[0] != "!") and not any(_like(name, each[1:]) for each in names if each[0] == "!"):
                found.append(key)
        return found

    def check(self, name, key, accept_new):
        """None where this is the host's key; one of a host with no known key is noted where accept_new. Raises SSHError."""
        shown = "%s %s" % (key.get_name(), key.fingerprint)
        with self.lock:  # two names of one host may come at once
            known = self.keys(name)
            blob = key.asbytes()
            if any(revoked and blob == each for _type, each, revoked in known):
                raise SSHError(HOST_KEY, "its host key %s is marked as revoked in %s" % (shown, self.paths[0]))
            known = [each for each in known if not each[2]]
            if any(blob == each for _type, each, _revoked in known):
                return
            if known:
                raise SSHError(HOST_KEY, "its host key %s is not the known one: it was installed anew, or someone else answers in its place; if it is right, "
                                         "remove the old one: ssh-keygen -R '%s' -f %s" % (shown, name, self.paths[0]))
            if not accept_new:
                raise SSHError(HOST_KEY, "its host key %s is in none of %s; compare it with the host's own and add it, or set host_keys: accept-new"
                               % (shown, ", ".join(self.paths)))
            self._append(name, key, blob)

    def _append(self, name, key, blob):
        entry = "%s %s %s\n" % (name, key.get_name(), base64.b64encode(blob).decode())
        try:
            os.makedirs(os.path.dirname(self.paths[0]), mode=0o700, exist_ok=True)
            with open(self.paths[0], "a+b") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
                broken = stream.read(1) not in (b"", b"\n")
                stream.write(b"\n" * broken + entry.encode())
        except OSError as exc:
            raise SSHError(HOST_KEY, "its new host key cannot be noted in %s: %s" % (self.paths[0], exc.strerror)) from None
        self._add(entry)


def _like(name, pattern):
    """ssh's patterns: * and ? alone are special."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


# --- the way there ---

class Metered:
    """A socket, or what stands for one, of which no more than `left` bytes are taken: SSH itself lets the other side send packets of any number and size."""

    def __init__(self, sock, left):
        self.sock, self.allowed, self.left = sock, left, left

    def allow(self, count):
        """From here on so many bytes are taken."""
        self.allowed = self.left = count

    def recv(self, size):
        data = self.sock.recv(min(size, 1 << 16))  # as much as is asked for is set aside
        self.left -= len(data)
        return data if self.left >= 0 else b""

    def __getattr__(self, name):
        return getattr(self.sock, name)


class Connector:
    """Goes to hosts; keys, known hosts and jump hosts are shared by all that go. Threads may use it together; close() ends it."""

    def __init__(self, config, accept_new=False, connect_timeout=10):
        self.config, self.accept_new, self.connect_timeout = config, accept_new, connect_timeout
        self.lock, self.known, self.keys, self.jumps, self.watched = threading.RLock(), {}, {}, {}, {}

    def reach(self, where, deadline):
        """A socket, or a channel of a jump host, on which a host has begun to speak SSH; deadline: of time.monotonic(). Raises SSHError."""
        until = min(deadline, time.monotonic() + self.connect_timeout)
        if where.jumps:
            return self._through(where, deadline)
        try:
            places = socket.getaddrinfo(where.address, where.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise SSHError(ADDRESS, "the name %s has no address: %s" % (where.address, getattr(exc, "strerror", None) or exc)) from None
        problem = None
        for family, kind, protocol, _name, address in places:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(0.01, until - time.monotonic()))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(max(0.01, until - time.monotonic()))
                if sock.recv(1, socket.MSG_PEEK):
                    return sock
                problem = SSHError(CONNECT, "%s port %d takes connections and closes them at once" % address[:2])
            except socket.timeout:
                problem = SSHError(CONNECT, "%s port %d: nothing of SSH within %d s" % (address[:2] + (self.connect_timeout,)))
            except OSError as exc:
                problem = SSHError(CONNECT, "%s port %d: %s" % (address[:2] + (exc.strerror or exc,)))
            sock.close()
        raise problem or SSHError(ADDRESS, "the name %s has no address" % where.address)

    def _through(self, where, deadline, depth=0):
        """A channel of the last jump host."""
        transport = None
        for number, jump in enumerate(where.jumps):
            transport = self._jump(jump, where.jumps[:number], deadline, depth)
        try:
            return transport.open_channel("direct-tcpip", (where.address, where.port), ("127.0.0.1", 0),
                                          timeout=max(0.1, min(self.connect_timeout, deadline - time.monotonic())))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise SSHError(CONNECT, "the jump host %s does not reach %s port %d: %s" % (where.jumps[-1], where.address, where.port, exc or "closed")) from None

    def _jump(self, text, before, deadline, depth):
        """The one connection to a jump host, which all hosts behind it use."""
        with self.lock:
            slot = self.jumps.setdefault((before, text), {"lock": threading.Lock(), "transport": None, "problem": None})
        if not slot["lock"].acquire(timeout=max(0.01, deadline - time.monotonic())):
            raise SSHError(TIME, "the jump host %s could not be reached in time" % text)
        try:
            if slot["problem"]:  # once for all
                raise SSHError(slot["problem"].kind, str(slot["problem"]))
            if slot["transport"] is None or not slot["transport"].is_active():
                slot["transport"] = self._open_jump(text, before, deadline, depth)
            return slot["transport"]
        except SSHError as exc:
            slot["problem"] = exc
            raise
        finally:
            slot["lock"].release()

    def _open_jump(self, text, before, deadline, depth):
        match = re.fullmatch(r"(?:ssh://)?(?:([^@\s]+)@)?(\[[^]\s]+\]|[^:\s@]+)(?::(\d{1,5}))?/?", text)
        if not match or depth >= HOPS:
            raise SSHError(HOST, "%s is no jump host; ProxyJump takes [user@]host[:port]" % text if not match else "more than %d jump hosts on the way" % HOPS)
        user, address, port = match.groups()
        try:
            where = target(self.config, address.strip("[]"), port=port, user=user)
            if before or where.jumps == (text,):  # the list says the way there; or the jump host is among those that it serves
                where = Target(**dict(vars(where), jumps=before))
            sock = self._through(where, deadline, depth + 1) if where.jumps else self.reach(where, deadline)
            transport = self.login(where, sock, deadline)
            transport.sock.allow(math.inf)  # what the hosts behind it send is counted there
            return transport
        except SSHError as exc:
            raise SSHError(exc.kind, "the jump host %s: %s" % (text, exc)) from None

    def login(self, where, sock, deadline):
        """A paramiko.Transport whose host key was checked and that has been let in. Raises SSHError; the socket is then closed."""
        transport, sock = None, Metered(sock, GREETING)
        try:
            known = self._known(where.known_hosts)
            transport = paramiko.Transport(sock)
            transport.set_log_channel(LOG)
            self._watch(transport, deadline)
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = max(0.1, deadline - time.monotonic())
            options = transport.get_security_options()
            wanted = [name for kind, _blob, _revoked in known.keys(where.known_as) for name in ALGORITHMS.get(kind, (kind,))]
            options.key_types = sorted(options.key_types, key=lambda name: name not in wanted)  # as ssh: the server is asked for a key that is known
            try:
                transport.start_client(timeout=transport.banner_timeout)
                key = transport.get_remote_server_key()
            except (paramiko.SSHException, EOFError, OSError) as exc:
                why = "it does not speak SSH as understood here: %s" % (exc or "it closed the connection")
                raise self._ended(sock, deadline) or SSHError(CONNECT, why) from None
            known.check(where.known_as, key, self.accept_new)
            try:
                self._authenticate(transport, where)
            except (paramiko.SSHException, EOFError, OSError) as exc:
                raise self._ended(sock, deadline) or SSHError(LOGIN, "%s was not let in: %s" % (where.user, exc or "it closed the connection")) from None
            self._watch(transport, None)
            return transport
        except BaseException:
            self.leave(transport, sock)
            raise

    def run(self, transport, command, given, limit, complete, deadline):
        """Bytes that a command writes, which gets `given` on its standard input, up to what `complete` ends; and 2000 of its standard error.

        limit: bytes that the host may send.
        """
        self._watch(transport, deadline)
        transport.sock.allow(limit)
        data = bytearray()
        try:
            with contextlib.closing(transport.open_session(timeout=max(0.1, deadline - time.monotonic()))) as channel:
                channel.exec_command(command)
                channel.settimeout(max(0.1, deadline - time.monotonic()))
                with contextlib.suppress(OSError):  # one that has ended already has said why
                    channel.sendall(given)
                    channel.shutdown_write()
                while not data.endswith(complete):
                    channel.settimeout(max(0.1, deadline - time.monotonic()))
                    more = channel.recv(1 << 16)
                    data += more
                    if not more:
                        problem = self._ended(transport.sock, deadline)
                        if problem:
                            raise problem
                        break
                return bytes(data), channel.recv_stderr(2000) if channel.recv_stderr_ready() else b""
        except (paramiko.SSHException, EOFError, OSError) as exc:
            why = "the command could not be run: %s" % (exc or "it closed the connection")
            raise self._ended(transport.sock, deadline) or SSHError(ANSWER, why) from None

    def leave(self, transport, sock=None):
        """End a connection, at once."""
        sock = transport.sock if transport else sock
        with contextlib.suppress(Exception):  # whatever state it is in
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
        with contextlib.suppress(Exception):
            sock.close()
        if transport:
            self._watch(transport, None)
            with contextlib.suppress(Exception):
                transport.close()

    def cut(self):
        """End what is past its deadline, whatever it waits for; to be called now and then."""
        with self.lock:
            late = [transport for transport, deadline in self.watched.items() if deadline < time.monotonic()]
        for transport in late:
            with contextlib.suppress(Exception):
                transport.sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End the connections to jump hosts."""
        for slot in self.jumps.values():
            if slot["transport"]:
                self.leave(slot["transport"])

    def _watch(self, transport, deadline):
        with self.lock:
            self.watched.pop(transport, None)
            if deadline is not None:
                self.watched[transport] = deadline

    @staticmethod
    def _ended(sock, deadline):
        """Why we ended a connection ourselves, or None."""
        if sock.left < 0:
            return SSHError(ANSWER, "it sends without end; stopped after %d bytes" % sock.allowed)
        return SSHError(TIME, "no end within its time limit; stopped") if time.monotonic() >= deadline else None

    def _known(self, paths):
        with self.lock:
            if paths not in self.known:
                self.known[paths] = KnownHosts(paths)
            return self.known[paths]

    # --- who we are ---

    def _authenticate(self, transport, where):
        """Log in; raises what paramiko does, or SSHError with what was tried."""
        tried, unusable = [], []
        with contextlib.ExitStack() as stack:
            for name, key in self._offers(where, stack, unusable):
                try:
                    more = transport.auth_publickey(where.user, key)
                except paramiko.BadAuthenticationType as exc:
                    unusable.append("the host takes %s only" % ", ".join(exc.allowed_types))
                    break
                except paramiko.AuthenticationException:
                    tried.append(name)
                    if not transport.is_active():
                        raise SSHError(LOGIN, "it closed the connection after %d keys; IdentityFile with IdentitiesOnly chooses one" % len(tried)) from None
                    continue
                if more:
                    raise SSHError(LOGIN, "it wants %s besides a key, which is not done here" % " or ".join(more))
                return
        if where.password is not None:
            with contextlib.suppress(paramiko.AuthenticationException):
                if not transport.auth_password(where.user, where.password):
                    return
            tried.append("a password")
        raise SSHError(LOGIN, "%s was not let in with %s%s" % (where.user, ", ".join(tried) or "no key at all", "".join("; " + each for each in unusable)))

    def _offers(self, where, stack, unusable):
        """(name, key) in the order in which ssh offers them; the agent is asked only where it is come to."""
        paths = where.keys or tuple(map(os.path.expanduser, DEFAULT_KEYS))
        locked = []
        for path in paths:
            key, problem = self._key(path)
            if key:
                yield path, key
            elif problem:
                locked.append(path)
                unusable.append("%s: %s" % (path, problem))
        if os.environ.get("SSH_AUTH_SOCK"):
            try:
                agent = paramiko.Agent()
            except (paramiko.SSHException, OSError) as exc:
                unusable.append("the agent does not answer: %s" % exc)
                return
            stack.callback(agent.close)
            public = set(filter(None, map(_public, paths)))
            loaded = set(key.asbytes() for key, _problem in map(self._key, paths) if key)
            for key in sorted(agent.get_keys(), key=lambda key: key.asbytes() not in public):
                if key.asbytes() not in loaded and (key.asbytes() in public or not where.only_these):
                    yield "the agent's %s" % (key.comment or key.get_name()), key

    def _key(self, path):
        """(key or None, why not), read once; neither where there is no such file."""
        with self.lock:
            if path not in self.keys:
                try:
                    self.keys[path] = paramiko.PKey.from_path(path), None
                except FileNotFoundError:
                    self.keys[path] = None, None
                except OSError as exc:
                    self.keys[path] = None, exc.strerror
                except TypeError:
                    self.keys[path] = None, "it has a passphrase, give it to the agent (ssh-add)"
                except Exception:  # pylint: disable=broad-except  # cryptography's and paramiko's are many, and could quote the file
                    self.keys[path] = None, "it is no private key of a kind known here"
            return self.keys[path]


def _public(path):
    """The public half of a key file as it is in the agent, or None."""
    for each in (path + ".pub", path):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(each, encoding="ascii") as stream:
                return base64.b64decode(stream.read(16384).split()[1], validate=True)
    return None
