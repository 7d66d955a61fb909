/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_STORE_H
#define RBDCRYPT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A store is where the raw bytes of a chain live. It never sees a key. All
 * offsets are dev_off: bytes from the start of the data area (the plain device),
 * the same for every layer; the store adds each layer's data offset. All offsets
 * and lengths it is given are inside the device and, for an encrypted chain,
 * multiples of the largest sector size of the chain, but for the tail of an unencrypted device.
 */

/*
 * One piece of a read, in ascending order and without gaps: which layer's bytes
 * these are. The request decrypts each with that layer's key.
 *
 * A piece may end inside a sector of its layer, where a clone's view of its parent ends. Then a
 * STORE_LAYER_ZERO piece follows, but the buffer holds the sector's ciphertext up to its end:
 * whoever decrypts the piece decrypts the whole sector, and makes what lies behind the piece zeros.
 */
#define STORE_LAYER_ZERO UINT16_MAX /* nobody has it: the store filled in zeros */
struct store_extent {
	uint64_t dev_off;
	uint64_t len;
	uint16_t layer; /* index into the chain, 0 is the child */
	bool is_hole; /* status only: reads as zeros and takes no space */
};

/*
 * One asynchronous call, embedded in the request and owned by the store from a
 * call that returned 0 until done runs.
 */
struct store_io {
	/* Set by the caller. Runs exactly once, on any thread; must not block. */
	void (*done)(struct store_io *io);
	/* Set by the store before done: 0 or -errno. Reads are complete or an error. */
	int result;
	/*
	 * Reads and status: the pieces. one serves the usual case; a store that
	 * needs more allocates, and store_io_reset() frees.
	 */
	struct store_extent *extents;
	unsigned int n_extents;
	struct store_extent one;
	/* The store's own. */
	struct store *store;
	struct store_io *next;
	void *buf;
	uint64_t dev_off;
	uint64_t len;
	int op;
	unsigned int flags;
};
void store_io_reset(struct store_io *io);

/*
 * For stores: appends the next piece, joining it to the last one where only the place
 * differs. 0 or -ENOMEM (nothing was added). Empty pieces are ignored.
 */
int store_io_add(struct store_io *io, uint64_t dev_off, uint64_t len, uint16_t layer, bool is_hole);

struct store;

/*
 * A parent's bytes on their way into the child, where an object is written for the first time:
 * decrypted with the keys of the layers that hold them, encrypted with the child's. Whole sectors
 * of the largest size. The store's, the daemon's from recrypt() until done runs.
 */
struct store_recrypt {
	const struct store_io *io; /* of the read: its extents say which layer holds what */
	void *buf; /* where dev_off is */
	uint64_t dev_off;
	size_t len;
	int result; /* 0 or -errno: then buf must not be stored */
	/* Runs once, on any thread, perhaps before recrypt() returns; must not block. */
	void (*done)(struct store_recrypt *r);
};

/*
 * Every operation returns
 *   STORE_DONE  finished inside the call, io->result says how; done does not run
 *   0           under way; done will run (perhaps before the call returns)
 * Errors are in io->result, never in the return value.
 */
#define STORE_DONE 1

struct store_lock {
	/* "owner" (we), "none", "other", "lost" (it was ours), "-" (no such feature), "unknown" */
	const char *state; /* constant */
	char owner[128]; /* the address of who has it, ours included; "": nobody, or not known */
	char why[160]; /* "unknown": why; else "" */
};

#define STORE_ZERO_NO_HOLE 1u /* keep the space allocated */

/* For stores: the holder could not be asked for; -errno. */
void store_lock_unknown(struct store_lock *ret, int error);

struct store_ops {
	const char *name;
	int (*read)(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len);
	/* buf stays unchanged until done. */
	int (*write)(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		     size_t len);
	/*
	 * After it, the range holds raw zero bytes, for this and every other client;
	 * a promise. On an encrypted chain it is only called on what freeable() gave.
	 */
	int (*zero)(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		    unsigned int flags);
	/*
	 * A hint, for any range; the store clips it by itself to what may go. Reads old bytes or
	 * raw zeros afterwards. Only a block device that can discard but not write zeroes may
	 * answer with what it likes, as it does below every dm-crypt that discards.
	 */
	int (*discard)(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len);
	/* Everything whose done ran before this call is durable when this one is done. */
	int (*flush)(struct store *s, struct store_io *io);
	/*
	 * What is allocated; is_hole pieces read as zeros. NULL: not known. May be slow, and may
	 * stop early: the pieces cover a part of the range that begins with it and is not empty.
	 * Holes start and end on 4096 bytes, but where the range starts or ends.
	 */
	int (*status)(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len);
	/*
	 * The first part of a range that zero() may be asked for so that no other client reads
	 * garbage there. Not encrypted: all of it. Encrypted: whole objects and object tails,
	 * which librbd's encryption reads as zeros; nothing of a file, where dm-crypt decrypts the
	 * zeros. Never blocks. *ret_len 0: none.
	 */
	void (*freeable)(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
			 uint64_t *ret_len);
	/*
	 * Asks for the raw size of the image now, in bytes. Blocking; the volume's thread. 0 or
	 * -errno.
	 */
	int (*raw_size)(struct store *s, uint64_t *ret);
	/*
	 * Who has the image's exclusive lock. Blocking, within the store's time limit; any thread
	 * that may wait, one at a time. NULL: there is no such thing.
	 */
	void (*lock)(struct store *s, struct store_lock *ret);
	/* Why writes wait or fail, in words; empty while all is well. NULL: always. */
	void (*health)(struct store *s, char *buf, size_t len);
	/*
	 * The volume is about to end: calls that wait for a right that another client has may do
	 * so for this long, and fail then. Never blocks; may be called again, which changes
	 * nothing. NULL: no call waits like that.
	 */
	void (*ending)(struct store *s, unsigned int grace_ms);
	/* No call may be under way. Blocking. */
	void (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	uint64_t data_offset; /* layer 0, bytes */
	bool is_encrypted; /* decides what freeable() may give */
	/* A completed write is on stable storage: FUA and FLUSH cost nothing. */
	bool is_writethrough;
	/* A sector read never mixes two writes of that sector. */
	bool has_atomic_sectors;
	uint32_t optimal_io; /* bytes: object or stripe unit, 0 unknown */
	/* Set by whoever has the keys, before the first write; NULL: nothing is encrypted. */
	void (*recrypt)(void *arg, struct store_recrypt *r);
	void *recrypt_arg;
	/*
	 * Told when the image changed under us (size, snapshots, lock, health). Any thread; must
	 * only signal. Set after opening and cleared before closing, with store_on_change();
	 * a call may still come until the store is closed.
	 */
	void (*changed)(void *arg);
	void *changed_arg;
};

static inline void store_on_change(struct store *s, void (*changed)(void *arg), void *arg)
{
	/* A call that is under way still needs the old one. */
	if (changed)
		s->changed_arg = arg;
	__atomic_store_n(&s->changed, changed, __ATOMIC_RELEASE);
}

/* For stores. */
static inline void store_tell_change(struct store *s)
{
	void (*changed)(void *arg) = __atomic_load_n(&s->changed, __ATOMIC_ACQUIRE);

	if (changed)
		changed(s->changed_arg);
}

static inline void store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

#endif
