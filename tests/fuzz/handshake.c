/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: the input is what a client sends after the greeting. It may
 * end the handshake in any way but a crash, a leak, a hang, or a session that
 * promises what was not negotiated.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with nbd/handshake.c and nbd/stream.c.
 */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int find(void *arg, const char *name, struct wire_export *ret)
{
	if (strlen(name) > 4096)
		abort();
	if (name[0] && strcmp(name, "v") != 0)
		return -ENOENT;
	*ret = (struct wire_export){
		.name = "v",
		.description = name[0] ? "a volume" : NULL,
		.size = 1 << 20,
		.flags = WIRE_FLAG_HAS_FLAGS,
		.min_block = name[0] ? 512 : 1,
		.preferred_block = 4096,
		.max_block = WIRE_MAX_PAYLOAD,
		.has_status = true,
	};
	return 0;
}

static int list(void *arg, unsigned int i, struct wire_export *ret)
{
	return i < 2 ? find(arg, i ? "v" : "", ret) : -ENOENT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct wire_session session;
	int fds[2], room = 1 << 20, r;

	if (len > 64 << 10 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
		return 0;
	/* Both directions fit without a second thread. */
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (send(fds[0], data, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len) {
		shutdown(fds[0], SHUT_WR);
		r = wire_handshake(fds[1], fds[1], -1, 1000, find, list, NULL, &session);
		if (r > 0 || r == -ETIMEDOUT)
			abort();
		if (r == 0 && (session.size != 1 << 20 || !(session.flags & WIRE_FLAG_HAS_FLAGS) ||
			       (session.has_status && !session.has_structured) ||
			       !(session.flags & WIRE_FLAG_SEND_DF) == session.has_structured))
			abort();
	}
	close(fds[0]);
	close(fds[1]);
	return 0;
}
