/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Asks the daemons of the volumes, one after the other, and shows what they have written into their
 * state files by the time they answer. Main thread of a command.
 */

#include "check_keys.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "guard_socket.h"
#include "lookup.h"
#include "output.h"
#include "state.h"
#include "view.h"

/* Nobody has the key, and what the state file says of it was found by a daemon that is gone. */
static bool is_unknown(const struct volume_state *v)
{
	bool has_header = false;

	for (unsigned int i = 0; i < v->n_layers; i++)
		has_header |= strcmp(v->layers[i].format, "none") != 0;
	return has_header && !volume_is_alive(v);
}

static int unknown_fault(const struct volume_state *v, struct fault *f)
{
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	(void)fault_set(f, EXIT_NOT_FOUND, -ESRCH, "%s: its keys were not checked: %s", spec,
			v->health[0] ? v->health : "its daemon is gone");
	fault_hint(f, "attach or serve it again: that opens it, or says why it does not open");
	return -ESRCH;
}

static void print_layers(const struct volume_state *v)
{
	bool has_key = false;
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	if (is_unknown(v)) {
		output_text(stdout, spec);
		printf(": not checked\n");
		return;
	}
	for (unsigned int i = 0; i < v->n_layers; i++) {
		const struct layer_state *l = &v->layers[i];

		if (!l->key_source[0])
			continue;
		has_key = true;
		output_text(stdout, spec);
		printf(": layer %u: %s, from ", i + 1, l->key_health);
		output_text(stdout, l->key_source);
		if (l->key_reason[0]) {
			printf(": ");
			output_text(stdout, l->key_reason);
		}
		putchar('\n');
	}
	if (!has_key) {
		output_text(stdout, spec);
		printf(": no key is in use\n");
	}
}

static int add_layers(struct json_object *array, const struct volume_state *v, struct fault *f)
{
	struct json_object *one = view_to_json(v);

	if (one && json_object_array_add(array, one) == 0)
		return 0;
	json_object_put(one);
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the answer");
}

static int show(const struct options *o, const struct lookup *l, struct fault *f)
{
	struct json_object *array = json_object_new_array();
	int r = array ? 0 : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the answer");

	for (unsigned int i = 0; r == 0 && i < l->n; i++) {
		if (o->format == OUTPUT_PLAIN)
			print_layers(&l->v[i]);
		else
			r = add_layers(array, &l->v[i], f);
	}
	if (r == 0)
		r = output_finish(
			o->format == OUTPUT_PLAIN
				? 0
				: output_object(stdout, "devices", array, o->format, o->is_pretty),
			f);
	json_object_put(array);
	return r;
}

static bool is_of_same_daemon(const struct volume_state *a, const struct volume_state *b)
{
	return a->pid == b->pid && a->pid_namespace == b->pid_namespace;
}

int check_keys_run(struct options *o, struct fault *f)
{
	const struct volume_state *silent = NULL; /* one whose daemon hangs */
	struct fault first = { 0 };
	struct lookup l, now;
	int r = lookup_operand(o, &l, f);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < l.n; i++) {
		struct fault found = { 0 };

		/* Once for all of its volumes. */
		if (silent && is_of_same_daemon(&l.v[i], silent))
			continue;
		if (guard_ask(l.run_dir, &l.v[i], o->is_header_accepted, &found) == -ETIMEDOUT)
			silent = &l.v[i];
		if (found.error && !first.error)
			first = found;
	}
	r = lookup_again(&l, &now, f);
	lookup_done(&l);
	if (r < 0)
		return r;
	/* A lost key is told before one that nobody has looked for. */
	for (unsigned int i = 0; !first.error && i < now.n; i++)
		if (is_unknown(&now.v[i]))
			(void)unknown_fault(&now.v[i], &first);
	r = show(o, &now, f);
	lookup_done(&now);
	if (r == 0 && first.error) {
		*f = first;
		r = first.error;
	}
	return r;
}
