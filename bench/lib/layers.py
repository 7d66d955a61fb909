# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layers.py: chains of clones whose layers have keys of their own: reading what the clone holds
# itself, beside a flat image; and the first write to each object, which has to bring the
# parent's data along, beside Reef's librbd.

import os
import subprocess
import sys

from lib import client, images, rounds
from lib.client import case

sys.path.insert(0, os.path.join(images.TESTS_LIB, "../ceph"))
sys.dont_write_bytecode = True

MIB = 1 << 20
OBJECT = 4 * MIB
DATA = 4 * MIB  # where a LUKS1 header of rbd's ends
CASES = [case("randread", 4096, 32), case("read", 128 << 10, 16)]


def clone(world, parent, name, secret):
    """With the features that rbd gives by default."""
    features = (world.rbd.RBD_FEATURE_EXCLUSIVE_LOCK | world.rbd.RBD_FEATURE_OBJECT_MAP |
                world.rbd.RBD_FEATURE_FAST_DIFF | world.rbd.RBD_FEATURE_DEEP_FLATTEN)
    layer = world.clone(parent, name, order=22, features=features)
    return layer.format("luks1", secret, DATA)


def ours(maker, name, secrets):
    options = []
    for s in secrets:
        options += ["--encryption-passphrase-file", f"{maker.work}/pass-{s}"]
    return maker.layered(f"rbd/{name}", options)


def fill(server, plaintext):
    images.call("nbdcopy", plaintext, server.uri)


def read(bench, world):
    """ours: one layer; ours-2, ours-4: so many, all written in the child."""
    layer = world.create("flat", bench.size + DATA, order=22).format("luks1", "a", DATA)
    servers = [ours(bench.maker, "flat", layer.secrets)]
    for n, (name, secret) in enumerate((("two", "b"), ("three", "c"), ("four", "d")), 2):
        layer = clone(world, layer, name, secret)
        if n != 3:
            servers.append(ours(bench.maker, name, layer.secrets))
            servers[-1].name = f"ours-{n}"
    bench.start(servers)
    for s in servers:
        fill(s, bench.plaintext)
    bench.compare_content(servers, bench.digest)
    bench.load_all("layers", servers, CASES)
    bench.stop()


# ---- the first write ----

def reef_server(maker, image):
    """Reef's librbd behind Debian 13's qemu-nbd, which can be told of a parent."""
    argv = ["bash", "-c", '. "$0/trixie.sh"; trixie_root && tree_exec "$REEF_ROOT" "$@"',
            images.TESTS_LIB, os.path.dirname(os.environ["CEPH_CONF"])]
    conf = os.environ["CEPH_CONF"]
    argv += ["qemu-nbd", "--persistent", "--shared=16", "--image-opts"]
    argv += [f"driver=rbd,conf={conf},pool=rbd,image={image},cache.direct=on,encrypt.format=luks,"
             "encrypt.key-secret=b,encrypt.parent.format=luks,encrypt.parent.key-secret=a"]
    for s in "ab":
        argv += ["--object", f"secret,id={s},file={maker.work}/pass-{s}"]
    return maker.other("reef", lambda socket: argv + ["--socket", socket])


def touch(server, n_objects, work):
    """One write of 4 KiB to each object."""
    output = os.path.join(work, "fio.json")
    # The data area begins with an object.
    argv = ["fio", "--name=touch", "--thread", f"--rw=write:{(OBJECT - 4096) // 1024}k", "--bs=4k",
            "--iodepth=8", f"--number_ios={n_objects}", "--output-format=json",
            f"--output={output}"] + server.fio_target()
    client.run_timed(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return client.parse(output)


def first_writes(bench, world):
    n_objects = min(bench.size // OBJECT, 32) - 1
    root = world.create("root", n_objects * OBJECT + DATA, order=22).format("luks1", "a", DATA)
    server = ours(bench.maker, "root", root.secrets)
    bench.start([server])
    images.call("bash", "-c", 'head -c "$1" "$0" | nbdcopy - "$2"', bench.plaintext,
                str(n_objects * OBJECT), server.uri)
    bench.stop()
    made = [0]

    def measure(make):
        made[0] += 1
        name = f"child-{made[0]}"
        child = clone(world, root, name, "b")
        server = make.of(name, child.secrets)
        bench.start([server])
        server.settle()
        got = touch(server, n_objects, bench.args.work)
        bench.stop()
        return got

    return rounds.interleave(
        [Maker("ours", lambda n, s: ours(bench.maker, n, s)),
         Maker("reef", lambda n, s: reef_server(bench.maker, n))], bench.rounds, measure)


class Maker:
    """A subject of the rounds: a server for a new clone each time."""

    def __init__(self, name, of):
        self.name, self.of = name, of


def run(bench):
    # pylint: disable=import-outside-toplevel
    # Debian's Python has these; another may not.
    import layers as world
    with world.connect(os.environ["CEPH_CONF"], bench.args.work):
        read(bench, world)
        # Building it takes longer than a server may.
        images.call("bash", "-c", '. "$0/trixie.sh"; trixie_root', images.TESTS_LIB, patience=900)
        bench.record("first-write", "touch", first_writes(bench, world))

