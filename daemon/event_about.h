/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_EVENT_ABOUT_H
#define DAEMON_EVENT_ABOUT_H

#include "event.h"
#include "image.h"
#include "state.h"

/* An event about a volume, by its image; device -1: it has none. By reference. */
static inline struct event_about event_about_image(const char *volume, const struct image_spec *s,
						   int device)
{
	return (struct event_about){ .volume = volume,
				     .pool = s->pool,
				     .nspace = s->nspace,
				     .image = s->image,
				     .snap = s->snap,
				     .device = device };
}

/* The same from what its state file says; volume is what messages call it. By reference. */
static inline struct event_about event_about_state(const char *volume, const struct volume_state *s)
{
	return (struct event_about){ .volume = volume,
				     .pool = s->pool,
				     .nspace = s->nspace,
				     .image = s->image,
				     .snap = s->snap,
				     .device = s->device };
}

#endif
