/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Calls of librados that end. Called by threads that may wait: the one that keeps the lock of an
 * image, and the volume's thread. librados' callback threads say when an answer came.
 *
 * A call has two holders, who waits for it and its callback; whichever lets go last frees it, and
 * with it the memory that the cluster's answer goes to. The lock guards what both look at.
 */

#include "osd.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"

#define LOOK_MS 200 /* how often patience is looked at */

struct osd_call {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	rados_completion_t completion; /* owned */
	rados_ioctx_t io; /* owned; of reads */
	void *memory; /* lock; owned once is_abandoned */
	bool is_done, is_abandoned; /* lock */
};

struct patience patience_for(unsigned int timeout_s, const atomic_bool *is_over)
{
	return (struct patience){
		.is_over = is_over,
		.deadline_ms = timeout_s ? clock_ms() + (int64_t)timeout_s * 1000 : 0,
	};
}

bool patience_wait(const struct patience *p, pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	int64_t now = clock_ms(), until = now + LOOK_MS;
	struct timespec t;

	if ((p->is_over && atomic_load(p->is_over)) || (p->deadline_ms && now >= p->deadline_ms))
		return false;
	if (p->deadline_ms && p->deadline_ms < until)
		until = p->deadline_ms;
	t = clock_at(until);
	(void)pthread_cond_timedwait(cond, mutex, &t);
	return true;
}

/* ---- life ---- */

static struct osd_call *call_free(struct osd_call *call)
{
	if (call->completion)
		rados_aio_release(call->completion);
	if (call->io)
		rados_ioctx_destroy(call->io);
	(void)pthread_cond_destroy(&call->changed);
	(void)pthread_mutex_destroy(&call->lock);
	free(call);
	return NULL;
}

static void on_done(rados_completion_t completion, void *arg)
{
	struct osd_call *call = arg;
	bool is_abandoned;

	(void)completion;
	(void)pthread_mutex_lock(&call->lock);
	call->is_done = true;
	is_abandoned = call->is_abandoned;
	/* Under the lock: who waits frees as soon as it has it. */
	(void)pthread_cond_signal(&call->changed);
	(void)pthread_mutex_unlock(&call->lock);
	if (is_abandoned) {
		free(call->memory);
		call_free(call);
	}
}

int osd_begin(struct osd_call **ret, rados_completion_t *ret_completion)
{
	struct osd_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return -ENOMEM;
	(void)pthread_mutex_init(&call->lock, NULL);
	clock_cond_init(&call->changed);
	r = rados_aio_create_completion2(call, on_done, &call->completion);
	if (r < 0) {
		call->completion = NULL;
		call_free(call);
		return r;
	}
	*ret_completion = call->completion;
	*ret = call;
	return 0;
}

void osd_forget(struct osd_call *call)
{
	call_free(call);
}

/* ---- waiting ---- */

int osd_wait(struct osd_call *call, const struct patience *p, void *memory, bool *ret_is_late)
{
	bool is_done;
	int r;

	(void)pthread_mutex_lock(&call->lock);
	while (!call->is_done && patience_wait(p, &call->changed, &call->lock))
		;
	is_done = call->is_done;
	if (!is_done) {
		call->memory = memory;
		call->is_abandoned = true;
	}
	(void)pthread_mutex_unlock(&call->lock);
	if (ret_is_late)
		*ret_is_late = !is_done;
	if (!is_done)
		return -ETIMEDOUT;
	r = rados_aio_get_return_value(call->completion);
	call_free(call);
	return r;
}

int osd_write(rados_ioctx_t io, const char *object, rados_write_op_t op, const struct patience *p)
{
	rados_completion_t completion;
	struct osd_call *call;
	int r = osd_begin(&call, &completion);

	if (r == 0) {
		r = rados_aio_write_op_operate(op, io, completion, object, NULL,
					       LIBRADOS_OPERATION_FULL_TRY);
		if (r < 0)
			osd_forget(call);
		else
			r = osd_wait(call, p, NULL, NULL);
	}
	/* What was sent is librados' own by now. */
	rados_release_write_op(op);
	return r;
}

/*
 * librados looks at the context of a read when the answer comes, and holds no reference to it: who
 * gave up waiting may have closed everything by then. (Of a write it has one.)
 */
static int clone_ioctx(rados_ioctx_t io, rados_ioctx_t *ret)
{
	char nspace[512];
	int r = rados_ioctx_get_namespace(io, nspace, sizeof(nspace));

	if (r < 0)
		return r;
	r = rados_ioctx_create2(rados_ioctx_get_cluster(io), rados_ioctx_get_id(io), ret);
	if (r < 0)
		*ret = NULL;
	else
		rados_ioctx_set_namespace(*ret, nspace);
	return r;
}

int osd_read(rados_ioctx_t io, const char *object, rados_read_op_t op, const struct patience *p,
	     void *memory, bool *ret_is_late)
{
	rados_completion_t completion;
	struct osd_call *call;
	int r = osd_begin(&call, &completion);

	*ret_is_late = false;
	if (r == 0) {
		r = clone_ioctx(io, &call->io);
		if (r >= 0)
			r = rados_aio_read_op_operate(op, call->io, completion, object, 0);
		if (r < 0)
			osd_forget(call);
		else
			r = osd_wait(call, p, memory, ret_is_late);
	}
	rados_release_read_op(op);
	return r;
}
