/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_STATE_JSON_H
#define RBDCRYPT_STATE_JSON_H

#include <json-c/json.h>

#include "state.h"

/*
 * A volume's state as JSON and back: what state files hold and what "list" and "status" print. The
 * first seven keys and their types are rbd-nbd's. Any thread; no file is touched.
 */

/* A new object, the caller's (json_object_put()), or NULL when out of memory. */
struct json_object *state_to_json(const struct volume_state *v);

/*
 * Reads len bytes of text and fills ret, which the caller empties with volume_state_done(). Unknown
 * keys are skipped, missing ones left at volume_state_init()'s values. -EBADMSG with the reason in
 * why (a constant) when it is not a volume's state; -ENOMEM. On failure ret is untouched.
 */
int state_from_text(const char *text, size_t len, struct volume_state *ret, const char **why);

#endif
