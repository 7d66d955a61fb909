# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# rounds.py: rounds in rotating order: what else the machine does hits everyone.

import statistics


def summary(rounds):
    """Medians of each figure, and the rounds themselves."""
    result = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    result["rounds"] = rounds
    return result


def interleave(servers, n_rounds, measure):
    """Per server's name the summary of what measure(server) gave."""
    rounds = {s.name: [] for s in servers}
    for i in range(n_rounds):
        for j in range(len(servers)):
            s = servers[(i + j) % len(servers)]
            rounds[s.name].append(measure(s))
    return {name: summary(r) for name, r in rounds.items()}
