/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A library that is loaded before librados and kills its process at a chosen write operation: the
 * file that DIE_FILE names, once it is there, holds "N before" or "N after", and N is counted from
 * then on. "after" gives the operation the time to reach its OSD. For layered-kill.
 */

#include <dlfcn.h>
#include <rados/librados.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int chosen(char *when, size_t len)
{
	const char *path = getenv("DIE_FILE");
	FILE *f = path ? fopen(path, "re") : NULL;
	char format[16];
	int n = 0;

	if (!f)
		return 0;
	(void)snprintf(format, sizeof(format), "%%d %%%zus", len - 1);
	if (fscanf(f, format, &n, when) != 2)
		n = 0;
	(void)fclose(f);
	return n;
}

typedef int (*operate_fn)(rados_write_op_t op, rados_ioctx_t io, rados_completion_t c,
			  const char *oid, time_t *mtime, int flags);

int rados_aio_write_op_operate(rados_write_op_t op, rados_ioctx_t io, rados_completion_t c,
			       const char *oid, time_t *mtime, int flags)
{
	static atomic_int count;
	operate_fn operate = (operate_fn)dlsym(RTLD_NEXT, "rados_aio_write_op_operate");
	char when[8] = "";
	int n = chosen(when, sizeof(when)), r;
	int is_mine = n > 0 && atomic_fetch_add(&count, 1) + 1 == n;

	if (is_mine && strcmp(when, "before") == 0)
		(void)kill(getpid(), SIGKILL);
	r = operate(op, io, c, oid, mtime, flags);
	if (is_mine) {
		(void)usleep(300000);
		(void)kill(getpid(), SIGKILL);
	}
	return r;
}
