# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# volumes.py: what 1, 10 and 100 volumes cost in memory and threads.

from concurrent.futures import ThreadPoolExecutor


def proportional_bytes(pid):
    """Proportional share of the memory that a process holds: libraries count once in all."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def cost(servers):
    return {"memory": sum(s.memory() for s in servers), "processes": len(servers),
            "threads": sum(s.threads() for s in servers)}


def grow(make, counts, at_once=4):
    """Costs of the first n servers, for each n of counts."""
    servers, got = [], {}
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for n in counts:
                new = [make(i) for i in range(len(servers), n)]
                servers += new
                list(pool.map(lambda s: s.start(), new))
                list(pool.map(lambda s: s.settle(), new))
                got[str(n)] = cost(servers)
    finally:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda s: s.stop(), servers))
    return got


def measure(maker, counts):
    return {
        "ours": grow(lambda i: maker.ours(f"rbd/volume-{i}"), counts),
        "qemu-librbd": grow(lambda i: maker.qemu_librbd(f"volume-{i}"), counts),
    }
