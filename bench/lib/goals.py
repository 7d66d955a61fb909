# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# goals.py: what is to be reached, as data, and whether it was.
#
# A ratio is taken within each round, because both sides had the same machine then; the
# median of the rounds' ratios is what counts.
#
# Beside it stands the same ratio for somebody who does less: a goal that is out of his reach, too,
# is not ours to reach on this machine.

import statistics

# (title, group, case, figure, numerator, denominator, comparison, limit)
RATIOS = []
# Who has neither encryption nor NBD; neither encryption nor a file.
LESS_WORK = {"rbd-luks1": "fio-rbd", "file": "nbdkit-null"}


def _ratios(group, case, title, *lines):
    for figure, subject, reference, op, limit in lines:
        RATIOS.append((f"{title}: {figure} / {reference}", group, case, figure, subject, reference,
                       op, limit))


_ratios("file", "128k-read-qd16", "memory, 128 KiB reads",
        ("cpu_us", "ours", "qemu-luks", "<=", 0.1), ("cpu_us", "ours", "nbdkit-luks", "<=", 1 / 7))
_ratios("file", "nbdcopy", "memory, nbdcopy",
        ("mbps", "ours", "qemu-luks", ">=", 10), ("mbps", "ours", "nbdkit-luks", ">=", 4))
_ratios("rbd-luks1", "4k-randread-qd32", "rbd, 4 KiB reads, depth 32",
        ("iops", "ours", "qemu-librbd", ">=", 6), ("iops", "ours", "qemu-luks", ">=", 2),
        ("iops", "ours", "fio-rbd", ">=", 0.9), ("cpu_us", "ours", "qemu-librbd", "<=", 0.16),
        ("cpu_us", "ours", "qemu-luks", "<=", 0.42), ("cpu_us", "ours", "fio-rbd", "<=", 1.2))
_ratios("rbd-luks1", "128k-read-qd16", "rbd, 128 KiB reads, depth 16",
        ("iops", "ours", "qemu-librbd", ">=", 2.5), ("iops", "ours", "qemu-luks", ">=", 3),
        ("iops", "ours", "fio-rbd", ">=", 0.9), ("cpu_us", "ours", "qemu-librbd", "<=", 0.38),
        ("cpu_us", "ours", "qemu-luks", "<=", 0.22))
for _case, _title in (("1M-randread-qd4", "rbd, 1 MiB reads"),
                      ("1M-randwrite-qd4", "rbd, 1 MiB writes")):
    _ratios("rbd-luks1", _case, _title,
            ("iops", "ours", "qemu-luks", ">=", 4), ("cpu_us", "ours", "qemu-luks", "<=", 0.18),
            ("iops", "ours", "qemu-librbd", ">=", 1.5),
            ("cpu_us", "ours", "qemu-librbd", "<=", 0.5))
_ratios("rbd-luks1", "4k-randwrite-qd32", "rbd, 4 KiB writes, depth 32",
        ("iops", "ours", "qemu-librbd", ">=", 1), ("iops", "ours", "qemu-luks", ">=", 1),
        ("cpu_us", "ours", "qemu-librbd", "<=", 0.5), ("cpu_us", "ours", "qemu-luks", "<=", 0.5))
_ratios("rbd-luks1", "4k-randread-qd1", "rbd, 4 KiB reads, depth 1",
        ("p50_us", "ours", "qemu-librbd", "<=", 0.62), ("p50_us", "ours", "fio-rbd", "<=", 1.15))
_ratios("rbd-luks1", "4k-randread-qd32", "encryption tax, 4 KiB",
        ("iops", "ours", "ours-plain", ">=", 0.98))
_ratios("rbd-luks1", "128k-read-qd16", "encryption tax, 128 KiB",
        ("iops", "ours", "ours-plain", ">=", 0.95))
for _case, _title in (("4k-randread-qd32", "kernel, 4 KiB reads"),
                      ("128k-read-qd16", "kernel, 128 KiB reads")):
    _ratios("kernel", _case, _title, ("iops", "ours", "rbd-nbd", ">=", 2))
for _case, _title in (("4k-randread-qd32", "4 KiB"), ("128k-read-qd16", "128 KiB")):
    for _n in (2, 4):
        _ratios("layers", _case, f"{_n} layers, {_title} reads",
                ("iops", f"ours-{_n}", "ours", ">=", 0.9))
_ratios("first-write", "touch", "first write to an object, 2 layers",
        ("iops", "ours", "reef", ">=", 1))


def _value(results, group, case, figure, subject, reference):
    servers = results["groups"].get(group, {}).get(case, {})
    if subject not in servers or reference not in servers:
        return None
    pairs = zip(servers[subject]["rounds"], servers[reference]["rounds"])
    return statistics.median(a[figure] / b[figure] for a, b in pairs)


def _xts(results):
    xts = results.get("xts", {})
    rates = {n: r for n, r in xts.items() if isinstance(r, dict)}

    def ratio(measure, engine, other="evp"):
        r = rates.get(measure, {})
        return r[engine] / r[other] if engine in r and other in r else None

    def scaling(engine):
        one, two = rates.get("encrypt-512", {}), rates.get("encrypt-512-2threads", {})
        return two[engine] / one[engine] if engine in one and engine in two else None

    # Where OpenSSL is 3.5 or newer its own loop is the wide one; the goals are for 3.0.
    return [
        ("XTS, VAES-512, 512 B / bare EVP", ratio("encrypt-512", "vaes512"), ">=", 6,
         ratio("encrypt-512", "aes-rounds")),
        ("XTS, VAES-512, 4 KiB / bare EVP", ratio("encrypt-4096", "vaes512"), ">=", 4.4,
         ratio("encrypt-4096", "aes-rounds")),
        ("XTS, AES-NI, 512 B / bare EVP", ratio("encrypt-512", "aesni"), ">=", 1.8),
        ("XTS, openssl engine, 512 B / bare EVP", ratio("encrypt-512", "openssl"), ">=", 0.97),
        ("XTS, two threads / one", scaling("vaes512") or scaling("openssl"), ">=", 1.9),
    ]


def _others(results):
    yield from _xts(results)
    rounds = results["groups"].get("rbd-luks1", {}).get("4k-randread-qd32", {}).get("ours", {})
    tail = statistics.median(r["p99_us"] / r["p50_us"] for r in rounds["rounds"]) if rounds else None
    yield "rbd, 4 KiB reads, depth 32: p99 / p50", tail, "<=", 2.5
    for group in ("file", "rbd-luks1"):
        calls = results["calls"].get(group, {}).get("ours")
        yield (f"system calls per 4 KiB read, depth 32 ({group})",
               calls["total"] if calls else None, "<=", 0.5)
    yield from _volumes(results)


def _volumes(results):
    # Both with their devices, in one boot.
    ours, peer = (results.get("guest-volumes", {}).get(s, {}) for s in ("ours-daemon", "rbd-nbd"))
    for what in ("memory", "threads"):
        a, b = ours.get("100", {}).get(what), peer.get("100", {}).get(what)
        yield f"100 volumes: {what} / rbd-nbd", a / b if a and b else None, "<=", 0.1


def _no_work(results, group, case, reference):
    """What the reference would get, on its one processor, if it took nothing of it."""
    rounds = results["groups"].get(group, {}).get(case, {}).get(reference, {}).get("rounds")
    return rounds and statistics.median(1 / (1 - r["iops"] * r["cpu_us"] / 1e6) for r in rounds)


def _less_work(results, group, case, figure, _, reference):
    if group == "kernel":
        return _no_work(results, group, case, reference)
    who = LESS_WORK.get(group)
    if reference in (who, "ours-plain"):
        return None
    return _value(results, group, case, figure, who, reference)


def _entry(title, value, op, limit, less_work=None):
    reached = None
    if value is not None:
        reached = value >= limit if op == ">=" else value <= limit
    return {"title": title, "value": value, "op": op, "limit": limit, "reached": reached,
            "less_work": less_work}


def judge(results):
    got = [_entry(title, _value(results, *where), op, limit, _less_work(results, *where))
           for title, *where, op, limit in RATIOS]
    return got + [_entry(*o) for o in _others(results)]
