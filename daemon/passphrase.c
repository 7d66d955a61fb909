/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Where passphrases come from. Main thread, before any volume serves. */

#include "passphrase.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int passphrase_read(const char *path, struct secret **ret, struct fault *f)
{
	bool is_stdin = strcmp(path, "-") == 0;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r = fd < 0 ? -errno : secret_read_fd(fd, SECRET_MAX, ret);

	if (fd >= 0 && !is_stdin)
		(void)close(fd);
	switch (r) {
	case 0:
		return 0;
	case -ENODATA:
		(void)fault_set(f, EXIT_PASSPHRASE, r, "passphrase file %s is empty", path);
		break;
	case -EFBIG:
		(void)fault_set(f, EXIT_PASSPHRASE, r, "passphrase file %s is larger than 8 MiB",
				path);
		fault_hint(f, "give the file that holds the passphrase, byte for byte");
		break;
	case -ENOMEM:
		(void)fault_set(f, EXIT_MEMORY, r, "no memory for the passphrase in %s", path);
		break;
	default:
		(void)fault_set(f, EXIT_PASSPHRASE, r, "cannot read passphrase file %s: %s", path,
				strerror(-r));
		break;
	}
	return r;
}

bool passphrase_has_newline(const struct secret *s)
{
	size_t len = secret_len(s);

	return len > 1 && secret_bytes(s)[len - 1] == '\n';
}
