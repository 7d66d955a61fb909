# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# volumes.py: what 1, 10 and 100 volumes cost in memory and threads.

import time
from concurrent.futures import ThreadPoolExecutor


def proportional_bytes(pid):
    """Proportional share of the memory that a process holds: libraries count once in all."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


# Seconds after the last request: the volumes are mapped, and nobody uses them.
IDLE = 12


def cost(processes, idle=IDLE):
    time.sleep(idle)
    return {"memory": sum(p.memory() for p in processes), "processes": len(processes),
            "threads": sum(p.threads() for p in processes)}


def grow(make, counts, idle, at_once=4):
    """Costs of the first n servers, a process each, for each n of counts."""
    servers, got = [], {}
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for n in counts:
                new = [make(i) for i in range(len(servers), n)]
                servers += new
                list(pool.map(lambda s: s.start(), new))
                list(pool.map(lambda s: s.settle(), new))
                got[str(n)] = cost(servers, idle)
    finally:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda s: s.stop(), servers))
    return got


def grow_daemon(daemon, counts, idle):
    """The same for one process that serves them all."""
    got, n_served = {}, 0
    try:
        daemon.start()
        for n in counts:
            for i in range(n_served, n):
                daemon.serve(f"rbd/volume-{i}", i)
            n_served = n
            got[str(n)] = cost([daemon], idle)
    finally:
        daemon.stop()
    return got


def measure(maker, counts, idle=IDLE):
    return {
        "ours-daemon": grow_daemon(maker.daemon(), counts, idle),
        "ours": grow(lambda i: maker.ours(f"rbd/volume-{i}"), counts, idle),
        "qemu-librbd": grow(lambda i: maker.qemu_librbd(f"volume-{i}"), counts, idle),
    }
