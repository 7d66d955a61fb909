/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Why a device cannot be had, in words and exit codes. The driver answers half a
 * dozen different refusals with EINVAL and most without a text, so what we can
 * check is checked before it is asked, and sysfs is consulted afterwards to tell
 * the rest apart. Called by nbdctl.c only, on its thread; keeps nothing.
 */

#include "internal.h"

#include <errno.h>
#include <string.h>

#include "wire.h"

/* One less than sysfs can hand back to us, so that no longer one is ever taken for ours. */
#define COOKIE_MAX_BYTES (sizeof(((struct nbd_sysfs *)NULL)->cookie) - 2)
#define SOCKETS_MAX 256u

int refuse_device(const struct nbdctl_device *d, bool is_connect, struct fault *f)
{
	unsigned int i;

	if (d->block_size != 0 && (d->block_size < 512 || d->block_size > 4096 ||
				   (d->block_size & (d->block_size - 1)) != 0))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "block size %u is not a power of two from 512 to 4096",
				 d->block_size);
	if (is_connect && (d->block_size == 0 || d->size == 0 || d->n_sockets == 0))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "a device needs a size, a block size and a socket");
	if (d->block_size != 0 && d->size % d->block_size != 0)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "size %llu is not a multiple of the block size %u",
				 (unsigned long long)d->size, d->block_size);
	/* The kernel counts in signed 64 bits. */
	if (d->size > INT64_MAX)
		return fault_set(f, EXIT_USAGE, -EFBIG, "size %llu is too large",
				 (unsigned long long)d->size);
	if (d->n_sockets > SOCKETS_MAX)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%u sockets are too many, at most %u",
				 d->n_sockets, SOCKETS_MAX);
	for (i = 0; i < d->n_sockets; i++)
		if (d->sockets[i] < 0)
			return fault_set(f, EXIT_USAGE, -EBADF, "socket %u is not open", i);
	if (is_connect && d->n_sockets > 1 && !(d->server_flags & WIRE_FLAG_CAN_MULTI_CONN))
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "several sockets need the multi-conn flag");
	if (d->cookie && strlen(d->cookie) > COOKIE_MAX_BYTES)
		return fault_set(f, EXIT_USAGE, -ENAMETOOLONG, "cookie is longer than %zu bytes",
				 COOKIE_MAX_BYTES);
	if (d->cookie && strchr(d->cookie, '\n'))
		return fault_set(f, EXIT_USAGE, -EINVAL, "cookie has more than one line");
	return 0;
}

/* "reason", or "reason: the kernel's own words". */
static int refuse(struct fault *f, enum exit_status status, int error, const struct verdict *v,
		  const char *reason)
{
	if (v->text[0])
		return fault_set(f, status, error, "%s: %s", reason, v->text);
	return fault_set(f, status, error, "%s", reason);
}

/* What means the same for every command; 0 when the number says nothing by itself. */
static int refuse_common(struct fault *f, const struct verdict *v)
{
	switch (-v->error) {
	case EPERM:
		refuse(f, EXIT_PASSPHRASE, v->error, v, "no permission to control nbd devices");
		fault_hint(f, "this needs CAP_SYS_ADMIN in the initial user namespace (root)");
		return v->error;
	case ENOMEM:
		return refuse(f, EXIT_MEMORY, v->error, v, "the kernel is out of memory");
	case ENODEV:
		return refuse(f, EXIT_KERNEL, v->error, v, "the nbd driver is being unloaded");
	default:
		return 0;
	}
}

static int refuse_other(struct fault *f, const struct verdict *v)
{
	if (v->text[0])
		return fault_set(f, EXIT_KERNEL, v->error, "the nbd driver refused: %s (%s)",
				 strerror(-v->error), v->text);
	return fault_set(f, EXIT_KERNEL, v->error, "the nbd driver refused: %s",
			 strerror(-v->error));
}

int refuse_connect(int block_fd, int index, const struct verdict *v, struct fault *f)
{
	struct nbd_sysfs s;

	if (refuse_common(f, v) < 0)
		return v->error;
	switch (-v->error) {
	case EBUSY:
		/* Every opener holds it for itself, udev's moment of probing included. */
		if (index >= 0 && sysfs_read_at(block_fd, index, &s) == 0 && !s.is_connected)
			return refuse(f, EXIT_BUSY, -EBUSY, v,
				      "device is not connected, but somebody has it open");
		return refuse(f, EXIT_BUSY, -EBUSY, v, "device is already in use");
	case EEXIST:
		return refuse(f, EXIT_BUSY, -EBUSY, v, "device is already in use");
	case ENOSPC:
		return refuse(f, EXIT_BUSY, -EBUSY, v, "every nbd device is in use");
	case EINVAL:
		/* We sent nothing else that it could dislike. */
		if (index >= 0 && sysfs_read_at(block_fd, index, &s) == 0)
			return refuse(f, EXIT_BUSY, -EBUSY, v, "device is just being removed");
		if (index >= 0)
			return refuse(f, EXIT_NOT_FOUND, -ENODEV, v,
				      "no such device, and its number is too large for the driver");
		return refuse_other(f, v);
	default:
		return refuse_other(f, v);
	}
}

int refuse_reconfigure(int block_fd, int index, const char *cookie, const struct verdict *v,
		       struct fault *f)
{
	struct nbd_sysfs s;
	int r;

	if (refuse_common(f, v) < 0)
		return v->error;
	if (v->error != -EINVAL)
		return refuse_other(f, v);
	r = sysfs_read_at(block_fd, index, &s);
	if (r == -ENODEV)
		return refuse(f, EXIT_NOT_FOUND, -ENODEV, v, "no such device");
	if (r < 0)
		return refuse_other(f, v);
	if (!s.is_connected)
		return refuse(f, EXIT_NOT_FOUND, -ENOTCONN, v, "device is not connected");
	if (strcmp(s.cookie, cookie ? cookie : "") != 0)
		return fault_set(f, EXIT_NOT_FOUND, -ESTALE,
				 "device serves another image: its cookie is \"%s\", not \"%s\"",
				 s.cookie, cookie ? cookie : "");
	/* It stays until the last who has it open has closed it. */
	refuse(f, EXIT_BUSY, -EBUSY, v, "device was disconnected, but somebody has it open");
	fault_hint(f, "close or unmount it, and map the image again");
	return -EBUSY;
}

int refuse_disconnect(const struct verdict *v, struct fault *f)
{
	if (refuse_common(f, v) < 0)
		return v->error;
	/* It does not exist, or is already on its way out. */
	if (v->error == -EINVAL)
		return refuse(f, EXIT_NOT_FOUND, -ENODEV, v, "no such device");
	return refuse_other(f, v);
}

int refuse_unasked(struct fault *f, int error)
{
	return fault_set(f, error == -ENOMEM ? EXIT_MEMORY : EXIT_KERNEL, error,
			 "netlink: the nbd driver cannot be asked: %s", strerror(-error));
}
