# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# guest.py: /dev/nbdX of ours beside rbd-nbd's, in one boot of a kernel that is a process (see
# tests/lib/uml.sh). Outside, run() boots it with this file as the command; inside, main()
# does the work and leaves a JSON file. There is one slow processor, so only what is
# compared in there means something.

import json
import os
import re
import subprocess
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

# pylint: disable=wrong-import-position
from lib import client, images, rounds, volumes  # noqa: E402

HERE = os.path.dirname(os.path.realpath(__file__))
WORK = "/run/bench"
CASES = [("randread", 4 << 10, 32), ("read", 128 << 10, 16), ("randwrite", 4 << 10, 32),
         ("randread", 4 << 10, 1), ("write", 128 << 10, 16)]
QUICK_CASES = 3
COUNTS = (1, 10, 100)


# ---- outside ----

def run(args, n_rounds):
    """Its results; "skipped" says what it could not measure, and why."""
    result = os.path.join(args.work, "guest")
    os.makedirs(result, exist_ok=True)
    order = {"program": args.program, "rounds": n_rounds, "quick": args.quick}
    with open(os.path.join(result, "order.json"), "w", encoding="utf-8") as f:
        json.dump(order, f)
    mem, limit = ("3G", "200") if args.quick else ("12G", "1000")
    script = '. "$1/uml.sh"; shift; uml_run "$@"'
    p = subprocess.run(
        ["bash", "-c", script, "bench", images.TESTS_LIB, "--mem", mem, "--time", limit,
         "--nbds", "8" if args.quick else "210", "--result", result, "/usr/bin/python3",
         os.path.join(HERE, "guest.py")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        with open(os.path.join(result, "guest.json"), encoding="utf-8") as f:
            got = json.load(f)
    except OSError:
        got = {"groups": {}, "volumes": {}, "skipped": {}}
    if p.returncode != 0:
        got["skipped"]["guest"] = f"it ended with {p.returncode}: {p.stdout}{p.stderr}".strip()
    return got


# ---- inside ----

def process_of(thread):
    """The driver says which thread connected."""
    with open(f"/proc/{thread}/status", encoding="utf-8") as f:
        return int(re.search(r"^Tgid:\s*(\d+)", f.read(), re.M).group(1))


class Device:
    """An image mapped to /dev/nbdX by a daemon of its own."""

    is_client = False

    def __init__(self, name, map_argv, unmap_argv, spec):
        self.name, self.map_argv, self.unmap_argv, self.spec = name, map_argv, unmap_argv, spec
        self.device, self.pid = None, None

    def start(self):
        # A daemon keeps a pipe open; a file can be read to its end.
        out = os.path.join(WORK, "map.out." + re.sub(r"\W", "-", self.spec + self.name))
        with open(out, "w", encoding="utf-8") as f:
            p = subprocess.run(self.map_argv + [self.spec], stdin=subprocess.DEVNULL, stdout=f,
                               stderr=f, check=False)
        with open(out, encoding="utf-8") as f:
            text = f.read()
        if p.returncode != 0:
            raise client.Failed(f"{self.name} does not map {self.spec}: {text}")
        self.device = re.search(r"/dev/nbd\d+", text).group()
        with open(f"/sys/block/{self.device[5:]}/pid", encoding="utf-8") as f:
            self.pid = process_of(f.read().strip())
        return self

    def cpu(self):
        try:
            return client.cpu_seconds(self.pid)
        except OSError as e:
            with open(f"{WORK}/log", encoding="utf-8") as f:
                raise client.Failed(f"{self.name}: its process is gone; our log: "
                                    f"{f.read()[-2000:]}") from e

    def fio_target(self):
        return ["--ioengine=libaio", "--direct=1", f"--filename={self.device}"]

    def content(self):
        return client.sha256(["dd", f"if={self.device}", "bs=1M", "iflag=direct", "status=none"])

    def settle(self):
        client.sha256(["dd", f"if={self.device}", "bs=4k", "count=1", "status=none"])

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self):
        return volumes.proportional_bytes(self.pid)

    def stop(self):
        if self.device:
            images.call(*self.unmap_argv, self.device)
            self.device = None


def ours(program, key, spec, options=("--log-file", f"{WORK}/log")):
    """With the options that it has by default, a process of its own."""
    return Device("ours", [program, "map", *options, "--encryption-passphrase-file", key],
                  [program, "unmap"], spec)


def rbd_nbd(key, spec):
    return Device("rbd-nbd", ["rbd-nbd", "map", "--try-netlink", "--encryption-format", "luks1",
                              "--encryption-passphrase-file", key], ["rbd-nbd", "unmap"], spec)


def compare(order, key, results, write):
    size = (48 if order["quick"] else 256) << 20
    plain, raw = f"{WORK}/plain", f"{WORK}/luks1"
    images.make_plaintext(plain, size)
    images.make_raw(raw, "luks1", key, plain, size)
    digest = client.sha256(["cat", plain])
    devices = []
    for name in ("ours", "peer"):
        images.import_image(raw, name)
    devices = [ours(order["program"], key, "rbd/ours"), rbd_nbd(key, "rbd/peer")]
    for d in devices:
        d.start()
        if d.content() != digest:
            raise client.Failed(f"{d.name} does not serve what was written")
    cases = results["groups"].setdefault("kernel", {})
    for c in [client.case(*c) for c in (CASES[:QUICK_CASES] if order["quick"] else CASES)]:
        cases[c.name] = rounds.interleave(
            devices, order["rounds"],
            lambda d, c=c: client.load(d, c, 0.6 if order["quick"] else 1.5, WORK))
        write()
    for d in devices:
        d.stop()


class Daemon:
    """Our daemon of a host; the volumes that it maps."""

    def __init__(self, program, key):
        self.program, self.key, self.process = program, key, None

    @property
    def pid(self):
        return self.process.pid

    threads, memory = Device.threads, Device.memory

    def start(self):
        with open(f"{WORK}/daemon.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([self.program, "daemon"], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        while not os.path.exists("/run/rbdcrypt-nbd/control"):
            if self.process.poll() is not None:
                raise client.Failed("our daemon does not start")
            time.sleep(0.05)

    def serve(self, i):
        device = ours(self.program, self.key, f"rbd/volume-{i}", ()).start()
        if device.pid != self.pid:
            raise client.Failed(f"volume {i} is not served by our daemon")
        device.settle()


def count(order, key, results, write):
    """What many volumes take, each with its device. They end with the guest."""
    images.make_header(f"{WORK}/header", "luks1", key)
    images.make_volumes(2 * max(COUNTS), f"{WORK}/header")
    mine = results["volumes"].setdefault("ours-daemon", {})
    theirs = results["volumes"].setdefault("rbd-nbd", {})
    daemon = Daemon(order["program"], key)
    daemon.start()
    done = 0
    for n in COUNTS:
        for i in range(done, n):
            daemon.serve(i)
        done = n
        mine[str(n)] = volumes.cost([daemon])
        write()
    devices = []
    for n in COUNTS:
        while len(devices) < n:
            # Images of their own: nobody has opened them before.
            devices.append(rbd_nbd(key, f"rbd/volume-{max(COUNTS) + len(devices)}").start())
            devices[-1].settle()
        theirs[str(n)] = volumes.cost(devices)
        write()


def main():
    result = os.environ["RESULT"]
    os.makedirs(WORK)
    with open(f"{result}/order.json", encoding="utf-8") as f:
        order = json.load(f)
    key = f"{WORK}/key"
    images.make_key(key)
    results = {"groups": {}, "volumes": {}, "skipped": {}}

    def write():
        # The folder is the machine's: what is there outlives a guest that hangs.
        with open(f"{result}/guest.json.new", "w", encoding="utf-8") as f:
            json.dump(results, f)
        os.replace(f"{result}/guest.json.new", f"{result}/guest.json")

    def part(name, measure):
        try:
            measure()
        except client.Failed as e:
            results["skipped"][f"guest, {name}"] = str(e)
        write()

    images.start_cluster(f"{WORK}/cluster")
    part("speed", lambda: compare(order, key, results, write))
    if not order["quick"]:
        part("volumes", lambda: count(order, key, results, write))


if __name__ == "__main__":
    main()
