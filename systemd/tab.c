/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The lines of rbdcrypttab(5), read by root's generator early at boot: no line, however odd,
 * may keep the others from being used. Called by the generator; owns what it returns.
 *
 * A line is four fields between blanks, where \ooo is a byte as in fstab(5). Lists are separated
 * by commas, and "\," is a comma inside a value, as with -o. The options that are the generator's
 * business are taken out of the list; the rest is handed on as it is, but only what the table
 * of options lets "map" have, or does not know, because Ceph might.
 */

#include "tab.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../daemon/key_kind.h"
#include "../daemon/link_name.h"
#include "nbdctl.h"
#include "../daemon/option_table.h"
#include "unit_text.h"

#define FIELDS 4
#define NAME_MAX_LEN 100
#define EXPECTED "expected: NAME POOL/IMAGE KEY-FILE[,...]|- [OPTION,...]"

static void free_text(char **p)
{
	free(*p);
}
#define cleanup_text __attribute__((cleanup(free_text)))

/* ---- text ---- */

static int octal(const char *p)
{
	int n = 0;

	for (int i = 1; i <= 3; i++) {
		if (p[i] < '0' || p[i] > '7')
			return -EINVAL;
		n = n * 8 + p[i] - '0';
	}
	return n > 0 && n < 256 ? n : -EINVAL;
}

/* In place: it only gets shorter. */
static void decode_octal(char *field)
{
	char *to = field;

	for (const char *p = field; *p; p++) {
		int c = *p == '\\' ? octal(p) : -EINVAL;

		if (c > 0)
			p += 3;
		*to++ = c > 0 ? (char)c : *p;
	}
	*to = 0;
}

/* Cuts line into fields, in place. How many there are, one more than FIELDS at most. */
static unsigned int split_fields(char *line, char *fields[FIELDS])
{
	static const char blanks[] = " \t\r\n";
	unsigned int n = 0;
	char *rest = NULL;

	for (char *p = strtok_r(line, blanks, &rest); p; p = strtok_r(NULL, blanks, &rest)) {
		if (n == FIELDS)
			return FIELDS + 1;
		decode_octal(p);
		fields[n++] = p;
	}
	return n;
}

/* The next piece of a list up to a comma that is not escaped; *text to the rest, NULL at the end.
 */
static char *next_piece(const char **text)
{
	const char *p = *text;
	char *piece;

	while (*p && *p != ',')
		p += p[0] == '\\' && p[1] ? 2 : 1;
	piece = strndup(*text, (size_t)(p - *text));
	*text = *p ? p + 1 : NULL;
	return piece;
}

static void unescape(char *piece)
{
	char *to = piece;

	for (const char *p = piece; *p; p++) {
		if (p[0] == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*to++ = *p;
	}
	*to = 0;
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
}

static int set_text(char **to, const char *text, struct fault *f)
{
	free(*to);
	*to = strdup(text);
	return *to ? 0 : no_memory(f);
}

/* ---- fields ---- */

static int check_name(const char *field, struct fault *f)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-.:";

	if (strspn(field, plain) != strlen(field) || strchr("-.", field[0]))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "name '%s'; expected letters, digits and _ - . :, the first not "
				 "- or .",
				 field);
	if (strlen(field) > NAME_MAX_LEN)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "the name is too long; expected at most %d characters",
				 NAME_MAX_LEN);
	return 0;
}

static int take_spec(struct tab_entry *e, const char *field, struct fault *f)
{
	char text[2048];
	int r = image_spec_parse(field, &e->image, f);

	if (r < 0) {
		(void)strcpy(f->hint, "[POOL/[NAMESPACE/]]IMAGE[@SNAP] or file:PATH");
		return r;
	}
	if (e->image.is_file && e->image.image[0] != '/')
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "'%s'; expected file: and an absolute path", field);
	/* The names below /dev must not depend on a file that Ceph reads. */
	if (!e->image.is_file && !e->image.pool && !(e->image.pool = strdup("rbd")))
		return no_memory(f);
	image_spec_format(&e->image, text, sizeof(text));
	return set_text(&e->spec, text, f);
}

/* "word:" and something behind it. */
static bool is_key_source(const char *key)
{
	size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz");

	return n > 1 && key[n] == ':';
}

static int add_key(struct tab_entry *e, char **key, struct fault *f)
{
	char **keys = realloc(e->keys, (e->n_keys + 1) * sizeof(*keys));

	if (!keys)
		return no_memory(f);
	e->keys = keys;
	keys[e->n_keys++] = *key;
	*key = NULL;
	return 0;
}

static int take_keys(struct tab_entry *e, const char *field, struct fault *f)
{
	const char *rest = field;

	if (!strcmp(field, "-"))
		return 0;
	while (rest) {
		cleanup_text char *key = next_piece(&rest);
		int r;

		if (!key)
			return no_memory(f);
		unescape(key);
		if (key[0] != '/' && strcmp(key, "none") != 0 && !is_key_source(key))
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "key file '%s'; expected an absolute path, a key source "
					 "such as cred:NAME, or -",
					 key);
		r = add_key(e, &key, f);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- options ---- */

static int take_path(char **to, const char *key, const char *value, struct fault *f)
{
	if (!value || value[0] != '/')
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s; expected %s=/ABSOLUTE/PATH", key,
				 key);
	if (!unit_can_end(value))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "%s; expected a path that ends with neither a blank nor a "
				 "backslash",
				 key);
	return set_text(to, value, f);
}

static int take_timeout(struct tab_entry *e, const char *value, struct fault *f)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789. ";

	if (!value || !*value || strspn(value, plain) != strlen(value))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "start-timeout; expected a time such as 90s, 5min or infinity");
	return set_text(&e->start_timeout, value, f);
}

/* 1: it was one of the generator's own. */
static int take_own(struct tab_entry *e, const char *key, const char *value, struct fault *f)
{
	static const char *const ignored[] = { "_netdev", "defaults", "auto", "fail" };
	int r = 1;

	if (!strcmp(key, "noauto"))
		e->is_manual = true;
	else if (!strcmp(key, "nofail"))
		e->is_optional = true;
	else if (!strcmp(key, "key-wait"))
		e->is_waiting = true;
	else if (!strcmp(key, "key-mount"))
		r = take_path(&e->key_mount, key, value, f);
	else if (!strcmp(key, "start-timeout"))
		r = take_timeout(e, value, f);
	else
		r = -ENOENT;
	for (unsigned int i = 0; r == -ENOENT && i < sizeof(ignored) / sizeof(*ignored); i++)
		if (!strcmp(key, ignored[i]))
			r = 1;
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : 1;
}

/* As Ceph writes the names of its options, and we do. */
static bool is_option_name(const char *key)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
			  others[] = "0123456789_-";

	for (const char *p = key; *p; p++)
		if (!strchr(letters, *p) && !strchr(others, *p))
			return false;
	return *key && strchr(letters, *key);
}

static int check_option(struct tab_entry *e, const char *key, const char *value, struct fault *f)
{
	const struct option_row *row = option_find(key, strlen(key));

	if (key[0] == '-' || key[0] == '=')
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "option %s; expected options without dashes, as in a=b,c", key);
	if (!row && !is_option_name(key))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "option %s; expected an option of 'rbdcrypt-nbd map', of "
				 "rbdcrypttab(5) or of Ceph",
				 key);
	/* Ceph might know it. What "map" makes of it, its log says. */
	if (!row)
		return 0;
	/* Whoever stops the service, or looks for the device's name, would not find it there. */
	if (strcmp(row->name, "run-dir") == 0)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "option %s; expected no other run directory than that of all "
				 "services",
				 key);
	if (row->group == GROUP_IMAGE)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "option %s; expected in the second field: "
				 "[POOL/[NAMESPACE/]]IMAGE[@SNAP]",
				 key);
	if (!(row->commands & (1u << COMMAND_MAP)) || row->type == OPTION_COMMAND ||
	    row->type == OPTION_KEYS || row->group == GROUP_OUTPUT)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "option %s; expected an option of 'rbdcrypt-nbd map' or of "
				 "rbdcrypttab(5)",
				 key);
	if (row->arg && !value)
		return fault_set(f, EXIT_USAGE, -EINVAL, "option %s; expected %s=%s", key, key,
				 row->arg);
	if (strcmp(row->name, "device") != 0)
		return 0;
	return set_text(&e->device, value, f);
}

static int take_options(struct tab_entry *e, const char *field, struct fault *f)
{
	const char *rest = field;
	size_t len = 0;

	e->options = calloc(1, strlen(field) + 1);
	if (!e->options)
		return no_memory(f);
	while (rest) {
		cleanup_text char *raw = next_piece(&rest);
		cleanup_text char *key = raw ? strdup(raw) : NULL;
		char *value;
		int r;

		if (!key)
			return no_memory(f);
		if (!*key)
			continue;
		unescape(key);
		value = strchr(key, '=');
		if (value)
			*value++ = 0;
		r = take_own(e, key, value, f);
		if (r == 0)
			r = check_option(e, key, value, f);
		else if (r > 0)
			continue;
		if (r < 0)
			return r;
		len += (size_t)sprintf(e->options + len, "%s%s", len ? "," : "", raw);
	}
	return 0;
}

static void entry_done(struct tab_entry *e)
{
	free(e->name);
	free(e->spec);
	image_spec_done(&e->image);
	for (unsigned int i = 0; i < e->n_keys; i++)
		free(e->keys[i]);
	free(e->keys);
	free(e->options);
	free(e->device);
	free(e->awaited);
	free(e->key_mount);
	free(e->start_timeout);
}

/* Values that only the cluster knows: cookie and fsid. */
static bool needs_cluster(const char *key)
{
	for (const char *p = strchr(key, '%'); p; p = p[1] ? strchr(p + 2, '%') : NULL)
		if (p[1] == 'c' || p[1] == 'f')
			return true;
	return false;
}

/* systemd waits for a file, so its name is needed now. */
static int take_awaited(struct tab_entry *e, struct fault *f)
{
	const struct image_spec *i = &e->image;
	const struct key_place place = { .pool = i->pool ? i->pool : "",
					 .nspace = i->nspace ? i->nspace : "",
					 .image = i->image,
					 .snap = i->snap ? i->snap : "",
					 .cookie = "",
					 .fsid = "",
					 .layer = 1 };
	int r;

	if (e->n_keys == 0 || e->keys[0][0] != '/' || needs_cluster(e->keys[0]))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "key-wait; expected a path in the third field, to wait for, "
				 "without %%c and %%f");
	r = key_expand(e->keys[0], &place, &e->awaited, f);
	if (r == -ENOMEM)
		return no_memory(f);
	if (r < 0) {
		fault_prefix(f, "key-wait: %s", e->keys[0]);
		return r;
	}
	return unit_can_end(e->awaited)
		       ? 0
		       : fault_set(f, EXIT_USAGE, -EINVAL,
				   "key-wait; expected a path that ends with neither a blank nor "
				   "a backslash");
}

static int parse_line(struct tab_entry *e, char *line, struct fault *f)
{
	char *fields[FIELDS] = { NULL };
	unsigned int n = split_fields(line, fields);
	int r;

	/* A line that is wrong otherwise says whose it is all the same. */
	if (n > 0 && check_name(fields[0], NULL) == 0 && set_text(&e->name, fields[0], f) < 0)
		return -ENOMEM;
	if (n < FIELDS - 1 || n > FIELDS)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s fields; " EXPECTED,
				 n > FIELDS ? "too many" : "too few");
	for (unsigned int i = 0; i < n; i++)
		if (!unit_can_hold(fields[i]))
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "a control character in field %u, or what is not UTF-8; "
					 "expected text",
					 i + 1);
	r = check_name(fields[0], f);
	if (r == 0)
		r = take_spec(e, fields[1], f);
	if (r == 0)
		r = take_keys(e, fields[2], f);
	if (r == 0)
		r = take_options(e, fields[3] ? fields[3] : "", f);
	return r == 0 && e->is_waiting ? take_awaited(e, f) : r;
}

/* ---- the tab ---- */

static bool is_same_image(const struct tab_entry *a, const struct tab_entry *b)
{
	const struct image_spec *x = &a->image, *y = &b->image;
	char p[4096], q[4096];

	if (x->is_file || y->is_file)
		return x->is_file == y->is_file && !strcmp(x->image, y->image);
	return link_of_image(x->pool, x->nspace, x->image, x->snap, x->snap_id, p, sizeof(p)) ==
		       0 &&
	       link_of_image(y->pool, y->nspace, y->image, y->snap, y->snap_id, q, sizeof(q)) ==
		       0 &&
	       !strcmp(p, q);
}

static bool is_same_device(const struct tab_entry *a, const struct tab_entry *b)
{
	int x, y;

	return a->device && b->device && nbd_index_parse(a->device, &x) == 0 &&
	       nbd_index_parse(b->device, &y) == 0 && x == y;
}

static int check_alone(const struct tab *t, const struct tab_entry *e, struct fault *f)
{
	for (unsigned int i = 0; i < t->n; i++) {
		const struct tab_entry *other = &t->entries[i];
		const char *what = NULL;

		if (!strcmp(other->name, e->name))
			what = "name";
		else if (is_same_image(other, e))
			what = "image";
		else if (is_same_device(other, e))
			what = "device";
		if (what)
			return fault_set(f, EXIT_USAGE, -EEXIST,
					 "the same %s as in %s:%u; expected one line per %s", what,
					 other->file, other->line, what);
	}
	return 0;
}

static int add_entry(struct tab *t, struct tab_entry *e, struct fault *f)
{
	struct tab_entry *entries;
	int r = check_alone(t, e, f);

	if (r < 0)
		return r;
	entries = realloc(t->entries, (t->n + 1) * sizeof(*entries));
	if (!entries)
		return no_memory(f);
	t->entries = entries;
	entries[t->n++] = *e;
	return 0;
}

/* Takes the name, if the line has one. */
static int add_refusal(struct tab *t, struct tab_entry *e, const char *message)
{
	struct tab_refusal *refusals, *new;

	if (!e->name)
		return 0;
	refusals = realloc(t->refusals, (t->n_refusals + 1) * sizeof(*refusals));
	if (!refusals)
		return -ENOMEM;
	t->refusals = refusals;
	new = &refusals[t->n_refusals];
	new->message = strdup(message);
	if (!new->message)
		return -ENOMEM;
	new->name = e->name;
	new->file = e->file;
	e->name = NULL;
	t->n_refusals++;
	return 0;
}

static bool is_comment(const char *line)
{
	line += strspn(line, " \t\r\n");
	return !*line || *line == '#';
}

int tab_read(struct tab *t, FILE *in, const char *file, tab_told_fn told, void *arg)
{
	cleanup_text char *line = NULL;
	size_t size = 0;
	ssize_t len;

	for (unsigned int number = 1; (len = getline(&line, &size, in)) >= 0; number++) {
		struct tab_entry e = { .image = IMAGE_SPEC_INIT, .file = file, .line = number };
		struct fault f = { 0 };
		char message[1400];
		int r;

		if (is_comment(line))
			continue;
		if (strlen(line) != (size_t)len)
			r = fault_set(&f, EXIT_USAGE, -EINVAL, "a NUL byte; " EXPECTED);
		else
			r = parse_line(&e, line, &f);
		if (r == 0)
			r = add_entry(t, &e, &f);
		if (r == 0)
			continue;
		(void)snprintf(message, sizeof(message), "%.200s:%u: %.900s%s%.200s", file, number,
			       f.message, f.hint[0] ? "; expected: " : "", f.hint);
		if (r != -ENOMEM) {
			told(arg, message);
			t->n_refused++;
			r = add_refusal(t, &e, message);
		}
		entry_done(&e);
		if (r < 0)
			return r;
	}
	return ferror(in) ? -EIO : 0;
}

void tab_done(struct tab *t)
{
	for (unsigned int i = 0; i < t->n; i++)
		entry_done(&t->entries[i]);
	free(t->entries);
	for (unsigned int i = 0; i < t->n_refusals; i++) {
		free(t->refusals[i].name);
		free(t->refusals[i].message);
	}
	free(t->refusals);
	*t = (struct tab){ 0 };
}
