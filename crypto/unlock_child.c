// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The process that luks_unlock() starts, and the only file that knows
 * libcryptsetup. It is this same program under another argv[0]; main() calls
 * luks_unlock_child_main() before anything else.
 *
 * It has an empty environment, the header in a memory file that nobody can write
 * any more, and a socket to its parent. It reads the passphrase, waits for its
 * turn, locks itself in (sandbox.c), lets the library find the keyslot, and says
 * what came out, together with what the library thinks of the header, for the
 * parent to compare. It lives for one unlock.
 */

#include "unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "luks.h"
#include "sandbox.h"
#include "secret.h"

#define HEADER_PATH "/proc/self/fd/3"
/* For libraries, keyslots, stacks, and the allocator's own reserves. */
#define MEMORY_SLACK ((uint64_t)256 << 20)
#define MEMORY_PER_LANE ((uint64_t)16 << 20)
#define KEY_MAX 64u
#define SECTOR 512u

static int read_all(void *buf, size_t len)
{
	unsigned char *p = buf;

	while (len) {
		ssize_t n = read(UNLOCK_FD_PARENT, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_all(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len) {
		ssize_t n = write(UNLOCK_FD_PARENT, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Keeps the last error text, which goes to the parent. */
static void take_log(int level, const char *message, void *arg)
{
	struct unlock_reply *reply = arg;

	if (level == CRYPT_LOG_ERROR)
		(void)snprintf(reply->text, sizeof(reply->text), "%s", message);
}

/*
 * When memory runs short, better this process than one that serves a device. While it is dumpable:
 * else the file is root's.
 */
static void volunteer_for_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, "1000", 4);
	(void)close(fd);
}

/* Waits in line. A lock that cannot be had is no reason not to unlock. */
static void take_turn(const struct unlock_request *request)
{
	if (!request->has_turnstile)
		return;
	while (flock(UNLOCK_FD_TURNSTILE, LOCK_EX) < 0 && errno == EINTR)
		;
}

static int lock_in(const struct unlock_request *request)
{
	const struct sandbox_limits limits = {
		.memory_bytes = (uint64_t)request->argon2_memory_kib * 1024 + MEMORY_SLACK +
				request->passphrase_len + MEMORY_PER_LANE * request->argon2_lanes,
		.cpu_s = request->cpu_s,
	};

	/* One heap for all threads: the usual one per thread reserves 64 MiB each. */
	(void)mallopt(M_ARENA_MAX, 1);
	return sandbox_enter(&limits);
}

/*
 * Whether Argon2 could have had its memory. Libraries that take Argon2 from OpenSSL
 * report a lack of memory as an invalid argument.
 */
static bool has_memory(const struct unlock_request *request)
{
	const size_t len = (size_t)request->argon2_memory_kib * 1024;
	void *p;

	if (!len)
		return true;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return false;
	(void)munmap(p, len);
	return true;
}

static void describe(struct crypt_device *cd, struct unlock_reply *reply)
{
	const char *uuid = crypt_get_uuid(cd);

	reply->is_loaded = 1;
	reply->sector_size = (uint32_t)crypt_get_sector_size(cd);
	reply->data_offset = crypt_get_data_offset(cd) * SECTOR;
	(void)snprintf(reply->cipher, sizeof(reply->cipher), "%s", crypt_get_cipher(cd));
	(void)snprintf(reply->mode, sizeof(reply->mode), "%s", crypt_get_cipher_mode(cd));
	(void)snprintf(reply->uuid, sizeof(reply->uuid), "%s", uuid ? uuid : "");
}

/* Leaves the volume key in key. 0 or -errno, as the library says. */
static int open_keyslot(const struct unlock_request *request, const struct secret *passphrase,
			struct secret *key, struct unlock_reply *reply)
{
	const char *type = request->version == 1 ? CRYPT_LUKS1 : CRYPT_LUKS2;
	struct crypt_device *cd = NULL;
	size_t key_len = secret_len(key);
	int r;

	crypt_set_log_callback(NULL, take_log, reply);
	(void)crypt_metadata_locking(NULL, 0);
	crypt_token_external_disable();
	r = crypt_init(&cd, HEADER_PATH);
	if (r == 0) {
		crypt_set_log_callback(cd, take_log, reply);
		r = crypt_load(cd, type, NULL);
	}
	if (r == 0) {
		describe(cd, reply);
		r = crypt_volume_key_get(cd, CRYPT_ANY_SLOT, (char *)secret_data(key), &key_len,
					 (const char *)secret_bytes(passphrase),
					 secret_len(passphrase));
	}
	crypt_free(cd);
	if (r < 0)
		return r;
	reply->keyslot = r;
	reply->key_bytes = (uint32_t)key_len;
	return 0;
}

static int serve(void)
{
	struct secret *passphrase __attribute__((cleanup(secret_freep))) = NULL;
	struct secret *key __attribute__((cleanup(secret_freep))) = NULL;
	struct unlock_reply turn = { .is_turn = 1 }, reply = { 0 };
	struct unlock_request request;
	int r;

	volunteer_for_oom();
	/* It may stand in line for long: the passphrase comes to a process that is closed to
	 * others. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	r = read_all(&request, sizeof(request));
	if (r < 0)
		return r;
	if (getppid() != request.parent)
		return -ECONNRESET;
	r = secret_new(request.passphrase_len, &passphrase);
	if (r == 0)
		r = secret_new(KEY_MAX, &key);
	if (r == 0)
		r = read_all(secret_data(passphrase), request.passphrase_len);
	if (r < 0)
		return r;

	take_turn(&request);
	r = write_all(&turn, sizeof(turn));
	if (r < 0)
		return r;
	r = lock_in(&request);
	if (r < 0)
		(void)snprintf(reply.text, sizeof(reply.text), "cannot lock itself in");
	else
		r = open_keyslot(&request, passphrase, key, &reply);
	if (r < 0 && r != -EPERM && !has_memory(&request))
		r = -ENOMEM;
	reply.result = r;
	r = write_all(&reply, sizeof(reply));
	if (r == 0 && reply.result == 0)
		r = write_all(secret_bytes(key), reply.key_bytes);
	return r;
}

void luks_unlock_child_main(int argc, char **argv)
{
	if (argc != 1 || strcmp(argv[0], UNLOCK_ARGV0) != 0)
		return;
	_exit(serve() < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}
