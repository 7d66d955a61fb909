/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the owner of an image's lock answers to what other clients ask of it. Called by the thread
 * that acknowledges notifications; decides only, and changes nothing. (spec: rados-engine 3.4, 5)
 *
 * "Not supported" makes librbd ask for the lock and do it by itself, so that is what those get to
 * hear whose work comes out right in any view of the image. What would destroy a layered image when
 * done by a client without the keys is refused in a way that ends the command there and then.
 */

#include "notice.h"

#include <errno.h>

#define FEATURE_EXCLUSIVE_LOCK 4u
#define FEATURE_JOURNALING 64u

static void answer(struct notice_answer *a, int result, unsigned int todo)
{
	a->has_result = true;
	a->result = result;
	a->todo = todo;
}

/* The sender may do it, and will ask for the lock: only some get it. */
static void let(struct notice_answer *a, const struct notice_view *v)
{
	answer(a, -EOPNOTSUPP, v->is_guarded ? NOTICE_DO_GRANT : 0);
}

static void refuse(struct notice_answer *a, const char *remedy)
{
	answer(a, -EPERM, NOTICE_DO_LOG);
	a->remedy = remedy;
}

static void answer_lock_request(const struct notice_view *v, struct notice_answer *a)
{
	if (v->is_guarded && v->is_granted)
		answer(a, 0, NOTICE_DO_RELEASE);
	else
		answer(a, -EROFS, 0);
}

static void answer_flatten(const struct notice_view *v, struct notice_answer *a)
{
	if (v->is_layered)
		refuse(a, "unmap it, then use rbd flatten of Ceph 18 or newer with "
			  "--encryption-passphrase-file for every layer");
	else
		let(a, v);
}

/* The size is raw or not, as the client sees the image: only what grows in either view is sure. */
static void answer_resize(const struct notice *n, const struct notice_view *v,
			  struct notice_answer *a)
{
	if (v->is_layered && n->size < v->raw_size)
		refuse(a, "unmap it, then use rbd resize of Ceph 18 or newer with "
			  "--encryption-passphrase-file for every layer");
	else
		let(a, v);
}

static void answer_features(const struct notice *n, const struct notice_view *v,
			    struct notice_answer *a)
{
	if (n->features & (FEATURE_EXCLUSIVE_LOCK | FEATURE_JOURNALING))
		refuse(a, "unmap it before exclusive-lock or journaling are changed");
	else
		let(a, v);
}

/* What is only for owners to answer. */
static void answer_request(const struct notice *n, const struct notice_view *v,
			   struct notice_answer *a)
{
	switch (n->op) {
	case NOTICE_REQUEST_LOCK:
		answer_lock_request(v, a);
		break;
	case NOTICE_SNAP_CREATE:
	case NOTICE_SNAP_REMOVE:
	case NOTICE_SNAP_RENAME:
	case NOTICE_SNAP_PROTECT:
	case NOTICE_SNAP_UNPROTECT:
	case NOTICE_REBUILD_OBJECT_MAP:
	case NOTICE_RENAME:
	case NOTICE_SPARSIFY:
	case NOTICE_METADATA_UPDATE:
		let(a, v);
		break;
	case NOTICE_FLATTEN:
		answer_flatten(v, a);
		break;
	case NOTICE_RESIZE:
		answer_resize(n, v, a);
		break;
	case NOTICE_UPDATE_FEATURES:
		answer_features(n, v, a);
		break;
	case NOTICE_QUIESCE:
	case NOTICE_UNQUIESCE:
		answer(a, -EOPNOTSUPP, 0);
		break;
	case NOTICE_MIGRATE:
		refuse(a, "unmap it before it is migrated");
		break;
	default:
		refuse(a, "unmap it before others do this");
		break;
	}
}

void notice_answer(const struct notice *n, const struct notice_view *v, struct notice_answer *ret)
{
	struct notice_answer a = { .has_result = false };
	bool is_ours = n->client.gid != 0 && n->client.gid == v->us.gid;

	switch (n->op) {
	case NOTICE_ACQUIRED_LOCK:
		a.todo = is_ours ? 0 : NOTICE_DO_ACQUIRED;
		break;
	case NOTICE_RELEASED_LOCK:
		a.todo = is_ours ? 0 : NOTICE_DO_RELEASED;
		break;
	case NOTICE_HEADER_UPDATE:
		a.todo = NOTICE_DO_REFRESH;
		break;
	case NOTICE_ASYNC_PROGRESS:
	case NOTICE_ASYNC_COMPLETE:
		break;
	default:
		if (v->is_owner && !is_ours)
			answer_request(n, v, &a);
		break;
	}
	*ret = a;
}
