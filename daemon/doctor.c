/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Collects findings and prints them: one line each, and what to do below it. The departments are
 * doctor_host.c, doctor_image.c and doctor_key.c. Main thread of a command.
 */

#include "doctor.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "key.h"
#include "path.h"
#include "log.h"
#include "output.h"
#include "secret.h"
#include "state.h"

static const char *level_name(enum doctor_level level)
{
	switch (level) {
	case DOCTOR_OK:
		return "ok";
	case DOCTOR_WARN:
		return "warn";
	case DOCTOR_FAIL:
		return "fail";
	}
	return "";
}

static bool add_text(struct json_object *o, const char *key, const char *text)
{
	struct json_object *value = json_object_new_string(text);

	if (value && json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

void doctor_note(struct doctor *d, enum doctor_level level, const char *about, const char *advice,
		 const char *fmt, ...)
{
	struct json_object *o = json_object_new_object();
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Names that users chose may hold anything. */
	for (char *p = text; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = '?';
	if (level == DOCTOR_FAIL)
		d->n_fails++;
	if (o && add_text(o, "about", about) && add_text(o, "level", level_name(level)) &&
	    add_text(o, "text", text) && add_text(o, "advice", advice ? advice : "") &&
	    json_object_array_add(d->findings, o) == 0)
		return;
	json_object_put(o);
	d->is_short = true;
}

void doctor_fault(struct doctor *d, const char *about, const struct fault *f)
{
	if (!f->error)
		return;
	doctor_note(d, DOCTOR_FAIL, about, f->hint, "%s",
		    f->message[0] ? f->message : strerror(-f->error));
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(o, key, &value) ? json_object_get_string(value) : "";
}

static void print_plain(const struct doctor *d)
{
	for (size_t i = 0; i < json_object_array_length(d->findings); i++) {
		struct json_object *o = json_object_array_get_idx(d->findings, i);

		printf("%-4s %-10s %s\n", text_of(o, "level"), text_of(o, "about"),
		       text_of(o, "text"));
		if (text_of(o, "advice")[0])
			printf("%-4s %-10s -> %s\n", "", "", text_of(o, "advice"));
	}
}

static int print(const struct doctor *d, struct fault *f)
{
	const struct options *o = d->options;
	int r = 0;

	if (d->is_short)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for what was found");
	if (o->format == OUTPUT_PLAIN)
		print_plain(d);
	else
		r = output_object(stdout, "findings", d->findings, o->format, o->is_pretty);
	return output_finish(r, f);
}

int doctor_run(struct options *o, struct fault *f)
{
	struct doctor d = { .options = o };
	struct fault found = { 0 };
	int r = 0;

	if (o->operand || o->spec.image)
		r = image_spec_parse(o->operand, &o->spec, f);
	if (r < 0)
		return r;
	for (unsigned int i = 0; r == 0 && i < o->passphrase_files.n; i++)
		r = key_make_absolute(&o->passphrase_files.items[i]);
	if (r < 0)
		return path_fault(r, f);
	log_set_level(o->is_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	r = secret_protect_process();
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot keep secrets out of core dumps: %s",
				 strerror(-r));
	d.findings = json_object_new_array();
	if (!d.findings)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for what is found");
	if (state_run_dir(o->run_dir, d.run_dir, sizeof(d.run_dir), &found) < 0) {
		d.run_dir[0] = '\0';
		doctor_fault(&d, "run-dir", &found);
	}
	doctor_host(&d);
	doctor_image(&d);
	r = print(&d, f);
	json_object_put(d.findings);
	if (r == 0 && d.n_fails > 0)
		r = fault_set(f, EXIT_USAGE, -ENOTRECOVERABLE, "%u thing%s will not work",
			      d.n_fails, d.n_fails == 1 ? "" : "s");
	return r;
}
