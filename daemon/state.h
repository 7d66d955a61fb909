/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_STATE_H
#define RBDCRYPT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "handover.h"
#include "nbdctl.h"

/*
 * What is being served on this machine, and by whom: one JSON file per volume in the
 * run directory. Its owner holds a write lock on the file that the name leads to, from
 * before the file has its name until it dies, and keeps it over every update. So
 * "not locked" means "dead", for every reader, in any pid namespace, without /proc. Readers
 * only ask for the lock, they never take it, and need no privilege.
 */

enum volume_status {
	VOLUME_STARTING, /* claimed; nobody can use it yet */
	VOLUME_MAPPED, /* a device carries it */
	VOLUME_SERVING, /* a unix socket carries it */
	VOLUME_DETACHED, /* its daemon left the device waiting for attach */
	VOLUME_DEAD, /* its daemon died. Never in a file: told by the lock */
};

struct layer_state {
	char spec[512]; /* "rbd/golden@v1" */
	char format[16]; /* "luks1", "luks2" or "none" */
	char cipher[32]; /* "aes-xts-plain64", "" without encryption */
	char uuid[41];
	uint64_t raw_size, data_offset; /* bytes */
	uint32_t sector_size; /* bytes; 0 without encryption */
	uint32_t key_bits;
	bool is_clone_magic; /* formatted while it was a clone */
	bool is_inherited; /* its header is read through from a parent */
	/* Whether it could be opened again: key_health_name(), where the key was, why not, when. */
	char key_health[16], key_source[256], key_reason[256];
	uint64_t key_checked; /* seconds since 1970; 0: never */
};

struct volume_state {
	char key[640]; /* who it is in this directory; set by state_claim() */
	int pid; /* of the owner, as it sees itself; set by state_claim() and state_update() */
	uint64_t pid_namespace; /* in which it sees itself so; as pid */
	bool is_hosted; /* its owner is the host's daemon, which has others too */
	enum volume_status status;
	char pool[128], nspace[128], image[256], snap[256];
	uint64_t snap_id; /* UINT64_MAX: the head, or not known */
	char file[4096]; /* path of a "file:" volume, else "" */
	char fsid[40], image_id[64];
	char conf[512], user[128],
		mons[512]; /* how the cluster was reached: file, user, monitors */
	int64_t pool_id; /* -1: none */

	int device; /* N of /dev/nbdN, -1: none */
	char socket[108]; /* path, or "" */
	char cookie[512];

	uint64_t size, raw_size, data_offset; /* bytes */
	uint32_t block_size; /* bytes */
	bool is_read_only, is_exclusive, is_trim_offered;
	unsigned int connections;
	int io_timeout_s, reattach_timeout_s; /* -1: not set */
	uint64_t started; /* seconds since 1970 */
	uint64_t named; /* milliseconds since 1970: when it was mapped by its name */
	char store[32], engine[32];
	/* As struct store_lock has it, and when it was asked for (seconds since 1970; 0: never). */
	char lock[16], lock_owner[128], lock_reason[160];
	uint64_t lock_seen;
	char client[128]; /* the address of the cluster's client that writes for it, or "" */
	/* Those of its last owners, who died, while they are not shut out, with blanks between; or
	 * "" */
	char dead_client[1024];
	uint64_t inline_threshold; /* bytes; SIZE_MAX: nothing is handed to the workers */
	char health[256]; /* "" while all is well, else what is wrong */

	/* VOLUME_DETACHED: the note of the sockets that wait for the next owner, or "". */
	char handed_over[HANDOVER_NOTE_BYTES];

	char *request; /* what the host's daemon was asked, for asking it again; owned, or NULL */

	struct nbd_sysfs kernel; /* as read back after connecting; size 0: not read */

	struct layer_state *layers; /* child first; owned */
	unsigned int n_layers;
};

/* snap_id, pool_id, device and the timeouts to "none", all else to zero. */
void volume_state_init(struct volume_state *v);
/* Frees the layers. */
void volume_state_done(struct volume_state *v);
/* Of which no volume's spec is cut. Who only shows one to people takes less. */
#define VOLUME_SPEC_LEN 4608
/* "pool/[ns/]image[@snap]", "file:PATH"; a snapshot without a name shows as "@N". At most len
 * bytes. */
void volume_state_spec(const struct volume_state *v, char *buf, size_t len);
/* "mapped" and so on. */
const char *volume_status_name(enum volume_status s);

struct state;

/* The pid namespace of this process, a number that means the same to all; 0 without /proc. */
uint64_t state_pid_namespace(void);

/*
 * The run directory: given (--run-dir), else $RBDCRYPT_NBD_RUN_DIR, else /run/rbdcrypt-nbd
 * for root and $XDG_RUNTIME_DIR/rbdcrypt-nbd for others. -ENAMETOOLONG, or -ENOENT when none of
 * these is there.
 */
int state_run_dir(const char *given, char *buf, size_t len, struct fault *f);

/*
 * Makes it if it is missing, and checks that nobody else can put files of his own there.
 * EXIT_PASSPHRASE or EXIT_NOT_FOUND.
 */
int state_make_run_dir(const char *run_dir, struct fault *f);

/*
 * Takes the name key in run_dir (made if missing) for this process and those it forks, and writes
 * the file. Before anything is opened that must not be opened twice. EXIT_BUSY (-EBUSY)
 * when a live owner has it, naming its device or socket and its pid; EXIT_PASSPHRASE when the
 * directory cannot be written or belongs to somebody else; EXIT_TIMED_OUT when another start holds
 * the directory for too long. A dead owner's file is taken over; leftovers of dead writers are
 * removed. key: any text, at most 639 bytes.
 */
int state_claim(const char *run_dir, const char *key, const struct volume_state *v,
		struct state **ret, struct fault *f);

/* Replaces the file, by one thread at a time. On failure (-errno) the old one is still valid. */
int state_update(struct state *s, const struct volume_state *v);

/*
 * Gives the name up: the file is removed, or left behind as it is for attach to find
 * (after an update to VOLUME_DETACHED). NULL is fine. Returns NULL.
 */
struct state *state_release(struct state *s, bool is_removed);

struct state_list {
	struct volume_state *volumes; /* by device, then by spec */
	unsigned int n;
	unsigned int n_damaged; /* files that could not be understood */
	char damaged[512]; /* the first of them, and why */
};

/*
 * All volumes of run_dir; status tells dead owners. A missing directory is an empty list. Waits
 * for nobody, changes nothing. 0, -ENOMEM, or why the directory could not be read.
 */
int state_list(const char *run_dir, struct state_list *ret, struct fault *f);
void state_list_done(struct state_list *l);
/* The one of that key, which is l's; NULL. */
struct volume_state *state_list_key(const struct state_list *l, const char *key);

/*
 * The one volume that the user means by name: "/dev/nbdN", "nbdN" or "N", a socket, a cookie, a
 * spec as volume_state_spec() writes it (a snapshot's number instead of its name will do), a
 * spec without pool if only one volume fits, or its daemon as "pid:N". *ret points into l.
 * EXIT_NOT_FOUND (-ENOENT, "... is not mapped"); EXIT_USAGE (-ENOTUNIQ) names those that fit.
 */
int state_find(const struct state_list *l, const char *name, const struct volume_state **ret,
	       struct fault *f);

/* Whether an owner is there, by the lock. */
static inline bool volume_is_alive(const struct volume_state *v)
{
	return v->status != VOLUME_DEAD && v->status != VOLUME_DETACHED;
}

/*
 * Waits until the owner that v was read from is gone or has given the name up. Blocking.
 * 0 or -ETIMEDOUT; timeout_ms 0 only asks.
 */
int state_wait_gone(const char *run_dir, const struct volume_state *v, int timeout_ms);

/*
 * The path of a file that the owner of key keeps beside its state, and that goes with it. 0 or
 * -ENAMETOOLONG.
 */
#define STATE_STATS ".stats" /* stats.h */
#define STATE_KEYS ".keys" /* guard_socket.h */
int state_beside(const char *run_dir, const char *key, const char *suffix, char *buf, size_t len);

/* Notes in the file of a dead owner, for whoever looks, what its volume waits for. */
void state_note_health(const char *run_dir, const char *key, const char *why);

/*
 * Removes the file of v, whose owner is dead, for unmap after its device is gone. -EBUSY if it
 * lives, or another has had the name since v was read.
 */
int state_remove(const char *run_dir, const struct volume_state *v);

#endif
