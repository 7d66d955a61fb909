/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who asks for the checks of a volume's keys, and who is told. Checks are begun by a timer, and a
 * failed one is repeated sooner, so that the user hears of a lost key while it can still be helped.
 */

#include "guard.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "event_about.h"
#include "guard_socket.h"
#include "key_check.h"
#include "log.h"
#include "text.h"

/* After a check that failed, at the latest. */
#define AGAIN_S 3600
/* As long as our units give a stop. */
#define STOP_EXTENSION_US 180000000u

struct guard {
	struct guard_options o;
	struct key_check *check;
	struct guard_socket *socket; /* NULL: nobody can ask */
	struct watch timer;
	struct fault fault; /* of the last check */
	bool is_checking;
	/* Somebody asked while a check was under way, which may have looked too early for them. */
	bool is_asked_again, is_accepting_again;
	bool is_asked; /* the check under way is not the timer's */
};

static bool can_be_checked(const struct guard *g)
{
	for (unsigned int i = 0; i < g->o.state->n_layers; i++)
		if (g->o.state->layers[i].key_health[0] &&
		    strcmp(g->o.state->layers[i].key_health, "none") != 0)
			return true;
	return false;
}

static void set_timer(struct guard *g)
{
	int seconds = g->o.interval_s;

	if (seconds <= 0 || !can_be_checked(g))
		return;
	if (g->fault.error && seconds > AGAIN_S)
		seconds = AGAIN_S;
	timer_set(g->timer.fd, (unsigned int)seconds * 1000u);
}

static void publish(struct guard *g)
{
	for (unsigned int i = 0; i < g->o.state->n_layers; i++) {
		const struct key_check_layer *from = key_check_layer(g->check, i);
		struct layer_state *to = &g->o.state->layers[i];

		text_copy(to->key_health, sizeof(to->key_health), key_health_name(from->health));
		text_copy(to->key_source, sizeof(to->key_source), from->source);
		text_copy(to->key_reason, sizeof(to->key_reason), from->reason);
		to->key_checked = from->checked;
	}
}

static int start_check(struct guard *g, bool is_asked, bool is_accepting)
{
	int r = key_check_start(g->check, is_accepting);

	if (r == 0) {
		g->is_checking = true;
		g->is_asked = is_asked;
	}
	return r;
}

static void answer(struct guard *g, const struct fault *f)
{
	if (g->socket)
		guard_socket_answer(g->socket, f);
}

static void refuse(struct guard *g, int error)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_SAFEGUARD, error, "the keys cannot be checked: %s",
			strerror(-error));
	answer(g, &f);
}

/* Whoever wants to take the volume away may think that all of its keys were seen. */
static void tell_unseen(const struct guard *g)
{
	for (unsigned int i = 0; i < g->o.state->n_layers; i++)
		if (key_check_layer(g->check, i)->health == KEY_ONCE_ONLY)
			log_notice(g->o.spec, "layer %u: its passphrase was not checked: %s", i + 1,
				   key_check_layer(g->check, i)->reason);
}

/* f is about the first layer that failed. */
static void tell_lost(const struct guard *g, const struct fault *f)
{
	struct event_about a = event_about_state(g->o.spec, g->o.state);
	unsigned int i = 0;

	while (key_check_layer(g->check, i)->health != KEY_FAILED)
		i++;
	a.layer = i + 1;
	a.fault = f;
	event_log(key_check_layer(g->check, i)->is_header ? EVENT_HEADER_CHANGED : EVENT_KEY_LOST,
		  &a, "%s (%s)", f->message, f->hint);
}

static void tell_back(const struct guard *g)
{
	const struct event_about a = event_about_state(g->o.spec, g->o.state);

	event_log(EVENT_KEYS_BACK, &a, "all layers can be opened again");
}

static void on_checked(void *arg)
{
	struct guard *g = arg;
	struct fault f = { 0 };
	bool was_bad = g->fault.error != 0;
	int r;

	g->is_checking = false;
	if (g->is_asked_again) {
		g->is_asked_again = false;
		r = start_check(g, true, g->is_accepting_again);
		if (r == 0)
			return;
		refuse(g, r);
	}
	(void)key_check_result(g->check, &f);
	if (f.error && strcmp(f.message, g->fault.message) != 0)
		tell_lost(g, &f);
	else if (!f.error && was_bad)
		tell_back(g);
	g->fault = f;
	publish(g);
	g->o.changed(g->o.arg);
	if (g->is_asked)
		tell_unseen(g);
	/* Who stops the service may ask again and again, until there is a key for the next one. */
	if (g->is_asked && f.error)
		(void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%u", STOP_EXTENSION_US);
	answer(g, &g->fault);
	set_timer(g);
}

static void on_asked(void *arg, enum guard_ask what)
{
	bool is_accepting = what == GUARD_ACCEPT;
	struct guard *g = arg;
	int r;

	if (what == GUARD_LOOK) {
		g->o.look(g->o.arg);
		return;
	}

	if (g->is_checking) {
		g->is_accepting_again = is_accepting ||
					(g->is_asked_again && g->is_accepting_again);
		g->is_asked_again = true;
		return;
	}
	r = start_check(g, true, is_accepting);
	if (r < 0)
		refuse(g, r);
}

static void on_timer(struct watch *w)
{
	struct guard *g = (struct guard *)((char *)w - offsetof(struct guard, timer));
	int r;

	timer_clear(w->fd);
	r = g->is_checking ? 0 : start_check(g, false, false);
	if (r < 0) {
		log_warning(g->o.spec, "cannot check the keys: %s", strerror(-r));
		set_timer(g);
	}
}

int guard_start(const struct guard_options *o, const struct chain *c, struct guard **ret,
		struct fault *f)
{
	struct guard *g = calloc(1, sizeof(*g));
	struct key_check_options k = {
		.chain = o->chain_options, .loop = o->loop, .done = on_checked, .arg = g
	};
	struct guard_socket_options s = { .loop = o->loop,
					  .run_dir = o->run_dir,
					  .key = o->state->key,
					  .asked = on_asked,
					  .arg = g };
	int r;

	if (!g)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory to watch the keys with");
	g->o = *o;
	g->timer.fd = -1;
	r = key_check_new(&k, c, o->xts, &g->check);
	if (r == 0)
		r = loop_watch(o->loop, &g->timer, timer_new(), on_timer);
	if (r < 0) {
		(void)guard_stop(g);
		return fault_set(f, EXIT_MEMORY, r, "cannot watch the keys: %s", strerror(-r));
	}
	/* A run directory that is full is no reason not to serve. */
	r = guard_socket_new(&s, &g->socket);
	if (r < 0)
		log_warning(o->spec, "nobody can ask for its keys to be checked: %s", strerror(-r));
	publish(g);
	set_timer(g);
	*ret = g;
	o->changed(o->arg);
	return 0;
}

struct guard *guard_stop(struct guard *g)
{
	if (!g)
		return NULL;
	g->socket = guard_socket_free(g->socket);
	loop_remove(g->o.loop, &g->timer);
	if (g->timer.fd >= 0)
		(void)close(g->timer.fd);
	g->check = key_check_free(g->check);
	free(g);
	return NULL;
}

void guard_looked(struct guard *g)
{
	if (g->socket)
		guard_socket_looked(g->socket);
}

const char *guard_health(const struct guard *g)
{
	return g->fault.message;
}
