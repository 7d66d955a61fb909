/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A library that is loaded before librbd and librados, for host.sh: storage, the process STOP_PID,
 * is stopped just before the call that STOP_BEFORE names.
 */

#include <dlfcn.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void stop_before(const char *call)
{
	const char *chosen = getenv("STOP_BEFORE"), *pid = getenv("STOP_PID");

	if (!chosen || !pid || strcmp(chosen, call) != 0)
		return;
	(void)kill(atoi(pid), SIGSTOP);
	/* Until each of its threads has. */
	(void)usleep(100000);
}

int64_t rbd_get_data_pool_id(rbd_image_t image)
{
	int64_t (*real)(rbd_image_t) = (int64_t(*)(rbd_image_t))dlsym(RTLD_NEXT,
								      "rbd_get_data_pool_id");

	stop_before("rbd_get_data_pool_id");
	return real(image);
}

int rbd_update_watch(rbd_image_t image, uint64_t *handle, rbd_update_callback_t callback, void *arg)
{
	int (*real)(rbd_image_t, uint64_t *, rbd_update_callback_t,
		    void *) = (int (*)(rbd_image_t, uint64_t *, rbd_update_callback_t,
				       void *))dlsym(RTLD_NEXT, "rbd_update_watch");

	stop_before("rbd_update_watch");
	return real(image, handle, callback, arg);
}

int rados_aio_read(rados_ioctx_t io, const char *oid, rados_completion_t c, char *buf, size_t len,
		   uint64_t off)
{
	int (*real)(rados_ioctx_t, const char *, rados_completion_t, char *, size_t,
		    uint64_t) = (int (*)(rados_ioctx_t, const char *, rados_completion_t, char *,
					 size_t, uint64_t))dlsym(RTLD_NEXT, "rados_aio_read");

	stop_before("rados_aio_read");
	return real(io, oid, c, buf, len, off);
}
