/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * "status" reads state files, which answer whatever the daemon and the cluster do. Only who has an
 * image's lock changes without anybody telling, so the daemons are asked for that, and a volume
 * whose daemon does not answer in time says so in that one place. Main thread of a command.
 */

#include "status_command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "guard_socket.h"
#include "list.h"
#include "lookup.h"
#include "output.h"
#include "text.h"

#define LOOK_MS 1000

static int error_of(const struct lookup *was, const int *errors, const char *key)
{
	for (unsigned int i = 0; i < was->n; i++)
		if (strcmp(was->v[i].key, key) == 0)
			return errors[i];
	return 0;
}

/* What its file says of the lock is old. */
static void mark(struct volume_state *v, int error)
{
	bool is_asked = volume_is_alive(v);

	if ((is_asked && error == 0) || strcmp(v->lock, "-") == 0 || !v->lock[0])
		return;
	text_copy(v->lock, sizeof(v->lock), "unknown");
	if (!is_asked)
		text_copy(v->lock_reason, sizeof(v->lock_reason), "it has no daemon");
	else if (error == -ETIMEDOUT)
		(void)snprintf(v->lock_reason, sizeof(v->lock_reason), "no answer in %d s",
			       LOOK_MS / 1000);
	else
		(void)snprintf(v->lock_reason, sizeof(v->lock_reason),
			       "its daemon cannot be asked: %s", strerror(-error));
}

/* Has it looked up by those who can, and reads it again. */
static int look(struct lookup *l, struct fault *f)
{
	int *errors = calloc(l->n + 1, sizeof(*errors)), r;
	struct lookup now;

	if (!errors)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the volumes");
	r = guard_look(l->run_dir, l->v, l->n, LOOK_MS, errors);
	if (r < 0)
		(void)fault_set(f, EXIT_MEMORY, r, "no memory for the volumes");
	else
		r = lookup_again(l, &now, f);
	if (r == 0) {
		for (unsigned int i = 0; i < now.list.n; i++)
			mark(&now.list.volumes[i], error_of(l, errors, now.list.volumes[i].key));
		lookup_done(l);
		*l = now;
	}
	free(errors);
	return r;
}

int status_run(struct options *o, struct fault *f)
{
	struct list_options how = { .format = o->format,
				    .is_pretty = o->is_pretty,
				    .is_all = true };
	struct lookup l;
	int r = lookup_operand(o, &l, f);

	if (r < 0)
		return r;
	r = look(&l, f);
	if (r == 0)
		r = output_finish(status_print(stdout, l.v, l.n, &how), f);
	lookup_done(&l);
	return r;
}
