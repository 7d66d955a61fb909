/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_EVENT_H
#define RBDCRYPT_EVENT_H

#include "fault.h"

/*
 * Changes of state that a person or a program would look for in the journal. Each has a message id
 * of its own, and an entry in systemd/rbdcrypt-nbd.catalog that says what it means and what to do
 * (journalctl -x). They are written as all other messages (log.h); in the journal they carry what
 * they are about in fields.
 */
enum event {
	EVENT_SERVED, /* a volume can be used */
	EVENT_ENDED, /* it ended in order */
	EVENT_START_FAILED,
	EVENT_WAITS, /* a device or socket of a former daemon cannot be served yet */
	EVENT_DEVICE_WAITS, /* a daemon left its device */
	EVENT_HANDED_OVER, /* a daemon left its device with the sockets for the next one */
	EVENT_KEY_LOST, /* a layer might not open again */
	EVENT_HEADER_CHANGED, /* the same, because its header is another */
	EVENT_KEYS_BACK,
	EVENT_CLIENT_FENCED, /* a dead predecessor was blocklisted */
	EVENT_LOCK_TAKEN, /* from a dead client */
	EVENT_WRITING_STOPPED, /* for good: fenced, or the image became what must not be written */
	EVENT_COUNT
};

/* What an event is about; NULL, 0 (and -1) are nothing. */
struct event_about {
	const char *volume; /* as log.h has it */
	const char *pool, *nspace, *image, *snap;
	int device; /* N of /dev/nbdN, -1: none */
	unsigned int layer; /* from 1, the image itself */
	int error; /* -errno */
	const struct fault *fault; /* its errno counts before error */
};

/* As log_write(), with the event's own level. Any thread. */
void event_log(enum event e, const struct event_about *a, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Its message id, 32 hexadecimal digits. */
const char *event_id(enum event e);

#endif
