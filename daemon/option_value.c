/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The door for option values: text from the user becomes a number, an enum or a
 * string in struct options, or a message that says what is expected. Called by
 * options.c only, from the main thread. The strings stored belong to the struct.
 */

#include "option_value.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };
static const struct unit time_units[] = {
	{ "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { NULL, 0 }
};
static const struct unit byte_units[] = {
	{ "", 1 },
	{ "K", UINT64_C(1) << 10 },
	{ "KiB", UINT64_C(1) << 10 },
	{ "M", UINT64_C(1) << 20 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "G", UINT64_C(1) << 30 },
	{ "GiB", UINT64_C(1) << 30 },
	{ "T", UINT64_C(1) << 40 },
	{ "TiB", UINT64_C(1) << 40 },
	{ NULL, 0 },
};

bool option_takes_value(enum option_type type)
{
	switch (type) {
	case OPTION_FLAG:
	case OPTION_CONST:
	case OPTION_IGNORED:
	case OPTION_REFUSED:
	case OPTION_COMMAND:
		return false;
	case OPTION_STRING:
	case OPTION_ID:
	case OPTION_LIST:
	case OPTION_CHOICE:
	case OPTION_BLOCK_SIZE:
	case OPTION_UINT:
	case OPTION_SECONDS:
	case OPTION_COUNT:
	case OPTION_MODE:
	case OPTION_BYTES:
	case OPTION_BYTES_LIST:
	case OPTION_KEYS:
	case OPTION_REFUSED_VALUE:
		return true;
	}
	return false;
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "command line: out of memory");
}

int option_list_add(struct option_list *list, const char *word, struct fault *f)
{
	char *copy = strdup(word);
	char **items = reallocarray(list->items, list->n + 1, sizeof(*items));

	if (items)
		list->items = items;
	if (!items || !copy) {
		free(copy);
		return no_memory(f);
	}
	list->items[list->n++] = copy;
	return 0;
}

void option_list_done(struct option_list *list)
{
	for (unsigned int i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	list->items = NULL;
	list->n = 0;
}

/* Decimal digits and one unit; nothing else, no sign, no blanks. */
static int parse_number(const char *text, const struct unit *units, uint64_t *ret)
{
	uint64_t n = 0;
	const char *p = text;

	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return -ERANGE;
	if (p == text)
		return -EINVAL;
	for (; units->name; units++) {
		if (strcasecmp(p, units->name) != 0)
			continue;
		if (__builtin_mul_overflow(n, units->factor, &n))
			return -ERANGE;
		*ret = n;
		return 0;
	}
	return -EINVAL;
}

/* With the largest unit that leaves it whole: "33M". */
static void put_number(uint64_t n, const struct unit *units, char *buf, size_t len)
{
	const struct unit *best = units;

	for (; n > 0 && units->name; units++)
		if (!units->name[0] || (!units->name[1] && n % units->factor == 0))
			best = units;
	(void)snprintf(buf, len, "%llu%s", (unsigned long long)(n / best->factor), best->name);
}

static int store_number(const struct option_row *row, const char *shown, const char *value,
			const struct unit *units, uint64_t *ret, struct fault *f)
{
	const char *what = "a number";
	const char *hint = NULL;
	char min[32], max[32];
	uint64_t n = 0;
	int r = parse_number(value, units, &n);

	if (units == time_units) {
		what = "a number of seconds";
		hint = "the units s, m and h can be written after the number";
	} else if (units == byte_units) {
		what = "a number of bytes";
		hint = "the units K, M, G and T can be written after the number";
	}
	if (!r && (n < row->min || n > row->max))
		r = -ERANGE;
	if (r) {
		put_number(row->min, units, min, sizeof(min));
		put_number(row->max, units, max, sizeof(max));
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: \"%s\" is not %s from %s to %s", shown,
				value, what, min, max);
		if (hint)
			fault_hint(f, "%s", hint);
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

static int store_string(char **field, const struct option_row *row, const char *shown,
			const char *value, struct fault *f)
{
	char *copy;

	if (!*value && !(row->flags & OPTION_MAY_BE_EMPTY))
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: the value is empty", shown);
	if (row->max && strlen(value) > row->max)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: longer than %llu bytes", shown,
				 (unsigned long long)row->max);
	for (const char *p = value; *p; p++)
		if (iscntrl((unsigned char)*p))
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "%s: \"%s\" holds a control character", shown, value);
	if (row->type == OPTION_ID) {
		if (asprintf(&copy, "client.%s", value) < 0)
			copy = NULL;
	} else {
		copy = strdup(value);
	}
	if (!copy)
		return no_memory(f);
	free(*field);
	*field = copy;
	return 0;
}

static int find_choice(const struct option_row *row, const char *shown, const char *value,
		       struct fault *f)
{
	int i = choice_index(row->choices, value);

	if (i < 0)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: \"%s\" is not one of %s", shown,
				 value, row->choices);
	return i;
}

static int store_flag(bool *field, const char *shown, const char *value, struct fault *f)
{
	/* yes stands at the even places */
	int i = value ? choice_index("yes|no|true|false|on|off|1|0", value) : 0;

	if (i < 0)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: \"%s\" is neither yes nor no", shown,
				 value);
	*field = i % 2 == 0;
	return 0;
}

static int store_block_size(unsigned int *field, const struct option_row *row, const char *shown,
			    const char *value, struct fault *f)
{
	uint64_t n = 0;
	int r = find_choice(row, shown, value, f);

	if (r < 0)
		return r;
	if (r > 0)
		(void)parse_number(value, no_units, &n);
	*field = (unsigned int)n;
	return 0;
}

static int store_mode(unsigned int *field, const char *shown, const char *value, struct fault *f)
{
	const char *digits = value + (value[0] == '0');

	if (strlen(digits) != 3 || strspn(digits, "01234567") != 3) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: \"%s\" is no file mode", shown, value);
		fault_hint(f, "three octal digits: 0660 lets owner and group in");
		return -EINVAL;
	}
	*field = (unsigned int)strtoul(digits, NULL, 8);
	return 0;
}

static int store_list(struct option_list *list, const struct option_row *row, const char *shown,
		      const char *value, struct fault *f)
{
	int r;

	if (row->choices) {
		r = find_choice(row, shown, value, f);
		if (r < 0)
			return r;
	}
	if (!*value)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: the value is empty", shown);
	return option_list_add(list, value, f);
}

static int store_integer(void *field, const struct option_row *row, const char *shown,
			 const char *value, struct fault *f)
{
	uint64_t n;
	int r;

	if (row->type == OPTION_SECONDS)
		r = store_number(row, shown, value, time_units, &n, f);
	else if (row->type == OPTION_BYTES)
		r = store_number(row, shown, value, byte_units, &n, f);
	else
		r = store_number(row, shown, value, no_units, &n, f);
	if (r)
		return r;
	if (row->type == OPTION_SECONDS)
		*(int *)field = (int)n;
	else if (row->type == OPTION_UINT)
		*(unsigned int *)field = (unsigned int)n;
	else
		*(uint64_t *)field = n;
	return 0;
}

static int store_bytes_list(struct option_list *list, const struct option_row *row,
			    const char *shown, const char *value, struct fault *f)
{
	char text[24];
	uint64_t n;
	int r = store_number(row, shown, value, byte_units, &n, f);

	if (r)
		return r;
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	return option_list_add(list, text, f);
}

int option_store(struct options *o, const struct option_row *row, const char *shown,
		 const char *value, struct fault *f)
{
	void *field = (char *)o + row->offset;
	int r;

	if (value && !option_takes_value(row->type) && row->type != OPTION_FLAG)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: takes no value, but was given \"%s\"",
				 shown, value);
	switch (row->type) {
	case OPTION_FLAG:
		return store_flag(field, shown, value, f);
	case OPTION_CONST:
		*(int *)field = (int)row->min;
		return 0;
	case OPTION_STRING:
	case OPTION_ID:
		return store_string(field, row, shown, value, f);
	case OPTION_BYTES_LIST:
		return store_bytes_list(field, row, shown, value, f);
	case OPTION_LIST:
		return store_list(field, row, shown, value, f);
	case OPTION_CHOICE:
		r = find_choice(row, shown, value, f);
		if (r < 0)
			return r;
		*(int *)field = r;
		return 0;
	case OPTION_BLOCK_SIZE:
		return store_block_size(field, row, shown, value, f);
	case OPTION_MODE:
		return store_mode(field, shown, value, f);
	case OPTION_UINT:
	case OPTION_SECONDS:
	case OPTION_COUNT:
	case OPTION_BYTES:
		return store_integer(field, row, shown, value, f);
	case OPTION_IGNORED:
		return 0;
	case OPTION_REFUSED:
	case OPTION_REFUSED_VALUE:
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: not supported yet", shown);
		fault_hint(f, "leave the option out; freeze the filesystem by hand (fsfreeze) "
			      "before taking a snapshot");
		return -EINVAL;
	case OPTION_KEYS:
	case OPTION_COMMAND:
		break;
	}
	return -EINVAL;
}

int option_store_defaults(struct options *o, struct fault *f)
{
	o->spec.snap_id = UINT64_MAX;
	o->inline_threshold = UINT64_MAX;
	o->io_timeout_s = -1;
	o->socket_mode = UINT_MAX;
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		int r = row->fallback ? option_store(o, row, row->name, row->fallback, f) : 0;

		if (r)
			return r;
	}
	return 0;
}

void option_values_done(struct options *o)
{
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		void *field = (char *)o + row->offset;

		if (row->type == OPTION_STRING || row->type == OPTION_ID) {
			free(*(char **)field);
			*(char **)field = NULL;
		} else if (row->type == OPTION_LIST || row->type == OPTION_BYTES_LIST) {
			option_list_done(field);
		}
	}
}
