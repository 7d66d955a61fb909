/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Volumes on paper: rbd-nbd's table, and the same objects as JSON and XML. The keys and
 * their order come from state_json.c, how they are written is output.c's; this file only knows
 * which volumes to show. Main thread of a command; owns nothing.
 */

#include "list.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "status.h"
#include "view.h"

#define COLUMNS 7

static bool is_gone(const struct volume_state *v, list_sysfs_fn read_sysfs)
{
	struct nbd_sysfs kernel;

	if (volume_is_alive(v))
		return false;
	/* A socket of the host's daemon comes back with it. */
	if (v->device < 0 && v->is_hosted && v->request)
		return false;
	if (v->device < 0 || read_sysfs(v->device, &kernel) || !kernel.is_connected)
		return true;
	return kernel.cookie[0] && strcmp(kernel.cookie, v->cookie) != 0;
}

void list_drop_stale(struct state_list *l, list_sysfs_fn read_sysfs)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < l->n; i++) {
		if (is_gone(&l->volumes[i], read_sysfs))
			volume_state_done(&l->volumes[i]);
		else
			l->volumes[kept++] = l->volumes[i];
	}
	l->n = kept;
}

static bool is_listed(const struct volume_state *v, const struct list_options *o)
{
	return o->is_all || (v->device >= 0 && v->status == VOLUME_MAPPED);
}

/* ---- plain ---- */

/* Names may hold anything; a table is lines. */
static void copy_cell(char *cell, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 1 < size; text++)
		cell[n++] = iscntrl((unsigned char)*text) ? '?' : *text;
	cell[n] = 0;
}

/* As rbd-nbd has it: a dash for no snapshot, nothing for no namespace. */
static void fill_row(const struct volume_state *v, char cells[COLUMNS][512])
{
	const size_t size = sizeof(cells[0]);

	for (int i = 0; i < COLUMNS; i++)
		(void)snprintf(cells[i], size, "-");
	if (volume_is_alive(v))
		(void)snprintf(cells[0], size, "%d", v->pid);
	copy_cell(cells[1], size, v->pool);
	copy_cell(cells[2], size, v->nspace);
	copy_cell(cells[3], size, v->file[0] ? v->file : v->image);
	if (v->snap[0])
		copy_cell(cells[4], size, v->snap);
	else if (v->snap_id != UINT64_MAX)
		(void)snprintf(cells[4], size, "@%llu", (unsigned long long)v->snap_id);
	if (v->device >= 0)
		(void)snprintf(cells[5], size, "/dev/nbd%d", v->device);
	copy_cell(cells[6], size, v->cookie);
}

static void put_row(FILE *out, const char *const cells[COLUMNS], const int width[COLUMNS])
{
	int end = COLUMNS;

	while (end > 1 && !cells[end - 1][0])
		end--;
	for (int i = 0; i + 1 < end; i++)
		fprintf(out, "%-*s  ", width[i], cells[i]);
	fprintf(out, "%s\n", cells[end - 1]);
}

static void print_table(FILE *out, const struct state_list *l, const struct list_options *o)
{
	static const char *const titles[COLUMNS] = { "id",   "pool",   "namespace", "image",
						     "snap", "device", "cookie" };
	char cells[COLUMNS][512];
	const char *row[COLUMNS];
	int width[COLUMNS];
	bool is_empty = true;

	for (int i = 0; i < COLUMNS; i++) {
		width[i] = (int)strlen(titles[i]);
		row[i] = cells[i];
	}
	for (unsigned int i = 0; i < l->n; i++) {
		if (!is_listed(&l->volumes[i], o))
			continue;
		is_empty = false;
		fill_row(&l->volumes[i], cells);
		for (int c = 0; c < COLUMNS; c++)
			if ((int)strlen(cells[c]) > width[c])
				width[c] = (int)strlen(cells[c]);
	}
	if (is_empty)
		return;
	put_row(out, titles, width);
	for (unsigned int i = 0; i < l->n; i++) {
		if (!is_listed(&l->volumes[i], o))
			continue;
		fill_row(&l->volumes[i], cells);
		put_row(out, row, width);
	}
}

/* ---- all ---- */

static int add_object(struct json_object *array, const struct volume_state *v)
{
	struct json_object *o = view_to_json(v);

	if (o && json_object_array_add(array, o) == 0)
		return 0;
	json_object_put(o);
	return -ENOMEM;
}

int list_print(FILE *out, const struct state_list *l, const struct list_options *o)
{
	struct json_object *array;
	int r = 0;

	if (o->format == OUTPUT_PLAIN) {
		print_table(out, l, o);
		return output_check(out);
	}
	array = json_object_new_array();
	if (!array)
		return -ENOMEM;
	for (unsigned int i = 0; !r && i < l->n; i++)
		if (is_listed(&l->volumes[i], o))
			r = add_object(array, &l->volumes[i]);
	if (!r)
		r = output_object(out, "devices", array, o->format, o->is_pretty);
	json_object_put(array);
	return r;
}

int status_print(FILE *out, const struct volume_state *v, unsigned int n,
		 const struct list_options *o)
{
	const struct state_list l = { .volumes = (struct volume_state *)(uintptr_t)v, .n = n };
	struct list_options all = *o;

	if (o->format != OUTPUT_PLAIN) {
		all.is_all = true;
		return list_print(out, &l, &all);
	}
	for (unsigned int i = 0; i < n; i++) {
		if (i)
			fputc('\n', out);
		status_print_tree(out, &v[i]);
	}
	return output_check(out);
}
