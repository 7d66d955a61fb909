/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Start is a list of steps, stop is the same list backwards, and a start that fails runs the undo
 * from where it stopped. Everything that can fail happens in start, while the user still sees it.
 */

#include "mapping_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "calibration.h"
#include "claim.h"
#include "event_about.h"
#include "limit.h"
#include "text.h"

#define CONNECTIONS_MAX 4
/* Of --connections; a state file may say anything. */
#define CONNECTIONS_LIMIT 64
/* For an end, in haste; a cluster that answers takes less. */
#define HASTE_S 2

/* ---- who may connect; first, because it costs nothing to find a wrong name ---- */

static int start_peers(struct mapping *m, struct fault *f)
{
	return setup_access(m->o.options, &m->peers, &m->access, f);
}

static void stop_peers(struct mapping *m)
{
	m->peers = peers_free(m->peers);
}

/* ---- chain ---- */

static int start_chain(struct mapping *m, struct fault *f)
{
	struct chain_options *c = &m->chain_options;
	int r;

	(void)snprintf(m->turnstile, sizeof(m->turnstile), "%s/unlock.lock", m->o.run_dir);
	setup_chain(m->o.options, m->o.cluster, m->o.spec, m->turnstile, &m->sources, c);
	chain_options_interrupt(c, m->o.interrupt);
	c->cookie = m->cookie;
	c->fsid = m->state.fsid;
	/* What goes on is what was there, whatever has its name by now. */
	if (m->o.resumed && claim_image_left(m->o.run_dir, m->o.resumed, &m->known))
		c->known = &m->known;
	r = setup_open(&m->sources, c, &m->chain, f);
	if (r == 0)
		r = chain_check_raw(&m->chain_options, &m->chain,
				    m->o.options->is_read_only ||
					    layer_info(m->chain.layers[0].layer)->snap_id !=
						    UINT64_MAX,
				    f);
	return r;
}

static int start_keys(struct mapping *m, struct fault *f)
{
	int r = chain_unlock(&m->chain_options, &m->chain, f);

	return r < 0 ? r
		     : chain_check_store(&m->chain_options, &m->chain, m->state.is_read_only, f);
}

static void stop_nothing(struct mapping *m)
{
	(void)m;
}

static void stop_chain(struct mapping *m)
{
	chain_done(&m->chain);
}

/* ---- store and volume ---- */

static int fence(struct mapping *m, const char *client, struct fault *f)
{
	const struct event_about about = event_about_image(m->spec, m->o.spec, m->state.device);
	int r = cluster_fence(m->o.cluster, client, (unsigned int)m->o.options->open_timeout_s,
			      m->o.interrupt);

	/* Where we may not, the image's lock has to do. */
	if (r == -EACCES || r == -EPERM || r == -EINVAL)
		log_warning(m->spec,
			    "its last daemon died, and client %s cannot be blocklisted: %s", client,
			    strerror(-r));
	else if (r < 0)
		return fault_set(
			f, r == -ETIMEDOUT || r == -EINTR ? EXIT_TIMED_OUT : EXIT_CLUSTER, r,
			"%s: its last daemon died, and client %s is not blocklisted yet: %s",
			m->spec, client, strerror(-r));
	else
		event_log(EVENT_CLIENT_FENCED, &about,
			  "its last daemon died: client %s is blocklisted", client);
	return 0;
}

/*
 * Owners of this image that died on this host may have left writes on their way to the OSDs; they
 * must not land after ours, and their watches and locks must not keep us waiting for half a minute.
 */
static int fence_dead(struct mapping *m, struct fault *f)
{
	int r = 0;

	while (r == 0 && m->state.dead_client[0]) {
		char client[sizeof(m->state.dead_client)];

		text_copy(client, sizeof(client), m->state.dead_client);
		client[strcspn(client, " ")] = '\0';
		r = fence(m, client, f);
		if (r == 0)
			claim_client_fenced(m->o.run_dir, &m->state, client);
	}
	return r;
}

static int start_store(struct mapping *m, struct fault *f)
{
	struct store_options s = { .is_read_only = m->state.is_read_only,
				   .is_exclusive = m->state.is_exclusive,
				   .is_without_lock = m->o.options->is_without_lock,
				   .is_encrypted = m->chain.layers[0].is_encrypted,
				   .data_offset = chain_data_offset(&m->chain),
				   .timeout_s = (unsigned int)m->o.options->open_timeout_s };
	int r = fence_dead(m, f);

	if (r < 0)
		return r;
	if (m->o.cluster && !m->state.is_read_only)
		(void)cluster_address(m->o.cluster, m->state.client, sizeof(m->state.client));
	/* Should we die from here on, our client is to be shut out. */
	r = state_update(m->state_file, &m->state);
	if (r < 0)
		return fault_set(f, fault_status(r, EXIT_PASSPHRASE), r,
				 "%s: cannot update the state file: %s", m->spec, strerror(-r));
	r = chain_open_store(&m->chain_options, &m->chain, &s, &m->store, f);
	return r < 0 ? r : chain_check_headers(&m->chain_options, &m->chain, f);
}

static void end_nothing(void *arg)
{
	(void)arg; /* gone already */
}

/*
 * Frees arg. A start that is interrupted has written nothing, so it does not wait for a cluster
 * that does not answer: what that has of ours ends when it does, or with the process.
 */
static void end(const struct mapping *m, int (*run)(void *arg), void *arg)
{
	bool is_hasty = !m->is_started && interrupt_is_raised(m->o.interrupt), is_late;

	/* No thread to be had: then it has to be waited for. */
	if (limit_call(is_hasty ? HASTE_S : 0, run, end_nothing, arg, &is_late) < 0 && !is_late)
		(void)run(arg);
}

static int end_store(void *arg)
{
	store_close(arg);
	return 0;
}

static void stop_store(struct mapping *m)
{
	end(m, end_store, m->store);
	m->store = NULL;
}

static int start_volume(struct mapping *m, struct fault *f)
{
	const struct options *o = m->o.options;
	struct volume_options v = {
		.spec = m->spec,
		.is_read_only = m->state.is_read_only,
		.has_trim = m->state.is_trim_offered,
		.block_size = 512,
		.memory = (size_t)o->queue_memory,
		.inline_threshold = SIZE_MAX,
		.run_dir = m->o.run_dir,
		.key = m->state.key,
		/* Two for each worker keep them as busy uncut, with fewer wake-ups. */
		.share_limit = 2 * pool_threads(m->o.pool),
	};
	int r;

	if (m->chain.xts)
		v.inline_threshold = o->inline_threshold != UINT64_MAX
					     ? (size_t)o->inline_threshold
					     : calibration_threshold(m->o.calibration,
								     m->chain.xts[0]);
	r = m->store->ops->raw_size(m->store, &m->state.raw_size);
	v.raw_size = m->state.raw_size;
	if (r == 0)
		r = volume_new_take(&v, m->o.pool, &m->store, &m->chain.xts, m->chain.n,
				    &m->volume);
	if (r < 0)
		return fault_set(f, r == -ENOMEM ? EXIT_MEMORY : EXIT_CLUSTER, r,
				 "%s: cannot be set up: %s", m->spec, strerror(-r));
	r = mapping_choose_blocks(m, f);
	if (r == 0 && atomic_load(&m->volume->size) == 0)
		return fault_set(
			f, EXIT_NOT_FOUND, -ENODATA,
			"%s has no room for data: %llu bytes, of which the header takes %llu",
			m->spec, (unsigned long long)m->state.raw_size,
			(unsigned long long)m->state.data_offset);
	return r;
}

static int end_volume(void *arg)
{
	(void)volume_free(arg);
	return 0;
}

static void stop_volume(struct mapping *m)
{
	end(m, end_volume, m->volume);
	m->volume = NULL;
}

/* ---- device or socket ---- */

static void on_gone(void *arg)
{
	struct mapping *m = arg;

	m->is_gone = true;
	m->o.gone(m->o.arg);
}

static unsigned int connections_of(const struct mapping *m)
{
	int n = get_nprocs();

	if (m->o.options->connections > 0)
		return m->o.options->connections;
	if (m->state.connections > 0 && m->state.connections <= CONNECTIONS_LIMIT)
		return m->state.connections;
	return n < CONNECTIONS_MAX ? (unsigned int)n : CONNECTIONS_MAX;
}

/*
 * Who continues a predecessor goes on with its sockets. For all others, who attach by hand, sockets
 * that somebody keeps alive would keep the kernel from taking new ones.
 */
static void take_sockets(struct mapping *m, unsigned int n, int *ret)
{
	(void)handover_take(m->o.handover, m->index, m->o.resumed ? m->handed_over : "", n, ret);
	m->handed_over[0] = '\0';
}

/* Of a device that was asked for. */
static void tell_who_has_it(const struct mapping *m, struct fault *f)
{
	char who[512];

	claim_who_has(m->o.run_dir, m->index, who, sizeof(who));
	if (who[0]) {
		fault_clear(f);
		(void)fault_set(f, EXIT_BUSY, -EBUSY, "/dev/nbd%d is in use: %s", m->index, who);
	}
	fault_hint(f, "without --device, a free one is taken");
}

static int start_device(struct mapping *m, struct fault *f)
{
	const struct options *o = m->o.options;
	int sockets[CONNECTIONS_LIMIT];
	struct device_options d = { .volume = m->volume,
				    .loop = m->o.loop,
				    .index = m->index,
				    .is_attach = m->o.kind == MAPPING_ATTACH,
				    .connections = connections_of(m),
				    .io_timeout_s = o->io_timeout_s,
				    .reattach_timeout_s = o->reattach_timeout_s,
				    .cookie = m->cookie,
				    .nbds_max = o->nbds_max,
				    .max_part = o->max_part,
				    .waits_for_udev = !o->is_udev_ignored,
				    .interrupt = m->o.interrupt,
				    .gone = on_gone,
				    .gone_arg = m };
	int r;

	if (d.is_attach) {
		take_sockets(m, d.connections, sockets);
		d.sockets = sockets;
	}
	r = device_start(&d, &m->device, f);
	for (unsigned int i = 0; d.sockets && i < d.connections; i++)
		if (sockets[i] >= 0)
			(void)close(sockets[i]);
	if (r == -EBUSY && !d.is_attach && m->index >= 0)
		tell_who_has_it(m, f);
	if (r < 0)
		return r;
	m->state.device = device_index(m->device);
	m->state.connections = device_connections(m->device);
	(void)nbd_sysfs_read(m->state.device, &m->state.kernel);
	claim_forget(m->o.run_dir, m->state.device);
	/* udev makes the device's names from it. */
	r = state_update(m->state_file, &m->state);
	if (r < 0)
		log_warning(m->spec, "cannot update the state file: %s", strerror(-r));
	r = device_settle(m->device, f);
	/* Whoever uses it already waits for a store, not for names, and the store may be slow. */
	if (r < 0 && d.is_attach) {
		log_warning(m->spec, "%s", f->message);
		fault_clear(f);
		r = 0;
	}
	if (r == 0)
		m->state.status = VOLUME_MAPPED;
	return r;
}

static int start_listener(struct mapping *m, struct fault *f)
{
	const struct options *o = m->o.options;
	char spec[VOLUME_SPEC_LEN];
	struct listener_options l = { .volume = m->volume,
				      .loop = m->o.loop,
				      .export_name = o->export_name ? o->export_name : spec,
				      .path = m->o.listen_fd < 0 ? o->socket : NULL,
				      .access = m->access,
				      .peers = m->peers,
				      .fd = m->o.listen_fd,
				      .is_single = o->is_single,
				      .in_fd = STDIN_FILENO,
				      .out_fd = STDOUT_FILENO,
				      .gone = on_gone,
				      .gone_arg = m };
	int r;

	image_spec_format(m->o.spec, spec, sizeof(spec));
	if (o->is_single) {
		/* The connection closes its descriptors; the process keeps its own. */
		l.in_fd = dup(STDIN_FILENO);
		l.out_fd = dup(STDOUT_FILENO);
		if (l.in_fd < 0 || l.out_fd < 0)
			return fault_set(f, EXIT_MEMORY, -errno,
					 "cannot serve on standard input: %s", strerror(errno));
	}
	r = listener_start(&l, &m->listener, f);
	if (r < 0)
		return r;
	m->state.status = VOLUME_SERVING;
	return 0;
}

static int start_service(struct mapping *m, struct fault *f)
{
	int r = mapping_has_device(m) ? start_device(m, f) : start_listener(m, f);

	if (r == 0)
		mapping_note_request(m);
	return r;
}

static void forget_request(struct mapping *m)
{
	free(m->state.request);
	m->state.request = NULL;
}

static void leave_device(struct mapping *m)
{
	const struct event_about about = event_about_image(m->spec, m->o.spec, m->state.device);
	int n = m->end == MAPPING_LEAVE && m->o.handover
			? device_hand_over(m->device, m->o.handover, m->state.handed_over)
			: 0;

	m->state.status = VOLUME_DETACHED;
	if (n > 0)
		event_log(EVENT_HANDED_OVER, &about, "handed over: %d of %u sockets of /dev/nbd%d",
			  n, m->state.connections, m->state.device);
	else
		event_log(EVENT_DEVICE_WAITS, &about,
			  "detached: /dev/nbd%d waits %d seconds for 'rbdcrypt-nbd attach'",
			  m->state.device, m->state.reattach_timeout_s);
}

static void stop_service(struct mapping *m)
{
	/* One that was there before us is not ours to take away. */
	bool is_left = m->end != MAPPING_DISCONNECT || m->o.kind == MAPPING_ATTACH;

	if (m->end != MAPPING_LEAVE)
		forget_request(m);
	/* A socket comes back with the successor. */
	if (m->listener && m->state.request)
		m->state.status = VOLUME_DETACHED;

	if (m->device && !m->is_gone && is_left)
		leave_device(m);
	volume_is_ending(m->volume);
	m->device = device_stop(m->device, !is_left);
	m->listener = listener_stop(m->listener);
	if (m->state.status == VOLUME_DETACHED)
		(void)state_update(m->state_file, &m->state);
}

/* ---- its keys ---- */

static int start_guard(struct mapping *m, struct fault *f)
{
	struct guard_options g = { .loop = m->o.loop,
				   .run_dir = m->o.run_dir,
				   .spec = m->spec,
				   .chain_options = &m->chain_options,
				   .xts = m->volume->xts,
				   .state = &m->state,
				   .interval_s = m->o.options->key_check_interval_s,
				   .changed = mapping_publish,
				   .look = mapping_look_at_lock,
				   .arg = m };
	return guard_start(&g, &m->chain, &m->guard, f);
}

static void stop_guard(struct mapping *m)
{
	m->guard = guard_stop(m->guard);
}

/* ---- the list ---- */

static const struct step {
	int (*start)(struct mapping *m, struct fault *f);
	void (*stop)(struct mapping *m);
} steps[] = {
	{ start_peers, stop_peers },
	{ start_chain, stop_chain },
	{ mapping_start_claim, mapping_stop_claim },
	{ start_keys, stop_nothing },
	{ start_store, stop_store },
	{ start_volume, stop_volume },
	{ mapping_start_lock, mapping_stop_lock },
	{ start_guard, stop_guard },
	{ start_service, stop_service },
	{ mapping_start_watch, mapping_stop_watch },
};
#define N_STEPS ((int)(sizeof(steps) / sizeof(steps[0])))

/* A step that failed half-way is stopped too: each stop copes with half. */
static void run_stop(struct mapping *m, int done)
{
	while (done-- > 0)
		steps[done].stop(m);
	if (m->changed.fd >= 0)
		(void)close(m->changed.fd);
	free(m);
}

/* What a user might not expect of what is served. */
static void tell_what_is_served(const struct mapping *m)
{
	const struct chain *c = &m->chain;

	if (c->has_raw_header)
		log_notice(m->spec, "it carries a LUKS header but no passphrase file was given: "
				    "the raw image is served");
	for (unsigned int i = 0; i + 1 < c->n; i++)
		if (chain_unseen(c, i) > 0)
			log_notice(m->spec,
				   "layer %u: %s does not see the last %llu bytes of its parent "
				   "%s: its header is that much larger",
				   i + 1, layer_info(c->layers[i].layer)->spec,
				   (unsigned long long)chain_unseen(c, i),
				   layer_info(c->layers[i + 1].layer)->spec);
}

static int run_start(struct mapping *m, int *ret_done, struct fault *f)
{
	for (*ret_done = 0; *ret_done < N_STEPS;) {
		int r = interrupt_is_raised(m->o.interrupt)
				? fault_set(f, EXIT_TIMED_OUT, -EINTR, "%s: interrupted", m->spec)
				: steps[*ret_done].start(m, f);

		(*ret_done)++;
		if (r < 0)
			return r;
	}
	m->is_started = true;
	/* Not before it is. */
	tell_what_is_served(m);
	/* The layers were needed for their headers; the store has its own handle. */
	chain_done(&m->chain);
	return 0;
}

int mapping_start(const struct mapping_options *o, struct mapping **ret, struct fault *f)
{
	struct mapping *m = calloc(1, sizeof(*m));
	int r = 0, done = 0;

	if (!m)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a volume");
	m->o = *o;
	m->index = -1;
	m->end = MAPPING_DISCONNECT;
	m->changed.fd = m->again.fd = -1;
	volume_state_init(&m->state);
	image_spec_format(o->spec, m->spec, sizeof(m->spec));
	if (o->options->device && nbd_index_parse(o->options->device, &m->index) < 0) {
		r = fault_set(f, EXIT_USAGE, -EINVAL, "--device: '%s' is no nbd device",
			      o->options->device);
		fault_hint(f, "for example --device /dev/nbd0");
	}
	if (r == 0)
		r = run_start(m, &done, f);
	if (r < 0) {
		run_stop(m, done);
		return r;
	}
	*ret = m;
	return 0;
}

const struct volume_state *mapping_state(const struct mapping *m)
{
	return &m->state;
}

struct mapping *mapping_stop(struct mapping *m, enum mapping_end end)
{
	if (!m)
		return NULL;
	m->end = end;
	run_stop(m, N_STEPS);
	return NULL;
}
