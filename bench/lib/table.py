# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# table.py: figures as text, for the terminal and as Markdown.

from lib.peers import LABELS

TITLES = {
    "file": "LUKS1 file in memory",
    "rbd-luks1": "RBD image, LUKS1, sectors of 512 bytes",
    "rbd-luks2": "RBD image, LUKS2, sectors of 4096 bytes",
    "depth": "Growth with depth: 4 KiB random reads, RBD image, LUKS1",
    "size": "Growth with request size: random reads at depth 8, RBD image, LUKS1",
    "connections": "Growth with connections: 4 KiB random reads, 64 in all, RBD image, LUKS1",
    "layers": "Chains of clones with keys of their own, written in the child",
    "first-write": "The first write to each object of a clone: two layers, LUKS1",
    "xts": "AES-XTS by itself, one thread or two",
    "workers": "AES-XTS through the workers: one request of a size, sectors of 512 bytes",
    "volumes": "Many volumes, a client each",
    "guest-volumes": "Many volumes, a device each, in the guest",
    "kernel": "/dev/nbdX on a kernel in a process (User Mode Linux), RBD image, LUKS1",
}
COLUMNS = [("iops", "IOPS", "{:.0f}"), ("mbps", "MB/s", "{:.1f}"), ("p50_us", "p50 us", "{:.0f}"),
           ("p99_us", "p99 us", "{:.0f}"), ("cpu_us", "CPU us/op", "{:.1f}")]


def row(figures):
    return [f.format(figures[key]) if key in figures else "-" for key, _, f in COLUMNS]


def line(cells, widths):
    return "  ".join([cells[0].ljust(widths[0])] +
                     [c.rjust(w) for c, w in zip(cells[1:], widths[1:])])


def print_case(group, name, servers):
    widths = [38] + [10] * len(COLUMNS)
    print(line([f"{group} {name}"] + [c[1] for c in COLUMNS], widths))
    for server, figures in servers.items():
        print(line(["  " + LABELS[server]] + row(figures), widths))
    print(flush=True)


def print_xts(xts):
    for name, rates in xts.items():
        if isinstance(rates, dict):
            print(f"{name:24}" + "  ".join(f"{n} {v:.2f}" for n, v in rates.items()))
    print(f"(GB/s of {xts['cipher']}, OpenSSL {xts['openssl']})\n", flush=True)


def workers_rows(workers):
    return [[size] + [f"{v['clock']:.2f} ({v['cpu']:.2f})" for v in subjects.values()]
            for size, subjects in workers.items() if isinstance(subjects, dict)]


def workers_head(workers):
    return ["request"] + list(workers["1M"])


def workers_note(workers):
    return (f"{workers['workers']} workers; a request is shared from {workers['threshold']} bytes "
            f"on, with openssl from {workers['openssl-threshold']} on (0: never); in brackets by "
            "the processors' time")


def print_workers(workers):
    widths = [8] + [16] * (len(workers_head(workers)) - 1)
    for r in [workers_head(workers)] + workers_rows(workers):
        print(line(r, widths))
    print(f"(GB/s; {workers_note(workers)})\n", flush=True)


def print_volumes(volumes):
    for server, counts in volumes.items():
        for n, v in counts.items():
            print(f"{LABELS[server]:34} {n:>4} volumes: {v['memory'] / 2**20:8.1f} MiB "
                  f"{v['threads']:6} threads {v['processes']:4} processes")
    print(flush=True)


GOAL_HEAD = ["goal", "wanted", "measured", "for less work", ""]
VERDICTS = {True: "reached", False: "NOT REACHED", None: "not measured"}


def format_goal(g):
    value, less = ("-" if g[k] is None else f"{g[k]:.3g}" for k in ("value", "less_work"))
    return [g["title"], f"{g['op']} {g['limit']:.3g}", value, less, VERDICTS[g["reached"]]]


def print_goals(goals):
    widths = [max(len(g["title"]) for g in goals), 9, 9, 13, 14]
    print(line(GOAL_HEAD, widths))
    for g in goals:
        if g["value"] is not None:
            print(line(format_goal(g), widths))
    n = [sum(g["reached"] is v for g in goals) for v in (True, False, None)]
    print(f"{n[0]} reached, {n[1]} not reached, {n[2]} not measured\n", flush=True)


def markdown_table(f, head, rows):
    f.write("| " + " | ".join(head) + " |\n|" + " --- |" * len(head) + "\n")
    for r in rows:
        f.write("| " + " | ".join(r) + " |\n")
    f.write("\n")


def write_markdown(results, f):
    m = results["machine"]
    f.write(f"# Measured {m['when']}\n\n{m['cpu']}, {m['processors']} processors, Linux "
            f"{m['kernel']}, load {m['load']:.1f} at the start; {m['rounds']} rounds of "
            f"{m['seconds']} s, {m['size'] >> 20} MiB; {m['program']}; {m['ceph']}; {m['qemu']}; "
            f"{m['nbdkit']}; {m['fio']}; {m['openssl']}; took {m.get('took', 0)} s\n\n## Goals\n\n")
    markdown_table(f, GOAL_HEAD, [format_goal(g) for g in results["goals"]])
    for group, cases in results["groups"].items():
        f.write(f"## {TITLES.get(group, group)}\n\n")
        rows = []
        for name, servers in cases.items():
            rows += [[name, LABELS[s]] + row(v) for s, v in servers.items()]
        markdown_table(f, ["case", "server"] + [c[1] for c in COLUMNS], rows)
    write_rest(results, f)


def write_rest(results, f):
    if results["calls"]:
        f.write("## System calls and wake-ups per request: 4 KiB random reads, depth 32\n\n")
        markdown_table(f, ["group", "server", "wake-ups", "calls in all", "most of them"], [
            [group, LABELS[s], f"{v['wakeups']:.2f}" if "wakeups" in v else "-",
             f"{v['total']:.2f}",
             ", ".join(f"{n} {c:.2f}" for n, c in
                       sorted(v["by_name"].items(), key=lambda x: -x[1])[:6])]
            for group, servers in results["calls"].items() for s, v in servers.items()])
    if "xts" in results:
        f.write(f"## {results['xts']['cipher']}, GB/s\n\n")
        names = list(results["xts"]["encrypt-512"])
        markdown_table(f, ["measure"] + names, [
            [n] + [f"{r[e]:.2f}" if e in r else "-" for e in names]
            for n, r in results["xts"].items() if isinstance(r, dict)])
    if "workers" in results:
        f.write("## One request through the workers, GB/s\n\n")
        markdown_table(f, workers_head(results["workers"]), workers_rows(results["workers"]))
        f.write(workers_note(results["workers"]) + "\n\n")
    if results.get("skipped"):
        f.write("## Left out\n\n")
        for what, why in results["skipped"].items():
            f.write(f"- {what}: {why}\n")
        f.write("\n")
    for key in ("volumes", "guest-volumes"):
        if results.get(key):
            f.write(f"## {TITLES[key]}\n\n")
            markdown_table(f, ["server", "volumes", "MiB", "threads", "processes"], [
                [LABELS[s], str(n), f"{v['memory'] / 2**20:.1f}", str(v["threads"]),
                 str(v["processes"])]
                for s, counts in results[key].items() for n, v in counts.items()])
