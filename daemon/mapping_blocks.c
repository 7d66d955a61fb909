/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The size of the device's blocks, which may depend on what is on it. That is the first that is
 * read of the data, and a part of the cluster that does not answer may be just that. A read cannot
 * be ended; so who waits for it can leave. The volume's thread.
 */

#include "mapping_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blocksize.h"
#include "limit.h"

/* A look at what is on the volume. */
struct look {
	struct volume *volume; /* the mapping's, until it leaves */
	uint32_t block_size;
	const char *why;
};

static int look(void *arg)
{
	struct look *l = arg;

	return blocksize_choose(volume_read, l->volume, atomic_load(&l->volume->size),
				l->volume->sector, &l->block_size, &l->why);
}

static void look_late(void *arg)
{
	struct look *l = arg;

	(void)volume_free(l->volume);
	free(l);
}

static int set_late(const struct mapping *m, int error, struct fault *f)
{
	if (error == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, error, "%s: interrupted", m->spec);
	(void)fault_set(f, EXIT_TIMED_OUT, error, "%s: cannot read the image: no answer in time",
			m->spec);
	fault_hint(f, "see 'ceph health' for what does not answer; --block-size reads nothing");
	return error;
}

/* One that is left keeps the volume, and m has none any more. */
static int look_at_blocks(struct mapping *m, const char **why, struct fault *f)
{
	struct look *l = malloc(sizeof(*l));
	bool is_late;
	int r;

	if (!l)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: no memory for a look at it",
				 m->spec);
	l->volume = m->volume;
	r = limit_call_unless(m->o.interrupt, (unsigned int)m->o.options->open_timeout_s, look,
			      look_late, l, &is_late);
	if (is_late) {
		m->volume = NULL;
		return set_late(m, r, f);
	}
	if (r == 0) {
		m->volume->block_size = l->block_size;
		*why = l->why;
	}
	free(l);
	return r < 0 ? fault_set(f, EXIT_CLUSTER, r, "%s: cannot read the image: %s", m->spec,
				 strerror(-r))
		     : 0;
}

int mapping_choose_blocks(struct mapping *m, struct fault *f)
{
	const char *why = m->o.kind == MAPPING_ATTACH ? "the device has them" : "asked for";
	struct volume *v = m->volume;
	int r = 0;

	if (m->o.kind == MAPPING_ATTACH)
		v->block_size = m->state.block_size;
	else if (m->o.options->block_size > 0)
		v->block_size = m->o.options->block_size;
	else
		r = look_at_blocks(m, &why, f);
	if (r < 0)
		return r;
	log_info(m->spec, "blocks of %u bytes: %s", v->block_size, why);
	if (v->block_size > v->sector && v->block_size > 512)
		log_info(m->spec, "blocks are larger than the encryption's sectors (%u)",
			 v->sector);
	atomic_store(&v->size, volume_size_for(v, m->state.raw_size));
	return 0;
}
