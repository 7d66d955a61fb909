/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * "stats" reads the counters that volumes publish beside their state files, twice, and shows the
 * difference. It asks no daemon, so one that is stuck is seen as well as any other. Main thread of
 * a command.
 */

#include "stats_command.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lookup.h"
#include "output.h"
#include "wire.h"

static const struct {
	enum wire_command command;
	const char *name;
	bool has_size;
} commands[] = {
	{ WIRE_READ, "read", true },	     { WIRE_WRITE, "write", true },
	{ WIRE_FLUSH, "flush", false },	     { WIRE_TRIM, "trim", true },
	{ WIRE_WRITE_ZEROES, "zero", true }, { WIRE_BLOCK_STATUS, "status", true },
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct {
	const char *name;
	double part;
} percentiles[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 } };
#define N_PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

/* Of the interval, if anything was timed in it, else of all time. */
static const struct stats_total *timed(const struct stats_view *v, enum wire_command c)
{
	return v->recent.op[c].sampled > 0 ? &v->recent.op[c] : &v->total.op[c];
}

static double per_second(uint64_t n, const struct stats_view *v)
{
	return v->interval_s > 0 ? (double)n / v->interval_s : 0;
}

/* ---- for people ---- */

static void put_latency(FILE *out, uint64_t ns)
{
	char text[32];

	if (ns == 0)
		(void)snprintf(text, sizeof(text), "-");
	else if (ns < 1000000)
		(void)snprintf(text, sizeof(text), "%.3g us", (double)ns / 1e3);
	else if (ns < 1000000000)
		(void)snprintf(text, sizeof(text), "%.3g ms", (double)ns / 1e6);
	else
		(void)snprintf(text, sizeof(text), "%.3g s", (double)ns / 1e9);
	fprintf(out, " %9s", text);
}

static void put_sizes(FILE *out, const char *name, const struct stats_total *t)
{
	for (unsigned int i = 0; i < STATS_SIZES; i++) {
		uint64_t bytes = stats_class_bytes(i);
		const char *unit = bytes < 1024 ? "B" : bytes < (1u << 20) ? "KiB" : "MiB";

		if (t->sizes[0][i] + t->sizes[1][i] == 0)
			continue;
		fprintf(out, "  %-7s to %4llu %-3s %12llu whole sectors %12llu others\n", name,
			(unsigned long long)(bytes < 1024	  ? bytes
					     : bytes < (1u << 20) ? bytes >> 10
								  : bytes >> 20),
			unit, (unsigned long long)t->sizes[0][i],
			(unsigned long long)t->sizes[1][i]);
	}
}

void stats_print_table(FILE *out, const struct stats_view *v)
{
	char spec[1024];

	volume_state_spec(v->volume, spec, sizeof(spec));
	output_text(out, spec);
	fprintf(out, "\n  in flight %u, slow (%u s or more) %llu, slowest %llu ms\n",
		v->total.in_flight, STATS_SLOW_MS / 1000, (unsigned long long)v->total.slow,
		(unsigned long long)v->total.slowest_ms);
	if (v->total.refused)
		fprintf(out, "  clients turned away %llu\n", (unsigned long long)v->total.refused);
	fprintf(out, "  %-7s %12s %8s %10s %10s %9s %9s %9s %9s\n", "", "requests", "errors",
		"per s", "MiB/s", "p50", "p90", "p99", "p99.9");
	for (size_t i = 0; i < N_COMMANDS; i++) {
		enum wire_command c = commands[i].command;
		const struct stats_total *t = &v->total.op[c];

		if (t->requests == 0)
			continue;
		fprintf(out, "  %-7s %12llu %8llu %10.1f %10.2f", commands[i].name,
			(unsigned long long)t->requests, (unsigned long long)t->errors,
			per_second(v->recent.op[c].requests, v),
			per_second(v->recent.op[c].bytes, v) / (1 << 20));
		for (size_t p = 0; p < N_PERCENTILES; p++)
			put_latency(out, stats_percentile(timed(v, c), percentiles[p].part));
		fputc('\n', out);
	}
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (commands[i].has_size)
			put_sizes(out, commands[i].name, &v->total.op[commands[i].command]);
}

/* ---- for programs ---- */

/* Takes value; false without memory. */
static bool add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static bool add_latency(struct json_object *o, const struct stats_total *t)
{
	struct json_object *l = json_object_new_object();
	bool ok = l && add(l, "samples", json_object_new_uint64(t->sampled));

	for (size_t i = 0; ok && i < N_PERCENTILES; i++)
		ok = add(l, percentiles[i].name,
			 json_object_new_uint64(stats_percentile(t, percentiles[i].part)));
	if (!ok) {
		json_object_put(l);
		return false;
	}
	return add(o, "latency_ns", l);
}

static bool add_class(struct json_object *array, const struct stats_total *t, unsigned int i)
{
	struct json_object *c = json_object_new_object();
	bool ok = c && add(c, "up_to", json_object_new_uint64(stats_class_bytes(i))) &&
		  add(c, "whole", json_object_new_uint64(t->sizes[0][i])) &&
		  add(c, "others", json_object_new_uint64(t->sizes[1][i]));

	if (ok && json_object_array_add(array, c) == 0)
		return true;
	json_object_put(c);
	return false;
}

static bool add_sizes(struct json_object *o, const struct stats_total *t)
{
	struct json_object *array = json_object_new_array();
	bool ok = array != NULL;

	for (unsigned int i = 0; ok && i < STATS_SIZES; i++)
		if (t->sizes[0][i] + t->sizes[1][i] > 0)
			ok = add_class(array, t, i);
	if (!ok) {
		json_object_put(array);
		return false;
	}
	return add(o, "sizes", array);
}

static struct json_object *command_to_json(const struct stats_view *v, size_t i)
{
	enum wire_command c = commands[i].command;
	const struct stats_total *t = &v->total.op[c], *recent = &v->recent.op[c];
	struct json_object *o = json_object_new_object();
	bool ok = o && add(o, "requests", json_object_new_uint64(t->requests)) &&
		  add(o, "errors", json_object_new_uint64(t->errors)) &&
		  add(o, "bytes", json_object_new_uint64(t->bytes)) &&
		  add(o, "requests_per_second",
		      json_object_new_double(per_second(recent->requests, v))) &&
		  add(o, "bytes_per_second",
		      json_object_new_double(per_second(recent->bytes, v))) &&
		  add_latency(o, timed(v, c)) && (!commands[i].has_size || add_sizes(o, t));

	if (ok)
		return o;
	json_object_put(o);
	return NULL;
}

struct json_object *stats_to_json(const struct stats_view *v)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_object();
	char spec[1024], device[32] = "";
	bool ok;

	volume_state_spec(v->volume, spec, sizeof(spec));
	if (v->volume->device >= 0)
		(void)snprintf(device, sizeof(device), "/dev/nbd%d", v->volume->device);
	ok = o && list && add(o, "spec", json_object_new_string(spec)) &&
	     add(o, "device", json_object_new_string(device)) &&
	     add(o, "socket", json_object_new_string(v->volume->socket)) &&
	     add(o, "started", json_object_new_uint64(v->total.started_ms / 1000)) &&
	     add(o, "interval", json_object_new_int(v->interval_s)) &&
	     add(o, "in_flight", json_object_new_uint64(v->total.in_flight)) &&
	     add(o, "slow", json_object_new_uint64(v->total.slow)) &&
	     add(o, "slowest_ms", json_object_new_uint64(v->total.slowest_ms)) &&
	     add(o, "refused_clients", json_object_new_uint64(v->total.refused));
	for (size_t i = 0; ok && i < N_COMMANDS; i++)
		ok = add(list, commands[i].name, command_to_json(v, i));
	if (ok) {
		ok = add(o, "commands", list);
		list = NULL;
	}
	if (ok)
		return o;
	json_object_put(list);
	json_object_put(o);
	return NULL;
}

/* ---- the command ---- */

static int read_one(const char *run_dir, const struct volume_state *v, struct stats_sum *ret)
{
	char path[4400];
	int r = state_beside(run_dir, v->key, STATE_STATS, path, sizeof(path));

	return r < 0 ? r : stats_read_file(path, ret);
}

/* The volumes that count, into views; *ret_n of them. why: the first that did not, or 0. */
static void read_all(const char *run_dir, const struct volume_state *v, unsigned int n,
		     struct stats_view *views, unsigned int *ret_n, int *ret_why)
{
	*ret_n = 0;
	*ret_why = 0;
	for (unsigned int i = 0; i < n; i++) {
		struct stats_view *view = &views[*ret_n];
		int r = volume_is_alive(&v[i]) ? read_one(run_dir, &v[i], &view->total) : -ESRCH;

		view->volume = &v[i];
		if (r == 0)
			(*ret_n)++;
		else if (*ret_why == 0)
			*ret_why = r;
	}
}

static void measure(const char *run_dir, struct stats_view *views, unsigned int n, int interval_s)
{
	struct timespec pause = { .tv_sec = interval_s };

	if (interval_s <= 0)
		return;
	while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
		;
	for (unsigned int i = 0; i < n; i++) {
		struct stats_sum now;

		/* One that has ended meanwhile did nothing in the end. */
		if (read_one(run_dir, views[i].volume, &now) < 0)
			continue;
		views[i].recent = now;
		stats_subtract(&views[i].recent, &views[i].total);
		views[i].total = now;
		views[i].interval_s = interval_s;
	}
}

static int print(const struct options *o, const struct stats_view *views, unsigned int n)
{
	struct json_object *array;
	int r = 0;

	if (o->format == OUTPUT_PLAIN) {
		for (unsigned int i = 0; i < n; i++)
			stats_print_table(stdout, &views[i]);
		return 0;
	}
	array = json_object_new_array();
	for (unsigned int i = 0; r == 0 && i < n; i++) {
		struct json_object *one = array ? stats_to_json(&views[i]) : NULL;

		if (!one || json_object_array_add(array, one) < 0) {
			json_object_put(one);
			r = -ENOMEM;
		}
	}
	if (r == 0)
		r = array ? output_object(stdout, "devices", array, o->format, o->is_pretty)
			  : -ENOMEM;
	json_object_put(array);
	return r;
}

static int show(const struct options *o, const struct lookup *l, struct fault *f)
{
	struct stats_view *views = calloc(l->n + 1, sizeof(*views));
	unsigned int n_views;
	char spec[1024];
	int why, r;

	if (!views)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for statistics");
	read_all(l->run_dir, l->v, l->n, views, &n_views, &why);
	if (l->is_one && why < 0) {
		free(views);
		volume_state_spec(l->v, spec, sizeof(spec));
		return fault_set(f, why == -ESRCH ? EXIT_NOT_FOUND : EXIT_USAGE, why,
				 why == -ESRCH ? "%s: its daemon is gone"
					       : "%s: its statistics cannot be read",
				 spec);
	}
	measure(l->run_dir, views, n_views, o->interval_s);
	r = print(o, views, n_views);
	free(views);
	return output_finish(r, f);
}

int stats_run(struct options *o, struct fault *f)
{
	struct lookup l;
	int r = lookup_operand(o, &l, f);

	if (r < 0)
		return r;
	r = show(o, &l, f);
	lookup_done(&l);
	return r;
}
