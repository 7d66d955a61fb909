# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# client.py: one measurement: load from fio or nbdcopy, and what it cost the server.

import glob
import json
import os
import subprocess
import threading
import time
from collections import namedtuple

# depth is that of all jobs together; each job is a connection.
Case = namedtuple("Case", "name rw block depth jobs")


def case(rw, block, depth, jobs=1):
    size = f"{block // 1024}k" if block < 1 << 20 else f"{block >> 20}M"
    if block < 1024:
        size = str(block)
    name = f"{size}-{rw}-qd{depth}" + (f"-c{jobs}" if jobs > 1 else "")
    return Case(name, rw, block, depth, jobs)


class Failed(Exception):
    pass


def cpu_seconds(pid):
    """User and system time of all threads that the process has or had."""
    # The kernel's encoding of "the CPU clock of process pid", as clock_getcpuclockid(3) makes it.
    return time.clock_gettime((~pid << 3) | 2)


# A command that takes longer hangs, with the server that it waits for.
PATIENCE = 120


def run_timed(argv, **kwargs):
    """(wall seconds, CPU seconds) of a command and its children."""
    start = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **kwargs)
    timer = threading.Timer(PATIENCE, p.kill)
    timer.start()
    _, status, usage = os.wait4(p.pid, 0)
    timer.cancel()
    p.returncode = os.waitstatus_to_exitcode(status)
    if time.monotonic() - start >= PATIENCE:
        raise Failed(f"{' '.join(argv)}: not over after {PATIENCE} s")
    if p.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit status {p.returncode}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime


def fio_argv(target, c, output):
    return [
        "fio", "--name=bench", "--thread", "--group_reporting", "--norandommap",
        f"--rw={c.rw}", f"--bs={c.block}", f"--iodepth={c.depth // c.jobs}",
        f"--numjobs={c.jobs}", "--output-format=json", f"--output={output}",
    ] + target


def parse(output):
    with open(output, encoding="utf-8") as f:
        text = f.read()
    # The nbd engine says something before the JSON.
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"]:
        raise Failed(f"fio: error {job['error']}")
    way = job["read"] if job["read"]["total_ios"] else job["write"]
    percentile = way["clat_ns"]["percentile"]
    return {
        "ops": way["total_ios"],
        "iops": way["iops"],
        "mbps": way["bw_bytes"] / 1e6,
        "p50_us": percentile["50.000000"] / 1e3,
        "p99_us": percentile["99.000000"] / 1e3,
    }


def load(server, c, seconds, work):
    """One round of a case on a server: a dict of figures."""
    output = os.path.join(work, "fio.json")
    argv = fio_argv(server.fio_target(), c, output)
    argv += ["--time_based", f"--runtime={int(seconds * 1000)}ms"]
    log = os.path.join(work, "fio.log")
    with open(log, "w", encoding="utf-8") as f:
        before = server.cpu()
        _, client_cpu = run_timed(argv, stdout=f, stderr=f)
        after = server.cpu()
    got = parse(output)
    # fio's rbd engine is server and client in one.
    cpu = client_cpu - server.start_cpu if server.is_client else after - before
    got["cpu_us"] = cpu * 1e6 / got["ops"]
    got["client_cpu_us"] = client_cpu * 1e6 / got["ops"]
    return got


def copy(server, work):
    """The whole export, read by nbdcopy."""
    before = server.cpu()
    wall, _ = run_timed(["nbdcopy", "--no-extents", server.uri, "null:"])
    return {"ops": 1, "iops": 1 / wall, "mbps": server.size / wall / 1e6,
            "cpu_us": (server.cpu() - before) * 1e6}


def sha256(argv):
    p = subprocess.run(["timeout", str(PATIENCE), "bash", "-o", "pipefail", "-c",
                        '"$@" | sha256sum', "bash"] + argv,
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {p.stderr}")
    return p.stdout.split()[0]


# Counted by name; the rest is in the total.
CALLS = ["sendmsg", "recvmsg", "sendto", "recvfrom", "readv", "writev", "read", "write", "pread64",
         "preadv2", "poll", "ppoll", "epoll_wait", "futex"]


def sleeps(pid):
    """How often the process's threads have slept: each time, somebody woke them."""
    n = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        try:
            with open(path, encoding="ascii") as f:
                n += sum(int(line.split()[1]) for line in f if line.startswith("voluntary_"))
        except OSError:
            pass  # the thread has ended
    return n


def count_calls(server, c, seconds, work):
    """System calls per operation, in all and by name, or None without perf's tracepoints; and
    wake-ups per operation."""
    output, csv = os.path.join(work, "fio.json"), os.path.join(work, "perf.csv")
    events = ",".join(["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{n}" for n in CALLS])
    argv = ["perf", "stat", "-x,", "-o", csv, "-e", events, "-p", str(server.pid), "--"]
    argv += fio_argv(server.fio_target(), c, output)
    argv += ["--time_based", f"--runtime={int(seconds * 1000)}ms"]
    before = sleeps(server.pid)
    p = subprocess.run(["timeout", str(PATIENCE)] + argv, stdin=subprocess.DEVNULL,
                       capture_output=True, check=False)
    if p.returncode != 0:
        return None
    ops = parse(output)["ops"]
    wakeups = (sleeps(server.pid) - before) / ops
    counts = {}
    with open(csv, encoding="utf-8") as f:
        for line in f:
            field = line.strip().split(",")
            if len(field) > 3 and field[0].isdigit():
                counts[field[2].split("sys_enter_")[-1]] = int(field[0]) / ops
    total = counts.pop("raw_syscalls:sys_enter", None)
    if total is None:
        return None
    return {"total": total, "by_name": {n: v for n, v in counts.items() if v >= 0.005},
            "wakeups": wakeups}
