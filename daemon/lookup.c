/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a command line to the volumes it means, for commands that look at state files. Main thread;
 * owns the list that it has read.
 */

#include "lookup.h"

#include <errno.h>
#include <string.h>

#include "list.h"
#include "operand.h"
#include "text.h"

static int read_list(struct lookup *ret, struct fault *f)
{
	int r = state_list(ret->run_dir, &ret->list, f);

	if (r < 0)
		return r;
	ret->v = ret->list.volumes;
	ret->n = ret->list.n;
	ret->is_one = false;
	return 0;
}

static void drop_stale(struct lookup *l)
{
	list_drop_stale(&l->list, nbd_sysfs_read);
	l->n = l->list.n;
}

int lookup_name(struct state_list *l, const char *name, const struct volume_state **ret,
		struct fault *f)
{
	int r = state_find(l, name, ret, NULL);

	if (r == -ENOTUNIQ)
		list_drop_stale(l, nbd_sysfs_read);
	return r == 0 ? 0 : state_find(l, name, ret, f);
}

int lookup_open(const struct options *o, struct lookup *ret, struct fault *f)
{
	int r = state_run_dir(o->run_dir, ret->run_dir, sizeof(ret->run_dir), f);

	return r < 0 ? r : read_list(ret, f);
}

int lookup_operand(struct options *o, struct lookup *ret, struct fault *f)
{
	char name[4096];
	int r = lookup_open(o, ret, f);

	if (r < 0)
		return r;
	drop_stale(ret);
	r = operand_name(o, name, sizeof(name), f);
	if (r == 0 && name[0]) {
		r = state_find(&ret->list, name, &ret->v, f);
		ret->n = 1;
		ret->is_one = true;
	}
	if (r < 0)
		lookup_done(ret);
	return r;
}

int lookup_again(const struct lookup *l, struct lookup *ret, struct fault *f)
{
	int r;

	text_copy(ret->run_dir, sizeof(ret->run_dir), l->run_dir);
	r = read_list(ret, f);
	if (r < 0)
		return r;
	drop_stale(ret);
	ret->is_one = l->is_one;
	if (!l->is_one)
		return 0;
	while (ret->n > 0 && strcmp(ret->v->key, l->v->key) != 0) {
		ret->v++;
		ret->n--;
	}
	ret->n = ret->n > 0 ? 1 : 0;
	return 0;
}

void lookup_done(struct lookup *l)
{
	state_list_done(&l->list);
}
