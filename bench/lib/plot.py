# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# plot.py: figures as SVG: bars for the cases of a group, lines for growth.

import math
import os
from html import escape

from lib.peers import LABELS
from lib.table import TITLES

# Ours is the strong one; without encryption is paler; the colours differ in lightness, too.
COLOURS = {
    "ours": "#0b6e4f", "ours-plain": "#8fd0b5", "qemu-librbd": "#c1440e", "qemu-luks": "#e8a33d",
    "qemu-plain": "#f3d9a4", "fio-rbd": "#3b5b92", "nbdkit-luks": "#7b4fa3",
    "nbdkit-plain": "#b9a3d0", "nbdkit-null": "#9aa0a6", "rbd-nbd": "#c1440e",
    "ours-rados": "#4c9f7f", "ours-2": "#4c9f7f", "ours-4": "#8fd0b5", "reef": "#c1440e",
    "ours-daemon": "#0b6e4f", "memcpy": "#9aa0a6", "evp": "#c1440e", "evp-rekey": "#e8a33d",
    "aes-rounds": "#3b5b92", "openssl": "#7b4fa3", "aesni": "#8fd0b5", "vaes256": "#4c9f7f",
    "vaes512": "#0b6e4f", "direct": "#4c9f7f", "workers": "#0b6e4f", "openssl-direct": "#b9a3d0",
    "openssl-workers": "#7b4fa3",
}
FONT = 'font-family="sans-serif" font-size="12"'
LINES = {"depth": "requests in flight", "size": "KiB of a request", "connections": "connections",
         "volumes": "volumes", "guest-volumes": "volumes"}
FIGURES = [("iops", "IOPS (more is better)"), ("cpu_us", "CPU of the server, us per request "
                                               "(less is better)")]
COSTS = [("mib", "MiB (less is better)"), ("threads", "threads (less is better)")]
RATES = [("clock", "GB/s (more is better)"), ("cpu", "GB per second of the processors "
                                              "(more is better)")]


class Svg:
    def __init__(self, width, height):
        self.width, self.height, self.parts = width, height, []

    def text(self, x, y, text, anchor="start", more=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>'
                          f'{escape(text)}</text>')

    def rect(self, x, y, w, h, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
                          f'fill="{colour}"/>')

    def line(self, points, colour, width=1.0):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                          f'stroke-width="{width}"/>')

    def dot(self, x, y, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')

    def write(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
                    f'height="{self.height:.0f}" {FONT}>\n'
                    f'<rect width="100%" height="100%" fill="white"/>\n')
            f.write("\n".join(self.parts) + "\n</svg>\n")


def number(v):
    if v >= 10000:
        return f"{v / 1000:.0f}k"
    return f"{v:.0f}" if v >= 100 else f"{v:.3g}"


# ---- bars ----

BAR, GAP, LEFT, PANEL = 16, 26, 240, 300


def bars(group, cases, path, shown=None):
    """Per case a block of bars, and a column for each figure that is shown."""
    shown = shown or FIGURES
    height = 70 + sum(len(s) * BAR + GAP for s in cases.values())
    svg = Svg(LEFT + len(shown) * (PANEL + 40), height)
    svg.text(12, 22, TITLES.get(group, group), more='font-size="16"')
    for i, (_, title) in enumerate(shown):
        svg.text(LEFT + i * (PANEL + 30), 44, title, more='fill="#555"')
    y = 58.0
    for name, servers in cases.items():
        svg.text(12, y + 12, name, more='font-weight="bold"')
        y += 18
        for server, figures in servers.items():
            svg.text(LEFT - 8, y + BAR - 5, LABELS.get(server, server), "end",
                     'font-size="11"')
            for i, (key, _) in enumerate(shown):
                if key not in figures:
                    continue
                # Each case has a scale of its own: what counts is within it.
                most = max(s.get(key, 0) for s in servers.values())
                w = (PANEL - 60) * figures[key] / most
                x = LEFT + i * (PANEL + 30)
                svg.rect(x, y + 1, w, BAR - 3, COLOURS[server])
                svg.text(x + w + 4, y + BAR - 5, number(figures[key]), more='font-size="11"')
            y += BAR
        y += GAP - 18
    svg.write(path)


# ---- lines ----

BOX_W, BOX_H = 330, 240


def x_of(group, name):
    if group.endswith("volumes"):
        return int(name)
    size, _, depth, *jobs = name.split("-")
    if group == "depth":
        return int(depth[2:])
    if group == "connections":
        return int(jobs[0][1:]) if jobs else 1
    return int(size[:-1]) * (1024 if size.endswith("M") else 1)


def scale(values):
    """From a value to its place between 0 and 1, logarithmic, and the powers to mark."""
    least, most = min(values), max(values)
    exponents = range(math.floor(math.log10(least)), math.floor(math.log10(most)) + 2)
    marks = [m * 10.0 ** e for e in exponents for m in (1, 2, 5)]
    below = [m for m in marks if m <= least]
    above = [m for m in marks if m > most]
    marks = [m for m in marks if below[-1] <= m <= above[0]]
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    return lambda v: (math.log10(v) - low) / (high - low), marks


def panel(svg, left, top, group, cases, figure):
    key, title = figure
    xs = [x_of(group, n) for n in cases]
    place, marks = scale([s[key] for servers in cases.values() for s in servers.values()])
    x_step = BOX_W / max(len(xs) - 1, 1)
    svg.text(left, top - 8, title, more='fill="#555"')
    for m in marks:
        y = top + BOX_H * (1 - place(m))
        svg.line([(left, y), (left + BOX_W, y)], "#ddd")
        svg.text(left - 6, y + 4, number(m), "end", 'font-size="11"')
    for i, x in enumerate(xs):
        svg.text(left + i * x_step, top + BOX_H + 16, str(x), "middle", 'font-size="11"')
    svg.text(left + BOX_W / 2, top + BOX_H + 34, LINES[group], "middle", 'fill="#555"')
    for server in next(iter(cases.values())):
        points = [(left + i * x_step, top + BOX_H * (1 - place(servers[server][key])))
                  for i, servers in enumerate(cases.values())]
        svg.line(points, COLOURS[server], 2)
        for p in points:
            svg.dot(*p, COLOURS[server])


def lines(group, cases, path, shown=None):
    svg = Svg(60 + 2 * (BOX_W + 70), BOX_H + 160)
    svg.text(12, 22, TITLES.get(group, group), more='font-size="16"')
    for i, figure in enumerate(shown or FIGURES):
        panel(svg, 60 + i * (BOX_W + 70), 70, group, cases, figure)
    for i, server in enumerate(next(iter(cases.values()))):
        x, y = 60 + i * 260, BOX_H + 140
        svg.rect(x, y - 9, 12, 10, COLOURS[server])
        svg.text(x + 18, y, LABELS[server])
    svg.write(path)


def volumes(results, key):
    """As cases: per number of volumes, what each server takes."""
    servers = results.get(key, {})
    return {n: {s: {"mib": c[n]["memory"] / 2**20, "threads": c[n]["threads"]}
                for s, c in servers.items()} for n in next(iter(servers.values()), {})
            if all(n in c for c in servers.values())}


def write_all(results, folder):
    for group, cases in results["groups"].items():
        draw = lines if group in LINES and len(cases) > 1 else bars
        draw(group, cases, os.path.join(folder, group + ".svg"))
    for key in ("volumes", "guest-volumes"):
        cases = volumes(results, key)
        if len(cases) > 1:
            lines(key, cases, os.path.join(folder, key + ".svg"), COSTS)
    if "xts" in results:
        cases = {m: {e: {"cpu": v} for e, v in r.items()} for m, r in results["xts"].items()
                 if isinstance(r, dict)}
        bars("xts", cases, os.path.join(folder, "xts.svg"), RATES[1:])
    if "workers" in results:
        cases = {n: v for n, v in results["workers"].items() if isinstance(v, dict)}
        bars("workers", cases, os.path.join(folder, "workers.svg"), RATES)
