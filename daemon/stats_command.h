/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_STATS_COMMAND_H
#define DAEMON_STATS_COMMAND_H

#include <stdio.h>

#include "fault.h"
#include "options.h"
#include "state.h"
#include "stats.h"

/* The command "stats": what volumes do, measured for o->interval_s. Main thread. */
int stats_run(struct options *o, struct fault *f);

/* One volume of it. */
struct stats_view {
	const struct volume_state *volume;
	struct stats_sum total; /* since it started */
	struct stats_sum recent; /* during interval_s */
	int interval_s; /* 0: recent is nothing */
};

/* For people; not a format to parse. */
void stats_print_table(FILE *out, const struct stats_view *v);
struct json_object;
/* The same as an object, the caller's; NULL: no memory. */
struct json_object *stats_to_json(const struct stats_view *v);

#endif
