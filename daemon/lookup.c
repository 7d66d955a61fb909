/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a command line to the volumes it means, for commands that look at state files. Main thread;
 * owns the list that it has read.
 */

#include "lookup.h"

#include "list.h"
#include "operand.h"

int lookup_open(const struct options *o, struct lookup *ret, struct fault *f)
{
	int r = state_run_dir(o->run_dir, ret->run_dir, sizeof(ret->run_dir), f);

	if (r == 0)
		r = state_list(ret->run_dir, &ret->list, f);
	if (r < 0)
		return r;
	ret->v = ret->list.volumes;
	ret->n = ret->list.n;
	ret->is_one = false;
	return 0;
}

int lookup_operand(struct options *o, struct lookup *ret, struct fault *f)
{
	char name[4096];
	int r = lookup_open(o, ret, f);

	if (r < 0)
		return r;
	list_drop_stale(&ret->list, nbd_sysfs_read);
	ret->n = ret->list.n;
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

void lookup_done(struct lookup *l)
{
	state_list_done(&l->list);
}
