/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases in the kernel's keyring: a key of type "user" that this process possesses. Two system
 * calls without a wrapper in the C library; libkeyutils would be a dependency for them. Facts:
 * request_key(2), keyctl(2) KEYCTL_READ, which returns the length even when there is less room.
 */

#include "key_kind.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int read_key(long id, struct secret **ret)
{
	struct secret *s;
	long len = syscall(SYS_keyctl, KEYCTL_READ, id, NULL, 0L);
	int r;

	if (len < 0)
		return -errno;
	if (len == 0)
		return -ENODATA;
	if (len > (long)SECRET_MAX)
		return -EFBIG;
	r = secret_new((size_t)len, &s);
	if (r < 0)
		return r;
	/* Somebody may change it in between. */
	if (syscall(SYS_keyctl, KEYCTL_READ, id, secret_data(s), (size_t)len) != len)
		r = -EAGAIN;
	if (r < 0)
		(void)secret_free(s);
	else
		*ret = s;
	return r;
}

int key_ring_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	long id;

	if (!q->text[0] || q->text[0] == '%') {
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"%s: that is no description of a key of type user", q->source);
		fault_hint(f, "for example keyring:rbdcrypt:%%p/%%i, or keyring:%%user:NAME");
		return -EINVAL;
	}
	/* Without the last but one argument nothing is started to make the key. */
	id = syscall(SYS_request_key, "user", q->text, NULL, 0);
	if (id < 0) {
		int r = -errno;

		(void)fault_set(f, EXIT_PASSPHRASE, r, "%s: %s", q->source,
				r == -ENOKEY ? "there is no such key in our keyrings"
					     : strerror(-r));
		fault_hint(f, "keyctl show; in a service of systemd, KeyringMode=shared");
		return r;
	}
	return read_key(id, ret);
}
