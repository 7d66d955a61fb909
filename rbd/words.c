/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * CEPH_ARGS, taken apart as Ceph's tools do it: at blanks, without quoting. Pure text,
 * called once per cluster from the thread that makes it.
 */

#include "words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void words_done(struct words *w)
{
	free(w->text);
	free(w->v);
	w->text = NULL;
	w->v = NULL;
	w->n = 0;
}

/* "--name VALUE" or "--name=VALUE" at v[i], and its short form; how many words it takes. */
static int match(const char *const *v, int n, int i, const char *long_name, const char *short_name,
		 const char **ret_value)
{
	size_t len = strlen(long_name);

	if (strncmp(v[i], long_name, len) == 0 && v[i][len] == '=') {
		*ret_value = v[i] + len + 1;
		return 1;
	}
	if (strcmp(v[i], long_name) != 0 && (!short_name || strcmp(v[i], short_name) != 0))
		return 0;
	if (i + 1 >= n)
		return 0;
	*ret_value = v[i + 1];
	return 2;
}

const char *words_value(int n, const char *const *v, const char *long_name, const char *short_name)
{
	const char *value = NULL;

	for (int i = 0, taken; i < n; i += taken ? taken : 1)
		taken = match(v, n, i, long_name, short_name, &value);
	return value;
}

static int take_early(struct words *w, const char *const *v, int n, int i)
{
	const char *id = NULL;
	int taken = match(v, n, i, "--conf", "-c", &w->conf);

	if (!taken)
		taken = match(v, n, i, "--cluster", NULL, &w->cluster);
	if (!taken)
		taken = match(v, n, i, "--name", "-n", &w->name);
	if (taken)
		return taken;
	taken = match(v, n, i, "--id", "-i", &id);
	if (!taken)
		taken = match(v, n, i, "--user", NULL, &id);
	if (taken) {
		(void)snprintf(w->client, sizeof(w->client), "client.%s", id);
		w->name = w->client;
	}
	return taken;
}

int words_parse(const char *text, struct words *ret)
{
	size_t room = (text ? strlen(text) : 0) / 2 + 2;
	const char **v;
	char *save = NULL;
	int n = 0, taken;

	*ret = (struct words){ 0 };
	v = calloc(room, sizeof(*v));
	ret->text = strdup(text ? text : "");
	ret->v = calloc(room + 1, sizeof(*ret->v));
	if (!v || !ret->text || !ret->v) {
		free(v);
		words_done(ret);
		return -ENOMEM;
	}
	for (char *p = strtok_r(ret->text, " \t\n", &save); p; p = strtok_r(NULL, " \t\n", &save))
		v[n++] = p;
	ret->v[ret->n++] = "CEPH_ARGS";
	for (int i = 0; i < n; i += taken ? taken : 1) {
		taken = take_early(ret, v, n, i);
		if (!taken)
			ret->v[ret->n++] = v[i];
	}
	free(v);
	return 0;
}
