# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
"""What the layered tests have in common: peers, us on a socket, and an image as it should be."""
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import nbd

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
PROGRAM = os.environ["RBDCRYPT_NBD"]
MAP_INVALID = 1
# How long a peer or a write may wait for the other side. Only a long run, on a quiet machine,
# measures that; else it tells waiting from starving, which librbd ends after 30 s.
AT_ONCE_S = 2.0 if os.environ.get("LONG") else 20.0


class Failure(Exception):
    pass


def expect(condition, *words):
    if not condition:
        raise Failure(" ".join(str(w) for w in words))


class PeerError(Exception):
    def __init__(self, reply):
        super().__init__(f"{reply['text']} ({reply['error']})")
        self.errno = abs(reply["error"])
        self.seconds = reply["seconds"]


class Peer:
    """A process with librbd of "reef" or, for "pacific", of this machine."""

    def __init__(self, conf, folder, release, *options):
        command = [f"{HERE}/peer", conf, folder, *options]
        if release == "reef":
            command.insert(0, f"{HERE}/../lib/reef")
        self.release = release
        self.seconds = 0.0
        self.error_file = f"{folder}/{release}.err"
        with open(self.error_file, "ab") as err:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=err, text=True)
        self.ping()

    def send(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        expect(line, f"the {self.release} peer is gone:", file_bytes(self.error_file)[-600:])
        reply = json.loads(line)
        self.seconds = reply["seconds"]
        if "error" in reply:
            raise PeerError(reply)
        return reply["ok"]

    def __getattr__(self, do):
        def ask(**arguments):
            self.send(do, **arguments)
            return self.receive()
        return ask

    def pid(self):
        """The Python process itself, below what started it."""
        pid = self.process.pid
        while True:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                children = f.read().split()
            if not children:
                return pid
            pid = int(children[0])

    def kill(self):
        os.kill(self.pid(), signal.SIGKILL)
        self.process.wait()

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()


def wait_for(seconds, what, *arguments):
    end = time.monotonic() + seconds
    while not what(*arguments):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Ours:
    """The program under test, serving an image on a socket."""

    def __init__(self, folder, spec, secrets, *options, name="ours", env=None):
        self.spec = spec
        self.socket = f"{folder}/{name}.sock"
        self.log = f"{folder}/{name}.log"
        command = [PROGRAM, "serve", "--foreground", "--socket", self.socket, "--log-level", "info",
                   "--log-file", self.log, *options]
        for secret in secrets:
            command += ["--encryption-passphrase-file", f"{folder}/pass-{secret}"]
        with open(f"{folder}/{name}.err", "ab") as err:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(command + [spec], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=err,
                                            env={**os.environ, **(env or {})})
        self.error_file = f"{folder}/{name}.err"
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            with open(self.error_file, encoding="utf-8") as f:
                raise Failure(f"not served ({status}): {f.read()[-600:]}")

    def client(self):
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        h.connect_unix(self.socket)
        return h

    def state(self):
        text = subprocess.run([PROGRAM, "status", "--json", self.spec], check=True,
                              stdout=subprocess.PIPE).stdout
        return json.loads(text)[0]

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def pause(self):
        """SIGSTOP, until each thread has stopped: on a busy machine one may answer meanwhile."""
        self.kill(signal.SIGSTOP)
        expect(wait_for(60, self.is_paused), "it does not stop")

    def is_paused(self):
        tasks = f"/proc/{self.process.pid}/task"
        return all(file_bytes(f"{tasks}/{t}/stat").rpartition(b")")[2].split()[0] == b"T"
                   for t in os.listdir(tasks))

    def stop(self, timeout=60):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        self.process.stdout.close()
        expect(status == 0, "the program ended with", status, file_bytes(self.error_file)[-3000:],
               file_bytes(self.log)[-1500:])

    def abandon(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def writing_options(chain, features):
    """What makes us write to an image ourselves: librbd could serve one without a parent."""
    options = ["--store", "rados"] if len(chain["kinds"]) == 1 else []
    return options + (["--without-exclusive-lock"] if features == "none" else [])


def read_all(h):
    size = h.get_size()
    return b"".join(h.pread(min(MIB, size - at), at) for at in range(0, size, MIB))


def same(ours, theirs, what):
    """Where they differ is said in blocks of 512."""
    if ours == theirs:
        return
    expect(len(ours) == len(theirs), what, "sizes", len(ours), len(theirs))
    bad = [i for i in range(0, len(ours), 512) if ours[i:i + 512] != theirs[i:i + 512]]
    raise Failure(f"{what}: {len(bad)} blocks differ, the first at {bad[0]}, the last at {bad[-1]}: "
                  f"{ours[bad[0]:bad[0] + 16].hex()} is not {theirs[bad[0]:bad[0] + 16].hex()}")


def file_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def maps_are_clean(spec, may_be_careful=False, has_diff=True):
    """What Ceph says of the object map of an image or snapshot; it may mark it as bad. A careful one
    has objects as changed which were not: zeroing behind the end of an object does that, in librbd
    as in ours. Without fast-diff, unchanged (3) is what a rollback by rbd may leave, and means no
    more than that the object is there (1)."""
    r = subprocess.run(["rbd", "object-map", "check", "--no-progress", spec], check=False,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line for line in r.stdout.splitlines() if "error" in line or "object map" in line]
    means_the_same = (["marked as 1, but should be 3"] * may_be_careful +
                      ["marked as 3, but should be 1"] * (not has_diff))
    if means_the_same:
        lines = [line for line in lines if not re.search("|".join([*means_the_same, "Invalidate"]), line)]
    expect(r.returncode == 0 and not lines, spec, "has a bad object map:", r.stdout[-400:])


def blocklist_is_empty():
    text = subprocess.run(["ceph", "osd", "blocklist", "ls"], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True).stdout
    expect("listed 0 entries" in text, "blocklisted:", text)


class Model:
    """The device as it should be, byte by byte, and each snapshot of it."""

    def __init__(self, content):
        self.head = bytearray(content)
        self.snaps = {}

    def resize(self, size):
        if size < len(self.head):
            del self.head[size:]
        else:
            self.head.extend(bytes(size - len(self.head)))


def operate(h, model, rnd, history):
    """One random operation through us, and on the model."""
    size = len(model.head)
    length = rnd.choice((1, 512, 700, 4096, 4096, 8192, 12345, 65536, 70000, 300000, 1500000))
    at = rnd.randrange(size)
    if rnd.randrange(3):
        unit = rnd.choice((512, 4096, 4096, 131072, MIB))
        at -= at % unit
        if rnd.randrange(4) == 0:
            length = unit * rnd.randrange(1, 4)
    length = min(length, size - at)
    what = rnd.randrange(10)
    history.append((("write", "trim", "zero", "zero thin", "flush")[max(0, what - 5)], at, length))
    if what < 6:
        data = rnd.randbytes(length)
        h.pwrite(data, at, rnd.choice((0, 0, nbd.CMD_FLAG_FUA)))
        model.head[at:at + length] = data
    elif what == 6:
        h.trim(length, at)
        now = h.pread(length, at)
        # A hint: what was there, or zeros, and that sector by sector.
        for i in range(length):
            if now[i] != model.head[at + i] and now[i] != 0:
                raise Failure(f"trim of {length} at {at}: byte {at + i} is neither old nor zero")
        model.head[at:at + length] = now
    elif what in (7, 8):
        h.zero(length, at, nbd.CMD_FLAG_NO_HOLE if what == 7 else 0)
        model.head[at:at + length] = bytes(length)
    else:
        h.flush()


def main(cases):
    """Runs the cases, or those that ONLY, a pattern, names; each is a function that may raise."""
    failures = 0
    for name, function in cases:
        if not re.search(os.environ.get("ONLY", ""), name):
            continue
        start = time.monotonic()
        try:
            words = function()
            print(f"ok {name} ({time.monotonic() - start:.1f} s){': ' + words if words else ''}",
                  flush=True)
        except (Failure, PeerError, nbd.Error, subprocess.SubprocessError, OSError) as e:
            failures += 1
            print(f"not ok {name}\n# {type(e).__name__}: {e}", flush=True)
    sys.exit(1 if failures else 0)


def seed_of():
    """The same for everybody who checks a change; another each time for who looks for faults."""
    return int(os.environ.get("SEED") or (random.SystemRandom().randrange(1000000) if os.environ.get("LONG") else 1))
