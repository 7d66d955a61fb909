/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The inputs of object class methods, as bytes. Called by the engine that writes layered chains,
 * on any thread; the operation belongs to the caller, and copies what is put into it.
 *
 * A step whose input does not fit, which only an absurd cookie could bring about, is sent without
 * input. The class refuses that with -EINVAL, and with it the whole operation.
 */

#include "cls.h"

#include <errno.h>

#include "bytes.h"

#define LOCK_NAME "rbd_lock"
#define LOCK_EXCLUSIVE 1
#define ENTITY_CLIENT 8
#define INPUT_MAX 1024

static struct bytes_out out(unsigned char buf[INPUT_MAX])
{
	return (struct bytes_out){ .buf = buf, .cap = INPUT_MAX };
}

static void exec(rados_write_op_t op, const char *cls, const char *method,
		 const struct bytes_out *o)
{
	rados_write_op_exec(op, cls, method, (const char *)o->buf, o->is_full ? 0 : o->len, NULL);
}

/* ---- lock ---- */

void cls_lock(rados_write_op_t op, const char *cookie, const char *tag)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_u8(&o, LOCK_EXCLUSIVE);
	put_string(&o, cookie);
	put_string(&o, tag);
	put_string(&o, ""); /* description */
	put_u32(&o, 0); /* duration: seconds, nanoseconds */
	put_u32(&o, 0);
	put_u8(&o, 0); /* flags */
	put_end(&o, start);
	exec(op, "lock", "lock", &o);
}

void cls_unlock(rados_write_op_t op, const char *cookie)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_string(&o, cookie);
	put_end(&o, start);
	exec(op, "lock", "unlock", &o);
}

void cls_break_lock(rados_write_op_t op, int64_t client, const char *cookie)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_u8(&o, ENTITY_CLIENT);
	put_u64(&o, (uint64_t)client);
	put_string(&o, cookie);
	put_end(&o, start);
	exec(op, "lock", "break_lock", &o);
}

void cls_set_cookie(rados_write_op_t op, const char *old_cookie, const char *tag,
		    const char *new_cookie)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_u8(&o, LOCK_EXCLUSIVE);
	put_string(&o, old_cookie);
	put_string(&o, tag);
	put_string(&o, new_cookie);
	put_end(&o, start);
	exec(op, "lock", "set_cookie", &o);
}

void cls_assert_locked(rados_write_op_t op, const char *cookie, const char *tag)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_u8(&o, LOCK_EXCLUSIVE);
	put_string(&o, cookie);
	put_string(&o, tag);
	put_end(&o, start);
	exec(op, "lock", "assert_locked", &o);
}

void cls_lock_info(rados_read_op_t op, char *reply, size_t cap, size_t *ret_len, int *ret_error)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);
	size_t start = put_begin(&o, 1, 1);

	put_string(&o, LOCK_NAME);
	put_end(&o, start);
	rados_read_op_exec_user_buf(op, "lock", "get_info", (const char *)o.buf, o.len, reply, cap,
				    ret_len, ret_error);
}

int cls_lock_decode(const void *reply, size_t len, struct cls_locker *ret)
{
	struct bytes_in i = { .at = reply, .end = (const unsigned char *)reply + len };
	struct cls_locker locker = { .client = 0 };
	struct bytes_in after_reply, after_id;

	(void)get_begin(&i, 1, &after_reply);
	if (get_u32(&i) == 0)
		return i.is_short ? -EBADMSG : -ENOENT;
	(void)get_begin(&i, 1, &after_id);
	if (get_u8(&i) != ENTITY_CLIENT)
		return -EBADMSG;
	locker.client = (int64_t)get_u64(&i);
	get_string(&i, locker.cookie, sizeof(locker.cookie));
	if (i.is_short)
		return -EBADMSG;
	*ret = locker;
	return 0;
}

/* ---- rbd ---- */

void cls_object_map_update(rados_write_op_t op, uint64_t start, uint64_t end,
			   enum object_state state, int current)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);

	put_u64(&o, start);
	put_u64(&o, end);
	put_u8(&o, (uint8_t)state);
	put_u8(&o, current != CLS_ANY_STATE);
	if (current != CLS_ANY_STATE)
		put_u8(&o, (uint8_t)current);
	exec(op, "rbd", "object_map_update", &o);
}

void cls_set_flags(rados_write_op_t op, uint64_t flags, uint64_t mask, uint64_t snap_id)
{
	unsigned char buf[INPUT_MAX];
	struct bytes_out o = out(buf);

	put_u64(&o, flags);
	put_u64(&o, mask);
	put_u64(&o, snap_id);
	exec(op, "rbd", "set_flags", &o);
}

void cls_copyup(rados_write_op_t op, const void *data, size_t len)
{
	rados_write_op_exec(op, "rbd", "copyup", data, len, NULL);
}

int cls_object_map_decode(const void *reply, size_t len, uint64_t *ret_n,
			  const unsigned char **ret_bits)
{
	struct bytes_in i = { .at = reply, .end = (const unsigned char *)reply + len };
	struct bytes_in after_struct;
	const unsigned char *bits;
	uint32_t header_len = get_u32(&i);
	struct bytes_in header = i;
	uint64_t n;

	get_skip(&i, header_len);
	if (i.is_short)
		return -EBADMSG;
	bits = i.at;
	header.end = bits;
	(void)get_begin(&header, 1, &after_struct);
	n = get_u64(&header);
	if (header.is_short || n / 4 + (n % 4 != 0) > (size_t)(i.end - bits))
		return -EBADMSG;
	*ret_n = n;
	*ret_bits = bits;
	return 0;
}
