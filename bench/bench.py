#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# bench.py: measures the program beside its peers. README.md says what, and how to read it;
# "make bench" is the way to run it.

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time

from lib import client, goals, guest, images, layers, peers, plot, rounds, table, volumes
from lib.client import case

TOP = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..")
# Seconds that each takes on a machine that does nothing else, the full run and the quick one.
BUDGETS = {"xts": (40, 40), "file": (120, 30), "rbd": (560, 90), "growth": (300, 40),
           "layers": (180, 0), "volumes": (150, 20), "guest": (900, 80)}
PARTS = list(BUDGETS)

K, M = 1024, 1 << 20
RBD_CASES = [
    case("randread", 4 * K, 1), case("randread", 4 * K, 32), case("read", 128 * K, 16),
    case("randread", 1 * M, 4), case("randwrite", 4 * K, 32), case("write", 128 * K, 16),
    case("randwrite", 1 * M, 4),
]
LUKS2_CASES = [case("randread", 4 * K, 32), case("read", 128 * K, 16), case("randread", 1 * M, 4),
               case("randwrite", 4 * K, 32)]
FILE_CASES = [case("read", 128 * K, 16), case("randread", 4 * K, 32)]


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        quick = args.quick
        self.rounds = args.rounds or (3 if quick else 5)
        self.seconds = args.seconds or (0.4 if quick else 1.5)
        self.size = (96 if quick else 512) * M
        self.key = os.path.join(args.work, "key")
        images.make_key(self.key)
        self.maker = peers.Maker(args.work, args.program, self.key, self.size)
        self.results = {"format": 1, "machine": self.machine(), "groups": {}, "calls": {},
                        "times": {}, "skipped": {}}
        self.running = []
        self.plaintext = self.digest = None

    def machine(self):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = [line.split(":")[1].strip() for line in f if line.startswith("model name")]

        def version(*argv):
            return images.call(*argv).splitlines()[0]

        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "cpu": cpu[0] if cpu else "",
            "processors": os.cpu_count(), "kernel": platform.release(),
            "load": os.getloadavg()[0], "quick": self.args.quick, "rounds": self.rounds,
            "seconds": self.seconds, "size": self.size,
            "program": version(self.args.program, "version"), "ceph": version("ceph", "--version"),
            "qemu": version("qemu-nbd", "--version"), "nbdkit": version("nbdkit", "--version"),
            "fio": version("fio", "--version"), "openssl": version("openssl", "version"),
        }

    # ---- servers ----

    def start(self, servers):
        for s in servers:
            self.running.append(s)
            s.start()

    def stop(self):
        while self.running:
            self.running.pop().stop()

    def compare_content(self, servers, wanted):
        for s in servers:
            if s.content() != wanted:
                raise client.Failed(f"{s.name} does not serve what was written")
        say(f"{', '.join(s.name for s in servers)}: the same content")

    # ---- rounds ----

    def interleave(self, group, name, servers, measure):
        """A case that fails is left out, with its reason; the others go on."""
        try:
            got = rounds.interleave(servers, self.rounds, measure)
        except client.Failed as e:
            self.skip(f"{group} {name}", e)
        else:
            self.record(group, name, got)

    def skip(self, what, why):
        self.results["skipped"][what] = str(why)
        say(f"LEFT OUT: {what}: {why}")

    def record(self, group, name, got):
        self.results["groups"].setdefault(group, {})[name] = got
        table.print_case(group, name, got)

    def load_all(self, group, servers, cases):
        for c in cases:
            self.interleave(group, c.name, servers,
                            lambda s, c=c: client.load(s, c, self.seconds, self.args.work))

    def count_calls(self, group, servers, c):
        for s in servers:
            try:
                got = client.count_calls(s, c, self.seconds, self.args.work)
            except client.Failed as e:
                self.skip(f"system calls of {s.name}, {group}", e)
                continue
            if got:
                self.results["calls"].setdefault(group, {})[s.name] = got
            else:
                self.skip(f"system calls of {s.name}, {group}", "perf cannot count them here")

    # ---- parts ----

    def xts(self):
        say("AES-XTS by itself")
        self.results["xts"] = json.loads(images.call(self.args.xts, "--json"))
        # It keeps one IV for all, which nobody may: an upper bound.
        text = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", "-bytes", "4096", "-evp",
                               "aes-256-xts"], capture_output=True, text=True, check=False).stdout
        for line in text.splitlines():
            if line.startswith("+F:"):
                self.results["xts"]["openssl-speed-4096"] = float(line.split(":")[-1]) / 1e9
        table.print_xts(self.results["xts"])
        self.results["workers"] = json.loads(images.call(self.args.workers, "--json"))
        table.print_workers(self.results["workers"])

    def file(self):
        say("a LUKS1 file in memory")
        raw, plain = self.raw("luks1"), self.plaintext
        copies = []
        for i in range(3):
            copies.append(os.path.join(self.args.memory, f"luks1-{i}"))
            shutil.copyfile(raw, copies[i])
        m = self.maker
        servers = [m.ours("file:" + copies[0]), m.qemu_luks_file(copies[1]),
                   m.nbdkit_luks(copies[2]), m.ours("file:" + plain, "ours-plain"),
                   m.nbdkit_null()]
        self.start(servers)
        self.compare_content(servers[:4], self.digest)
        self.load_all("file", servers, FILE_CASES)
        self.interleave("file", "nbdcopy", servers, lambda s: client.copy(s, self.args.work))
        self.count_calls("file", servers[:3], case("randread", 4 * K, 32))
        self.stop()
        for c in copies:
            os.unlink(c)

    def rbd_servers(self, form):
        """One image each, all with the same bytes."""
        raw, m = self.raw(form), self.maker
        for name in ("ours", "librbd") + (("luks",) if form == "luks1" else ()):
            images.import_image(raw, f"{form}-{name}")
        servers = [m.ours(f"rbd/{form}-ours"), m.qemu_librbd(f"{form}-librbd", form)]
        if not self.args.quick:
            images.import_image(raw, f"{form}-rados")
            servers.append(m.ours(f"rbd/{form}-rados", "ours-rados", ["--store", "rados"]))
        if form == "luks1":
            servers.append(m.qemu_luks("luks1-luks"))
            for name in ("ours", "fio"):
                images.import_image(self.plaintext, f"plain-{name}")
            servers += [m.ours("rbd/plain-ours", "ours-plain"),
                        peers.FioRbd("plain-fio", self.size)]
            if not self.args.quick:
                images.import_image(self.plaintext, "plain-qemu")
                servers.append(m.qemu_plain("plain-qemu"))
        return servers

    def rbd(self):
        say("LUKS1 images of one cluster")
        servers = self.rbd_servers("luks1")
        self.start(servers)
        self.compare_content(servers, self.digest)
        self.load_all("rbd-luks1", servers, RBD_CASES)
        self.count_calls("rbd-luks1", servers[:4], case("randread", 4 * K, 32))
        self.stop()
        if self.args.quick:
            return
        say("LUKS2 images of one cluster")
        servers = self.rbd_servers("luks2")
        self.start(servers)
        self.compare_content(servers, self.digest)
        self.load_all("rbd-luks2", servers, LUKS2_CASES)
        self.stop()

    def growth(self):
        say("growth with depth, size and connections")
        raw, m = self.raw("luks1"), self.maker
        for name in ("ours", "librbd", "luks"):
            images.import_image(raw, f"growth-{name}")
        servers = [m.ours("rbd/growth-ours"), m.qemu_librbd("growth-librbd"),
                   m.qemu_luks("growth-luks")]
        quick = self.args.quick
        depths = (1, 8, 64) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
        sizes = () if quick else (4, 16, 64, 256, 1024, 4096)
        jobs = (4,) if quick else (1, 2, 4, 8)
        self.start(servers)
        self.load_all("depth", servers, [case("randread", 4 * K, d) for d in depths])
        self.load_all("size", servers, [case("randread", s * K, 8) for s in sizes])
        self.load_all("connections", servers, [case("randread", 4 * K, 64, j) for j in jobs])
        self.stop()

    def layers(self):
        if self.args.quick:
            return
        say("chains of layers")
        layers.run(self)

    def volumes(self):
        say("many volumes")
        counts = (1, 10) if self.args.quick else (1, 10, 100)
        header = os.path.join(self.args.memory, "header")
        images.make_header(header, "luks1", self.key)
        images.make_volumes(max(counts), header)
        self.results["volumes"] = volumes.measure(self.maker, counts,
                                                  0 if self.args.quick else volumes.IDLE)
        table.print_volumes(self.results["volumes"])

    def guest(self):
        say("a kernel with the nbd driver")
        got = guest.run(self.args, self.rounds)
        self.results["groups"].update(got["groups"])
        self.results["guest-volumes"] = got["volumes"]
        for group, cases in got["groups"].items():
            for name, servers in cases.items():
                table.print_case(group, name, servers)
        table.print_volumes(got["volumes"])
        for what, why in got["skipped"].items():
            self.skip(what, why)

    # ---- data ----

    def raw(self, form):
        path = os.path.join(self.args.memory, form)
        if not os.path.exists(path):
            images.make_raw(path, form, self.key, self.plaintext, self.size)
        return path

    def prepare(self):
        say("a private cluster")
        images.start_cluster(os.path.join(self.args.work, "cluster"))
        self.plaintext = os.path.join(self.args.memory, "plain")
        images.make_plaintext(self.plaintext, self.size)
        self.digest = client.sha256(["cat", self.plaintext])

    def resume(self):
        """What the last run left; its parts that came to their end are not measured again."""
        with open(os.path.join(self.args.output, "bench.json"), encoding="utf-8") as f:
            last = json.load(f)
        for name in ("quick", "rounds", "seconds", "size", "program"):
            if last["machine"][name] != self.results["machine"][name]:
                raise client.Failed(f"{self.args.output} is of another kind of run: {name}")
        self.results = last
        self.results["skipped"] = {}
        self.args.only = [p for p in self.args.only if p not in last["times"]]

    def part(self, name):
        """True when it came to its end; whatever goes wrong in it, the next ones are measured."""
        budget = BUDGETS[name][self.args.quick]
        start = time.monotonic()
        say(f"---- {name}: {budget} s on a quiet machine ----")
        try:
            getattr(self, name)()
        except Exception as e:  # pylint: disable=broad-except
            # Also what nobody thought of: the other parts have taken half an hour.
            self.skip(name, f"{type(e).__name__}: {e}")
            return
        finally:
            self.stop()
            took = round(time.monotonic() - start)
            self.results["machine"]["took"] = self.results["machine"].get("took", 0) + took
            say(f"{name} took {took} s of {budget}")
        self.results["times"][name] = took

    def run(self):
        """Whether all was measured."""
        if self.args.resume:
            self.resume()
        self.prepare()
        for name in self.args.only:
            self.part(name)
            self.write()
        table.print_goals(self.results["goals"])
        for what, why in self.results["skipped"].items():
            say(f"LEFT OUT: {what}: {why}")
        say(f"{self.results['machine'].get('took', 0)} s; {self.args.output}: bench.md, "
            "bench.json, and plots")
        return not self.results["skipped"]

    def write(self):
        """What there is so far."""
        self.results["goals"] = goals.judge(self.results)
        os.makedirs(self.args.output, exist_ok=True)
        path = os.path.join(self.args.output, "bench.json")
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump(self.results, f, indent=1)
        os.replace(path + ".new", path)
        with open(os.path.join(self.args.output, "bench.md"), "w", encoding="utf-8") as f:
            table.write_markdown(self.results, f)
        plot.write_all(self.results, self.args.output)


def main():
    p = argparse.ArgumentParser(description="Measures rbdcrypt-nbd beside its peers.")
    p.add_argument("--work", required=True, help="folder for sockets and the cluster")
    p.add_argument("--memory", required=True, help="folder in memory")
    p.add_argument("--program", default=os.path.join(TOP, "build/rbdcrypt-nbd"))
    p.add_argument("--xts", default=os.path.join(TOP, "build/bench/xts"))
    p.add_argument("--workers", default=os.path.join(TOP, "build/bench/workers"))
    p.add_argument("--output", default=os.path.join(TOP, "build/bench-results"))
    p.add_argument("--quick", action="store_true", help="less of everything, under five minutes")
    p.add_argument("--rounds", type=int)
    p.add_argument("--seconds", type=float, help="of load in a round")
    p.add_argument("--resume", action="store_true",
                   help="only what is missing in the output folder")
    p.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = p.parse_args()
    # The program refuses passphrase files that others may read.
    os.umask(0o077)
    args.program = os.path.realpath(args.program)
    bench = Bench(args)
    try:
        is_whole = bench.run()
    except client.Failed as e:
        sys.exit(f"bench: {e}")
    if not is_whole:
        sys.exit("bench: not all was measured")


if __name__ == "__main__":
    main()
