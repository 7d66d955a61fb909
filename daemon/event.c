/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From an event to a message with fields; log.c has where it goes. Fields are put together on the
 * stack, so that any thread can tell, whatever else is short. Owns nothing.
 */

#include "event.h"

#include <stdarg.h>
#include <stdio.h>

#include "log_fields.h"

static const struct {
	enum log_level level;
	const char *id;
} events[EVENT_COUNT] = {
	[EVENT_SERVED] = { LOG_LEVEL_NOTICE, "e7a7245378434a2182ab0c974c3d8363" },
	[EVENT_ENDED] = { LOG_LEVEL_NOTICE, "fc01204b0d7348dd95db07b04f8b9c96" },
	[EVENT_START_FAILED] = { LOG_LEVEL_ERROR, "4dd117db71214af79cff9309d11fa6e4" },
	[EVENT_WAITS] = { LOG_LEVEL_WARNING, "8102ce0728644b17819bd40f61615700" },
	[EVENT_DEVICE_WAITS] = { LOG_LEVEL_NOTICE, "a7293afd1d53456ea67d7a7a0e3532b6" },
	[EVENT_HANDED_OVER] = { LOG_LEVEL_NOTICE, "439a195e872e460197c84fad98dfc727" },
	[EVENT_KEY_LOST] = { LOG_LEVEL_ERROR, "e8463094f18942f690415432d6983521" },
	[EVENT_HEADER_CHANGED] = { LOG_LEVEL_ERROR, "9710c43194fa4b0a9bdffa74da53ae30" },
	[EVENT_KEYS_BACK] = { LOG_LEVEL_NOTICE, "ac973b0a2bec4614ba9ede4128f1c182" },
	[EVENT_CLIENT_FENCED] = { LOG_LEVEL_NOTICE, "703d47d3ab4941e180f1e6398eacdbee" },
	[EVENT_LOCK_TAKEN] = { LOG_LEVEL_WARNING, "21e6d84d9cdb452fb580b3aff85b19b7" },
	[EVENT_WRITING_STOPPED] = { LOG_LEVEL_ERROR, "95710c8df3a74be8b451d161d5f6a5c5" },
};

const char *event_id(enum event e)
{
	return events[e].id;
}

static void put_text(struct log_fields *f, const char *name, const char *value)
{
	if (value && value[0])
		log_field(f, "%s=%s", name, value);
}

static void put_cause(struct log_fields *f, const struct event_about *a)
{
	int error = a->fault ? a->fault->error : a->error;

	if (error)
		log_field(f, "ERRNO=%d", -error);
	if (!a->fault)
		return;
	log_field(f, "RBDCRYPT_EXIT_STATUS=%d", (int)a->fault->status);
	put_text(f, "RBDCRYPT_HINT", a->fault->hint);
}

void event_log(enum event e, const struct event_about *a, const char *fmt, ...)
{
	struct log_fields f = { 0 };
	va_list ap;

	log_field(&f, "MESSAGE_ID=%s", events[e].id);
	put_text(&f, "RBDCRYPT_POOL", a->pool);
	put_text(&f, "RBDCRYPT_NAMESPACE", a->nspace);
	put_text(&f, "RBDCRYPT_IMAGE", a->image);
	put_text(&f, "RBDCRYPT_SNAP", a->snap);
	if (a->device >= 0)
		log_field(&f, "RBDCRYPT_DEVICE=/dev/nbd%d", a->device);
	if (a->layer > 0)
		log_field(&f, "RBDCRYPT_LAYER=%u", a->layer);
	put_cause(&f, a);
	va_start(ap, fmt);
	log_write_fields(events[e].level, a->volume, &f, fmt, ap);
	va_end(ap);
}
