/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The options of Ceph whose values are files, as its own tools read them. Nothing else of Ceph's
 * words is known here. Main thread, before a request travels to the host's daemon.
 */

#include "ceph_paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option_value.h"
#include "path.h"

/* What Ceph takes for the end of one file's name in a list of keyrings. */
#define BETWEEN_KEYRINGS ";,= \t"

struct row {
	const char *name, *letter;
	bool is_list;
};

static const struct row rows[] = {
	{ "--conf", "-c", false },
	{ "--keyfile", "-K", false },
	{ "--keyring", "-k", true },
};

/* Of such an option; *ret_value is behind its "=", or NULL where the next word is the value. */
static const struct row *row_of(const char *word, const char **ret_value)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t len = strlen(rows[i].name);

		if (strncmp(word, rows[i].name, len) == 0 && word[len] == '=') {
			*ret_value = word + len + 1;
			return &rows[i];
		}
		if (strcmp(word, rows[i].name) == 0 || strcmp(word, rows[i].letter) == 0) {
			*ret_value = NULL;
			return &rows[i];
		}
	}
	return NULL;
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the request");
}

/* What begins with a variable of Ceph's is left to it, and so is "-", standard input. */
static bool is_relative(const char *path)
{
	return path[0] && path[0] != '/' && path[0] != '$' && strcmp(path, "-") != 0;
}

/* Appends a path to the text *to. Takes neither. */
static int append(char **to, const char *before, const char *path, struct fault *f)
{
	char *whole = strdup(path), *text;
	int r = whole ? 0 : -ENOMEM;

	if (whole && is_relative(path))
		r = path_make_absolute(&whole);
	if (r == 0 && asprintf(&text, "%s%s%s", *to, before, whole) < 0)
		r = -ENOMEM;
	free(whole);
	if (r == -ENOMEM)
		return no_memory(f);
	if (r < 0)
		return path_fault(r, f);
	free(*to);
	*to = text;
	return 0;
}

/* The value as another process can use it, behind name; the caller frees. */
static int settle_value(const struct row *row, const char *name, const char *value, char **ret,
			struct fault *f)
{
	char *copy = strdup(value), *text = strdup(name), *save = NULL;
	const char *before = "";
	int r = copy && text ? 0 : no_memory(f);

	if (r == 0 && !row->is_list)
		r = append(&text, "", value, f);
	else if (r == 0)
		for (char *p = strtok_r(copy, BETWEEN_KEYRINGS, &save); r == 0 && p;
		     p = strtok_r(NULL, BETWEEN_KEYRINGS, &save)) {
			r = append(&text, before, p, f);
			before = ",";
		}
	free(copy);
	if (r < 0)
		free(text);
	else
		*ret = text;
	return r;
}

/* What word v[i] becomes, if it is such an option or the value of one; else *ret is NULL. */
static int settle_word(const char *const *v, int i, char **ret, struct fault *f)
{
	const char *value;
	const struct row *row = i > 0 ? row_of(v[i - 1], &value) : NULL;
	char *name;
	int r;

	*ret = NULL;
	if (row && !value)
		return settle_value(row, "", v[i], ret, f);
	row = row_of(v[i], &value);
	if (!row || !value)
		return 0;
	if (asprintf(&name, "%s=", row->name) < 0)
		return no_memory(f);
	r = settle_value(row, name, value, ret, f);
	free(name);
	return r;
}

static int settle_words(struct options *o, struct fault *f)
{
	int r = 0;

	/* From the end: a value is known by the word before it, as it was. */
	for (int i = o->ceph_argc - 1; r == 0 && i > 0; i--) {
		char *word;

		r = settle_word(o->ceph_argv, i, &word, f);
		if (r < 0 || !word)
			continue;
		r = option_list_add(&o->words, word, f);
		free(word);
		if (r == 0)
			o->ceph_argv[i] = o->words.items[o->words.n - 1];
	}
	return r;
}

/* CEPH_ARGS is cut at blanks, without quoting: a path with one cannot be said there. */
static int add_arg(char **to, const char *word, const char *was, struct fault *f)
{
	char *text;

	if (strpbrk(word, " \t\n")) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "CEPH_ARGS: \"%s\" is no absolute path",
				was);
		fault_hint(f, "the folder of the host's daemon is another one: name the file with "
			      "its whole path, or give --no-daemon");
		return -EINVAL;
	}
	if (asprintf(&text, "%s%s%s", *to, (*to)[0] ? " " : "", word) < 0)
		return no_memory(f);
	free(*to);
	*to = text;
	return 0;
}

static int settle_args(struct options *o, const char *args, struct fault *f)
{
	char *copy = strdup(args), *text = strdup(""), *save = NULL;
	const char **v = calloc(strlen(args) / 2 + 2, sizeof(*v));
	int n = 0, r = copy && text && v ? 0 : no_memory(f);

	if (r == 0)
		for (char *p = strtok_r(copy, " \t\n", &save); p;
		     p = strtok_r(NULL, " \t\n", &save))
			v[n++] = p;
	for (int i = 0; r == 0 && i < n; i++) {
		char *word;

		r = settle_word(v, i, &word, f);
		if (r < 0)
			break;
		r = add_arg(&text, word ? word : v[i], v[i], f);
		free(word);
	}
	free(v);
	free(copy);
	if (r < 0) {
		free(text);
		return r;
	}
	free(o->ceph_args);
	o->ceph_args = text;
	return 0;
}

/* What Ceph reads before CEPH_ARGS, and what is said there overrides. */
static int settle_environment(struct options *o, const char *keyring, const char *args,
			      struct fault *f)
{
	char *text;
	int r;

	/* At its blanks it would be cut, and be several words. */
	if (strpbrk(keyring, " \t\n")) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "CEPH_KEYRING: \"%s\" has a blank",
				keyring);
		fault_hint(f, "give it with --keyring");
		return -EINVAL;
	}
	if (asprintf(&text, "--keyring=%s %s", keyring, args) < 0)
		return no_memory(f);
	r = settle_args(o, text, f);
	free(text);
	return r;
}

int ceph_paths_settle(struct options *o, struct fault *f)
{
	const char *args = getenv("CEPH_ARGS"), *keyring = getenv("CEPH_KEYRING");
	int r = settle_words(o, f);

	if (r == 0 && keyring && keyring[0])
		return settle_environment(o, keyring, args ? args : "", f);
	return r == 0 && args && args[0] ? settle_args(o, args, f) : r;
}
