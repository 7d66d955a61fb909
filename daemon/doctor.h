/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_DOCTOR_H
#define DAEMON_DOCTOR_H

#include <json-c/json.h>

#include "chain.h"
#include "fault.h"
#include "options.h"

/*
 * The command "doctor": looks at everything that a volume stands on and says what to do about what
 * is wrong. Changes nothing. 0, or EXIT_USAGE (-ENOTRECOVERABLE) after it has printed what fails.
 * Main thread.
 */
int doctor_run(struct options *o, struct fault *f);

/* ---- between doctor.c and its departments ---- */

enum doctor_level {
	DOCTOR_OK,
	DOCTOR_WARN, /* works, but somebody may regret it */
	DOCTOR_FAIL, /* does not work */
};

struct doctor {
	struct options *options;
	char run_dir[4096]; /* or "" */
	struct json_object *findings; /* an array */
	unsigned int n_fails;
	bool is_short; /* of memory */
};

/*
 * Adds a finding: about what, what was seen, and what to do (or NULL). Nothing is kept by
 * reference.
 */
void doctor_note(struct doctor *d, enum doctor_level level, const char *about, const char *advice,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same from a fault, if it is one; else ok. */
void doctor_fault(struct doctor *d, const char *about, const struct fault *f);

/* This machine: kernel, driver, run directory, memory, the volumes that are there. */
void doctor_host(struct doctor *d);
/* The cluster, and the image if one is named. */
void doctor_image(struct doctor *d);
/* Where the passphrase of layer i is, from its resolved source. */
void doctor_key(struct doctor *d, const struct chain_options *o, const struct chain *c,
		unsigned int i);

#endif
