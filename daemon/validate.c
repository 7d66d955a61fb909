/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The door: a request that does not pass is answered and forgotten, and none that
 * passes is checked again. Error numbers follow the protocol's "Error values".
 */

#include "validate.h"

#include <errno.h>

/* Flags that may come with a command, or -1 for a command that was not announced. */
static int legal_flags(const struct wire_session *s, uint16_t type)
{
	int fua = s->flags & WIRE_FLAG_SEND_FUA ? WIRE_CMD_FUA : 0;
	int fast = s->flags & WIRE_FLAG_SEND_FAST_ZERO ? WIRE_CMD_FAST_ZERO : 0;

	switch ((enum wire_command)type) {
	case WIRE_READ:
		/* FUA on a read asks for nothing, and the protocol lets clients send it. */
		return fua | (s->has_structured ? (int)WIRE_CMD_DF : 0);
	case WIRE_WRITE:
		return fua;
	case WIRE_FLUSH:
		return fua;
	case WIRE_TRIM:
		return s->flags & WIRE_FLAG_SEND_TRIM ? fua : -1;
	case WIRE_WRITE_ZEROES:
		return s->flags & WIRE_FLAG_SEND_WRITE_ZEROES ? fua | fast | (int)WIRE_CMD_NO_HOLE
							      : -1;
	case WIRE_BLOCK_STATUS:
		return s->has_status ? fua | (int)WIRE_CMD_REQ_ONE : -1;
	case WIRE_CACHE:
	case WIRE_DISC:
		break;
	}
	return -1;
}

int validate_request(const struct volume *v, const struct wire_session *s,
		     const struct wire_request *w)
{
	bool is_write = w->type == WIRE_WRITE || w->type == WIRE_TRIM ||
			w->type == WIRE_WRITE_ZEROES;
	uint64_t size = atomic_load(&v->size);
	int flags;

	/* Before what was announced: a read-only export announces no TRIM, but the reason is the
	 * device. */
	if (is_write && v->is_read_only)
		return -EPERM;
	flags = legal_flags(s, w->type);
	if (flags < 0 || (w->flags & ~(unsigned int)flags) != 0)
		return -EINVAL;
	if (w->type == WIRE_FLUSH)
		return w->offset == 0 && w->len == 0 ? 0 : -EINVAL;
	if (w->len == 0)
		return -EINVAL;
	if (w->offset > size || w->len > size - w->offset)
		return is_write ? -ENOSPC : -EINVAL;
	if ((w->type == WIRE_READ || w->type == WIRE_WRITE) && w->len > WIRE_MAX_PAYLOAD)
		return w->type == WIRE_READ ? -EOVERFLOW : -EINVAL;
	return 0;
}
