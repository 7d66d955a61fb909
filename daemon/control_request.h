/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_REQUEST_H
#define DAEMON_CONTROL_REQUEST_H

#include <json-c/json_object.h>

#include "fault.h"
#include "options.h"

/*
 * What map, attach and serve ask of a daemon: a command line as JSON, and back again by the one
 * parser. Any thread.
 */

#define CONTROL_SERVICE "org.varlink.service"
#define CONTROL_INTERFACE "org.rbdcrypt.Host"
#define CONTROL_FAILED CONTROL_INTERFACE ".Failed"

/*
 * The parameters for o, whose paths have been made absolute; keys has the indexes of those
 * passphrases that travel with it, in the order of their descriptors. NULL: no memory.
 */
struct json_object *control_request_write(const struct options *o, const unsigned int *keys,
					  unsigned int n_keys);

/*
 * Whether Ceph is told its user's key as text, in words or in CEPH_ARGS. That must not travel: it
 * would stay in the memory of both ends, and in a state file that all can read.
 */
bool control_request_has_key(const struct options *o);

/*
 * Options and image of a call of command, as from the command line. take_fd gives the i-th
 * descriptor that came with it, which the options own then. is_trusted: may also name what only
 * root can read or write. The caller has options_done() and free(). -ENOKEY: a passphrase that can
 * be read only once did not come with it; -errno; all with the fault.
 */
int control_request_read(struct json_object *parameters, enum command command, bool is_trusted,
			 int (*take_fd)(void *arg, unsigned int i), void *arg, struct options **ret,
			 struct fault *f);

/* A fault as parameters of CONTROL_FAILED, and back: false when they are none. */
struct json_object *control_fault_write(const struct fault *f);
bool control_fault_read(struct json_object *parameters, struct fault *ret);

/* The interface in varlink's language. */
extern const char control_interface[];
/* The same of any interface that we have, by its name; else NULL. */
const char *control_description(const char *interface);

#endif
