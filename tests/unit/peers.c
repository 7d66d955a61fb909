/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who may connect. The list is asked about peers that we make up; what the kernel says is asked of
 * a socket pair, whose other end we are ourselves. That others are told apart on a real socket is
 * in io/peers.sh, which needs root.
 */

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/options.h"
#include "../../daemon/peers.h"
#include "../../daemon/unix_socket.h"

/* A list is made of strings that may change; these do not. */
#define WORD(text) ((char *)(uintptr_t)(text))
#define LIST(a)                                                                                    \
	(struct option_list)                                                                       \
	{                                                                                          \
		.items = (char *[]){ WORD(a) }, .n = 1                                             \
	}
#define LIST2(a, b)                                                                                \
	(struct option_list)                                                                       \
	{                                                                                          \
		.items = (char *[]){ WORD(a), WORD(b) }, .n = 2                                    \
	}

static const struct option_list nobody = { 0 };
/* Not ours, not root's. */
#define OTHER ((uid_t)(geteuid() + 4711))

static struct peers *list(const struct option_list *users, const struct option_list *groups)
{
	struct fault f = { 0 };
	struct peers *p = NULL;

	assert_int_equal(peers_new(users, groups, &p, &f), 0);
	return p;
}

static void find_fails(const char *name, bool is_group, int error, const char *text)
{
	struct fault f = { 0 };
	uint32_t id = 7;
	int r = is_group ? peers_find_group("--x", name, &id, &f)
			 : peers_find_user("--x", name, &id, &f);

	assert_int_equal(r, error);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_non_null(strstr(f.message, text));
	assert_non_null(strstr(f.message, "--x"));
	assert_int_equal(id, 7);
}

static void names_and_numbers_are_found(void **state)
{
	struct fault f = { 0 };
	uid_t user = 1;
	gid_t group = 1;

	(void)state;
	assert_int_equal(peers_find_user("--x", "root", &user, &f), 0);
	assert_int_equal(user, 0);
	assert_int_equal(peers_find_group("--x", "root", &group, &f), 0);
	assert_int_equal(group, 0);
	/* Nobody needs to have the number. */
	assert_int_equal(peers_find_user("--x", "4294967294", &user, &f), 0);
	assert_int_equal(user, 4294967294u);
	assert_int_equal(peers_find_group("--x", "0064055", &group, &f), 0);
	assert_int_equal(group, 64055);
}

static void unknown_names_are_refused(void **state)
{
	(void)state;
	find_fails("no-such-user", false, -ENOENT, "there is no user 'no-such-user'");
	find_fails("no-such-group", true, -ENOENT, "there is no group 'no-such-group'");
	find_fails("", false, -ENOENT, "there is no user ''");
	find_fails("-1", false, -ENOENT, "there is no user '-1'");
	find_fails("1 ", false, -ENOENT, "there is no user '1 '");
}

static void numbers_that_mean_nobody_are_refused(void **state)
{
	(void)state;
	find_fails("4294967295", false, -EINVAL, "no number of a user");
	find_fails("4294967296", true, -EINVAL, "no number of a group");
	find_fails("99999999999999999999999", false, -EINVAL, "no number of a user");
	find_fails("65534", false, -EINVAL, "does not know");
	find_fails("nobody", false, -EINVAL, "does not know");
	find_fails("nogroup", true, -EINVAL, "does not know");
}

static void no_names_make_no_list(void **state)
{
	(void)state;
	assert_null(list(&nobody, &nobody));
	assert_null(peers_free(NULL));
}

static void one_wrong_name_spoils_the_list(void **state)
{
	struct peers *p = (struct peers *)8;
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(peers_new(&LIST2("root", "no-such"), &LIST("root"), &p, &f), -ENOENT);
	assert_non_null(strstr(f.message, "--allow-user: there is no user 'no-such'"));
	fault_clear(&f);
	assert_int_equal(peers_new(&LIST("root"), &LIST("no-such"), &p, &f), -ENOENT);
	assert_non_null(strstr(f.message, "--allow-group: there is no group 'no-such'"));
	assert_ptr_equal(p, (struct peers *)8);
}

static void only_the_listed_may(void **state)
{
	struct peers *p;
	char user[16], group[16];
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	(void)snprintf(user, sizeof(user), "%u", OTHER);
	(void)snprintf(group, sizeof(group), "%u", getegid() + 81);
	p = list(&LIST2("77777", user), &LIST(group));
	/* By user, by group, by neither. */
	assert_true(peers_allow(p, fds[0], &(struct ucred){ .uid = OTHER, .gid = 5 }));
	assert_true(peers_allow(p, fds[0], &(struct ucred){ .uid = 77777, .gid = 5 }));
	assert_true(
		peers_allow(p, fds[0], &(struct ucred){ .uid = OTHER + 1, .gid = getegid() + 81 }));
	assert_false(
		peers_allow(p, fds[0], &(struct ucred){ .uid = OTHER + 1, .gid = getegid() + 80 }));
	assert_false(peers_allow(p, fds[0], &(struct ucred){ .uid = (uid_t)-1, .gid = (gid_t)-1 }));
	/* Those who could do worse. */
	assert_true(peers_allow(p, fds[0], &(struct ucred){ .uid = 0, .gid = 5 }));
	assert_true(peers_allow(p, fds[0], &(struct ucred){ .uid = geteuid(), .gid = 5 }));
	p = peers_free(p);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void other_groups_of_the_peer_count(void **state)
{
	gid_t groups[65536];
	int n = getgroups(65536, groups), fds[2];
	struct ucred peer;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(peers_credentials(fds[0], &peer), 0);
	assert_int_equal(peer.pid, getpid());
	assert_int_equal(peer.uid, geteuid());
	assert_true(peers_is_in_group(fds[0], &peer, getegid()));
	assert_false(peers_is_in_group(fds[0], &peer, (gid_t)-1));
	/* A group of nobody's. */
	assert_false(peers_is_in_group(fds[0], &peer, 3999999999u));
	peer.gid = (gid_t)-1;
	assert_false(peers_is_in_group(fds[0], &peer, (gid_t)-1));
	for (int i = 0; i < n; i++)
		assert_true(peers_is_in_group(fds[0], &peer, groups[i]));
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void who_is_no_unix_socket_is_nobody(void **state)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct peers *p = list(&LIST("77777"), &nobody);
	struct ucred peer = { .uid = 0 };

	(void)state;
	/* The kernel answers for every socket. */
	assert_int_equal(peers_credentials(fd, &peer), 0);
	assert_false(peers_allow(p, fd, &peer));
	assert_int_equal(peers_credentials(-1, &peer), -EBADF);
	p = peers_free(p);
	(void)close(fd);
}

/* ---- the socket's file ---- */

static void file_has_the_mode_whatever_the_umask(void **state)
{
	static const mode_t modes[] = { 0600, 0660, 0666, 0602 };
	char dir[] = "/tmp/rbdcrypt-peers.XXXXXX", path[64];
	mode_t old = umask(0077);
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct unix_socket_access access = { modes[i], (uid_t)-1, getegid() };
		struct unix_socket_name name;
		int fd = unix_socket_listen(path, &access, 5, &name);

		assert_true(fd >= 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode, S_IFSOCK | modes[i]);
		assert_int_equal(st.st_gid, getegid());
		/* The next one finds what this one left. */
		(void)close(fd);
	}
	(void)umask(old);
	(void)unlink(path);
	(void)rmdir(dir);
}

static void file_that_cannot_be_given_away_is_not_left(void **state)
{
	struct unix_socket_access access = { 0600, OTHER, (gid_t)-1 };
	struct unix_socket_name name;
	char dir[] = "/tmp/rbdcrypt-peers.XXXXXX", path[64];
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	fd = unix_socket_listen(path, &access, 5, &name);
	if (geteuid() == 0) {
		assert_true(fd >= 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_uid, OTHER);
		(void)close(fd);
		(void)unlink(path);
	} else {
		assert_int_equal(fd, -EPERM);
		assert_int_equal(stat(path, &st), -1);
	}
	(void)rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_numbers_are_found),
		cmocka_unit_test(unknown_names_are_refused),
		cmocka_unit_test(numbers_that_mean_nobody_are_refused),
		cmocka_unit_test(no_names_make_no_list),
		cmocka_unit_test(one_wrong_name_spoils_the_list),
		cmocka_unit_test(only_the_listed_may),
		cmocka_unit_test(other_groups_of_the_peer_count),
		cmocka_unit_test(who_is_no_unix_socket_is_nobody),
		cmocka_unit_test(file_has_the_mode_whatever_the_umask),
		cmocka_unit_test(file_that_cannot_be_given_away_is_not_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
