/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_NOTICE_H
#define RBD_NOTICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What clients of an image say to one another through notifications on its header: their bytes,
 * and what we answer. Pure. (spec: rados-engine 2.4, 3.4, 5)
 */
enum notice_op {
	NOTICE_ACQUIRED_LOCK = 0,
	NOTICE_RELEASED_LOCK = 1,
	NOTICE_REQUEST_LOCK = 2,
	NOTICE_HEADER_UPDATE = 3,
	NOTICE_ASYNC_PROGRESS = 4,
	NOTICE_ASYNC_COMPLETE = 5,
	NOTICE_FLATTEN = 6,
	NOTICE_RESIZE = 7,
	NOTICE_SNAP_CREATE = 8,
	NOTICE_SNAP_REMOVE = 9,
	NOTICE_REBUILD_OBJECT_MAP = 10,
	NOTICE_SNAP_RENAME = 11,
	NOTICE_SNAP_PROTECT = 12,
	NOTICE_SNAP_UNPROTECT = 13,
	NOTICE_RENAME = 14,
	NOTICE_UPDATE_FEATURES = 15,
	NOTICE_MIGRATE = 16,
	NOTICE_SPARSIFY = 17,
	NOTICE_QUIESCE = 18,
	NOTICE_UNQUIESCE = 19,
	NOTICE_METADATA_UPDATE = 20,
};

struct client_id {
	uint64_t gid; /* rados_get_instance_id() */
	uint64_t handle; /* of the watch */
};

struct notice {
	uint32_t op; /* enum notice_op, or one we do not know */
	struct client_id client; /* who says it, where the message has it; else zeros */
	uint64_t size; /* RESIZE: bytes, in the view of the client: raw or not */
	uint64_t features; /* UPDATE_FEATURES: the mask */
	bool is_enable; /* UPDATE_FEATURES */
};

/* An empty message is a HEADER_UPDATE of old. -EBADMSG. */
int notice_decode(const void *data, size_t len, struct notice *ret);
const char *notice_name(uint32_t op); /* "snap create", for logs; "operation" when unknown */

#define NOTICE_MAX 64
/* ACQUIRED_LOCK, RELEASED_LOCK or REQUEST_LOCK (never forced). Returns the length. */
size_t notice_encode(enum notice_op op, const struct client_id *us, unsigned char buf[NOTICE_MAX]);
size_t notice_encode_result(int result, unsigned char buf[NOTICE_MAX]);
/*
 * The owner's answer among the acks that rados_notify2() and its kin gave: 0 or the owner's
 * -errno; -ETIMEDOUT when nobody gave one; -EBADMSG.
 */
int notice_decode_result(char *reply, size_t len);

/* ---- policy ---- */

struct notice_view {
	struct client_id us;
	bool is_owner; /* LOCKED or RELEASING */
	bool is_guarded; /* hands the lock over for maintenance; else exclusive */
	bool is_layered; /* others may see these bytes otherwise than we do */
	bool is_granted; /* the sender was told within the last 30 s to do it itself */
	uint64_t raw_size; /* bytes */
};

#define NOTICE_DO_RELEASE 1u /* hand the lock over */
#define NOTICE_DO_REFRESH 2u /* read the header again */
#define NOTICE_DO_GRANT 4u /* remember the sender for 30 s */
#define NOTICE_DO_ACQUIRED 8u /* another client has the lock now */
#define NOTICE_DO_RELEASED 16u /* another client gave it back */
#define NOTICE_DO_LOG 32u /* refused: worth a line in the log */

struct notice_answer {
	bool has_result; /* else the ack is empty */
	int result; /* 0 or -errno */
	unsigned int todo; /* NOTICE_DO_... */
	const char *remedy; /* with NOTICE_DO_LOG: what the user does instead; static */
};

/* Only an owner gives a result, except to lock messages, by which owners are told apart. */
void notice_answer(const struct notice *n, const struct notice_view *v, struct notice_answer *ret);

#endif
