/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Paths that outlive the folder they were typed in. Main thread, before the daemon leaves it. */

#include "path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int path_make_absolute(char **path)
{
	char *here, *whole;
	const char *rest = *path;
	int n;

	if (!*path || (*path)[0] == '/')
		return 0;
	/* "./NAME" is how a shell's completion has it, and means the same as NAME. */
	while (rest[0] == '.' && rest[1] == '/')
		rest += 1 + strspn(rest + 1, "/");
	here = getcwd(NULL, 0);
	if (!here)
		return -errno;
	n = asprintf(&whole, "%s/%s", here, rest);
	free(here);
	if (n < 0)
		return -ENOMEM;
	free(*path);
	*path = whole;
	return 0;
}

int path_fault(int error, struct fault *f)
{
	return error < 0 ? fault_set(f, EXIT_USAGE, error, "the current folder has no name: %s",
				     strerror(-error))
			 : 0;
}
