/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OSD_H
#define RBD_OSD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rados/librados.h>

/*
 * Calls of librados that wait for the cluster, with an end to the waiting: librados itself waits
 * for ever, and its calls cannot be taken back. For threads that may wait, never for callbacks.
 */
struct patience {
	/* True: give up now. Looked at several times a second; may be NULL. */
	const atomic_bool *is_over;
	int64_t deadline_ms; /* of clock_ms(); 0: none */
};
/* timeout_s 0: none. */
struct patience patience_for(unsigned int timeout_s, const atomic_bool *is_over);
/*
 * As pthread_cond_wait(), on a condition of clock_cond_init(): waits for a moment, or until it is
 * signalled. False, at once, when patience is over.
 */
bool patience_wait(const struct patience *p, pthread_cond_t *cond, pthread_mutex_t *mutex);

/*
 * Waits for what was begun with a completion of osd_begin(). Returns its return value, or
 * -ETIMEDOUT when patience ran out: then it may still happen, and memory (malloc'ed, may be NULL;
 * what the call reads and writes) is freed when it comes back. In the other case memory stays the
 * caller's. *ret_is_late says which; it may be NULL where memory is. The completion is taken.
 */
struct osd_call;
int osd_begin(struct osd_call **ret, rados_completion_t *ret_completion);
/* When nothing was sent after all. */
void osd_forget(struct osd_call *call);
int osd_wait(struct osd_call *call, const struct patience *p, void *memory, bool *ret_is_late);

/*
 * The usual: op is sent, waited for and released. 0 or more, -errno, -ETIMEDOUT. Does not wait for
 * space in a full pool: others may want the lock to make some.
 */
int osd_write(rados_ioctx_t io, const char *object, rados_write_op_t op, const struct patience *p);
/* out_buf of its steps lie in memory, which is treated as in osd_wait(). */
int osd_read(rados_ioctx_t io, const char *object, rados_read_op_t op, const struct patience *p,
	     void *memory, bool *ret_is_late);

#endif
