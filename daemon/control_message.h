/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_MESSAGE_H
#define DAEMON_CONTROL_MESSAGE_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>

/* A method call in varlink's form, as it was received. Any thread. Starts as zeros. */
struct control_message {
	struct json_object *json, *parameters; /* an object inside it, perhaps empty; NULL: none */
	/* These stay when it is done. */
	char method[256];
	bool is_oneway;
};

/*
 * From len bytes of text, with a zero byte behind them. -EBADMSG: no call, or one of so many values
 * that it would cost us much more than its text; -ENOMEM. Then nothing is held.
 */
int control_message_open(const char *text, size_t len, struct control_message *ret);
void control_message_done(struct control_message *m);

#endif
