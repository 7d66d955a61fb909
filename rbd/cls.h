/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_CLS_H
#define RBD_CLS_H

#include <stddef.h>
#include <stdint.h>

#include <rados/librados.h>

/*
 * The object class methods that keep an image's metadata, as steps of write operations. Each
 * appends one step to op; the operation's result is that of its first step that failed. Pure but
 * for the op. (spec: rados-engine 2.1 to 2.3, which have the bytes)
 */

#define CLS_NOSNAP (UINT64_MAX - 1) /* the head */

/* Class lock, lock name rbd_lock, exclusive. */
#define CLS_TAG_HEADER "internal" /* the tag of librbd's own header lock */
/* 0; -EEXIST: already ours; -EBUSY: another's. Description and duration are empty. */
void cls_lock(rados_write_op_t op, const char *cookie, const char *tag);
void cls_unlock(rados_write_op_t op, const char *cookie);
/* client: the number in "client.4123". */
void cls_break_lock(rados_write_op_t op, int64_t client, const char *cookie);
/* -EBUSY where both cookies are the same. */
void cls_set_cookie(rados_write_op_t op, const char *old_cookie, const char *tag,
		    const char *new_cookie);
/* -EBUSY unless this client holds it so. First step of what it guards. */
void cls_assert_locked(rados_write_op_t op, const char *cookie, const char *tag);

/* Who holds the lock: the reply comes into reply, its length and error where the op says. */
void cls_lock_info(rados_read_op_t op, char *reply, size_t cap, size_t *ret_len, int *ret_error);
struct cls_locker {
	int64_t client;
	char cookie[256];
};
/* The first, if there are several. -ENOENT: nobody; -EBADMSG: also who is no client. */
int cls_lock_decode(const void *reply, size_t len, struct cls_locker *ret);

/* Class rbd. */
enum object_state { OBJECT_NONE, OBJECT_EXISTS, OBJECT_PENDING, OBJECT_CLEAN };
#define CLS_ANY_STATE (-1)
/* Objects [start, end) that are in state current (CLS_ANY_STATE: all). */
void cls_object_map_update(rados_write_op_t op, uint64_t start, uint64_t end,
			   enum object_state state, int current);
#define CLS_FLAG_OBJECT_MAP_INVALID 1u
#define CLS_FLAG_FAST_DIFF_INVALID 2u
void cls_set_flags(rados_write_op_t op, uint64_t flags, uint64_t mask, uint64_t snap_id);
/* Creates the object with these bytes unless it exists. data is copied. */
void cls_copyup(rados_write_op_t op, const void *data, size_t len);

/*
 * The reply of object_map_load: one byte per object is not needed, so it stays packed, four
 * objects a byte. -EBADMSG. *ret_bits points into reply; *ret_n is how many objects it has.
 */
int cls_object_map_decode(const void *reply, size_t len, uint64_t *ret_n,
			  const unsigned char **ret_bits);

#endif
