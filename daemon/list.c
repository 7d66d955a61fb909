/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Volumes on paper: rbd-nbd's table, and the same objects as JSON and XML. The keys and
 * their order come from state_json.c; this file only knows which volumes to show and
 * how the three formats are written. Main thread of a command; owns nothing.
 */

#include "list.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state_json.h"
#include "status.h"

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

/* ---- XML ---- */

static void put_xml_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '&')
			fputs("&amp;", out);
		else if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '>')
			fputs("&gt;", out);
		else if (iscntrl((unsigned char)*text))
			fputc('?', out); /* XML has no way to write them */
		else
			fputc(*text, out);
	}
}

static void put_xml(FILE *out, const char *tag, struct json_object *value, int indent);

static void put_xml_members(FILE *out, struct json_object *object, int indent)
{
	json_object_object_foreach(object, key, member) put_xml(out, key, member, indent);
}

/* "layers" holds "layer", "devices" holds "device". */
static void put_xml_items(FILE *out, const char *tag, struct json_object *array, int indent)
{
	char item[32];

	(void)snprintf(item, sizeof(item), "%.*s", (int)strlen(tag) - 1, tag);
	for (size_t i = 0; i < json_object_array_length(array); i++)
		put_xml(out, item, json_object_array_get_idx(array, i), indent);
}

/* indent -1: all on one line */
static void put_xml(FILE *out, const char *tag, struct json_object *value, int indent)
{
	bool is_object = json_object_is_type(value, json_type_object);
	bool is_array = json_object_is_type(value, json_type_array);
	const char *newline = indent >= 0 ? "\n" : "";
	int margin = indent > 0 ? indent : 0;
	int inner = indent >= 0 ? indent + 2 : indent;

	fprintf(out, "%*s<%s>", margin, "", tag);
	if (is_object || is_array)
		fputs(newline, out);
	if (is_object)
		put_xml_members(out, value, inner);
	else if (is_array)
		put_xml_items(out, tag, value, inner);
	else
		put_xml_text(out, json_object_get_string(value));
	if (is_object || is_array)
		fprintf(out, "%*s", margin, "");
	fprintf(out, "</%s>%s", tag, newline);
}

/* ---- all ---- */

static int add_object(struct json_object *array, const struct volume_state *v)
{
	struct json_object *o = state_to_json(v);

	/* a process that is gone has no number: it may be another's by now */
	if (o && !volume_is_alive(v) &&
	    json_object_object_add(o, "id", json_object_new_int(0)) != 0) {
		json_object_put(o);
		o = NULL;
	}
	if (o && json_object_array_add(array, o) == 0)
		return 0;
	json_object_put(o);
	return -ENOMEM;
}

static int check_written(FILE *out)
{
	return fflush(out) == 0 && !ferror(out) ? 0 : -EIO;
}

int list_print_object(FILE *out, const char *tag, struct json_object *object,
		      const struct list_options *o)
{
	/* nothing is "[]", pretty or not: scripts compare */
	bool is_empty = json_object_is_type(object, json_type_array) &&
			json_object_array_length(object) == 0;
	bool is_laid_out = o->is_pretty && !is_empty;
	int flags = is_laid_out ? JSON_C_TO_STRING_PRETTY : JSON_C_TO_STRING_PLAIN;
	const char *text;

	if (o->format == OUTPUT_XML) {
		put_xml(out, tag, object, o->is_pretty ? 0 : -1);
		if (!o->is_pretty)
			fputc('\n', out);
		return check_written(out);
	}
	text = json_object_to_json_string_ext(object, flags | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!text)
		return -ENOMEM;
	fprintf(out, "%s\n", text);
	return check_written(out);
}

int list_print(FILE *out, const struct state_list *l, const struct list_options *o)
{
	struct json_object *array;
	int r = 0;

	if (o->format == OUTPUT_PLAIN) {
		print_table(out, l, o);
		return check_written(out);
	}
	array = json_object_new_array();
	if (!array)
		return -ENOMEM;
	for (unsigned int i = 0; !r && i < l->n; i++)
		if (is_listed(&l->volumes[i], o))
			r = add_object(array, &l->volumes[i]);
	if (!r)
		r = list_print_object(out, "devices", array, o);
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
	return check_written(out);
}
