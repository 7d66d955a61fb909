/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Key sources: specifiers, command lines, programs, sockets, credentials, the keyring. */

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/key.h"

static char folder[64];

static struct key_place place(void)
{
	return (struct key_place){ .pool = "rbd",
				   .nspace = "tenant",
				   .image = "vol",
				   .snap = "s1",
				   .cookie = "f1/2/10ab",
				   .fsid = "f1",
				   .layer = 2 };
}

static int enter(void **state)
{
	(void)snprintf(folder, sizeof(folder), "/tmp/rbdcrypt-key-XXXXXX");
	(void)unsetenv("CREDENTIALS_DIRECTORY");
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
	return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static void write_text(const char *name, const char *text, mode_t mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
}

/* ---- specifiers ---- */

static void expect_resolved(const char *source, const struct key_place *p, const char *expected)
{
	struct fault f = { 0 };
	char *resolved = NULL;

	if (key_resolve(source, p, &resolved, &f) < 0)
		fail_msg("%s: %s", source, f.message);
	assert_string_equal(resolved, expected);
	free(resolved);
}

static void expect_unresolved(const char *source, const struct key_place *p, int error,
			      enum exit_status status, const char *words)
{
	struct fault f = { 0 };
	char *resolved = NULL;

	assert_int_equal(key_resolve(source, p, &resolved, &f), error);
	assert_null(resolved);
	assert_int_equal(f.status, status);
	if (!strstr(f.message, words))
		fail_msg("%s", f.message);
}

static void one_line_serves_every_volume(void **state)
{
	struct key_place p = place();

	expect_resolved("/keys/%p/%n/%i@%s.%l", &p, "/keys/rbd/tenant/vol@s1.2");
	expect_resolved("/keys/%f/%c", &p, "/keys/f1/f1/2/10ab");
	expect_resolved("100%%", &p, "100%");
	expect_resolved("-", &p, "-");
	expect_resolved("cred:%i", &p, "cred:vol");
	expect_resolved("keyring:rbdcrypt:%p/%i", &p, "keyring:rbdcrypt:rbd/vol");
	expect_resolved("keyring:%user:%i", &p, "keyring:%user:vol");
	/* A file has no pool, and is named by its last part. */
	p = (struct key_place){ .pool = "",
				.nspace = "",
				.image = "/srv/disk.luks",
				.snap = "",
				.cookie = "",
				.fsid = "",
				.layer = 1 };
	expect_resolved("/keys/%i", &p, "/keys/disk.luks");
}

static void what_a_specifier_stands_for_cannot_lead_elsewhere(void **state)
{
	struct key_place p = place();

	p.image = "..";
	expect_unresolved("/keys/%i/key", &p, -EINVAL, EXIT_USAGE, "'..' cannot stand for %i");
	p.image = "vol";
	p.cookie = "a/../../etc/shadow";
	expect_unresolved("/keys/%c", &p, -EINVAL, EXIT_USAGE, "cannot stand for %c");
	p.nspace = "a/b";
	expect_unresolved("exec:/bin/cat %n", &p, -EINVAL, EXIT_USAGE, "cannot stand for %n");
	p = place();
	expect_unresolved("/keys/%x", &p, -EINVAL, EXIT_USAGE, "/keys/%x: %x is no specifier");
	expect_unresolved("/keys/%", &p, -EINVAL, EXIT_USAGE, "ends with a percent sign");
}

static void words_of_a_command_stay_apart_whatever_is_put_into_them(void **state)
{
	struct key_place p = place();

	p.image = "a b'; rm \"x\\y";
	expect_resolved("exec:/bin/get 'two words' \"%p %l\" three\\ words %i", &p,
			"exec:/bin/get 'two words' 'rbd 2' 'three words' 'a b'\\''; rm \"x\\y'");
	p = place();
	expect_resolved("exec: /bin/get  a\t''", &p, "exec:/bin/get a ''");
	expect_unresolved("exec:/bin/get 'open", &p, -EINVAL, EXIT_USAGE, "a quote is not closed");
	expect_unresolved("exec:get", &p, -EINVAL, EXIT_USAGE, "no absolute path");
	expect_unresolved("exec:", &p, -EINVAL, EXIT_USAGE, "no absolute path");
}

static void paths_become_absolute_and_nothing_else_does(void **state)
{
	static const char *const same[] = { "-",	 "/key",    "fd:3",	"cred:a", "ask:a",
					    "exec:/a b", "unix:/a", "default:", "none",	  "unix:" };
	char expected[128], *source;

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		source = strdup(same[i]);
		assert_int_equal(key_make_absolute(&source), 0);
		assert_string_equal(source, same[i]);
		free(source);
	}
	source = strdup("unix:sock");
	assert_int_equal(key_make_absolute(&source), 0);
	(void)snprintf(expected, sizeof(expected), "unix:%s/sock", folder);
	assert_string_equal(source, expected);
	free(source);
	source = strdup("key");
	assert_int_equal(key_make_absolute(&source), 0);
	(void)snprintf(expected, sizeof(expected), "%s/key", folder);
	assert_string_equal(source, expected);
	free(source);
}

static void a_percent_sign_in_the_folder_is_no_specifier(void **state)
{
	struct key_place p = place();
	char expected[128], *source = strdup("%i.key");

	assert_int_equal(mkdir("50%i%", 0700), 0);
	assert_int_equal(chdir("50%i%"), 0);
	assert_int_equal(key_make_absolute(&source), 0);
	assert_int_equal(chdir(folder), 0);
	(void)snprintf(expected, sizeof(expected), "%s/50%%i%%/%s.key", folder, p.image);
	expect_resolved(source, &p, expected);
	free(source);
	assert_int_equal(rmdir("50%i%"), 0);
}

static void some_sources_can_be_read_only_once(void **state)
{
	assert_int_equal(key_repeat("-"), KEY_ONCE);
	assert_int_equal(key_repeat("fd:3"), KEY_ONCE);
	assert_int_equal(key_repeat("ask:"), KEY_ASKS);
	assert_int_equal(key_repeat("/key"), KEY_REPEATS);
	assert_int_equal(key_repeat("cred:a"), KEY_REPEATS);
	assert_int_equal(key_repeat("default:"), KEY_REPEATS);
	assert_int_equal(key_repeat("/dev/fd/63"), KEY_ONCE);
	assert_int_equal(key_repeat("/proc/self/fd/0"), KEY_ONCE);
	assert_int_equal(key_repeat("/dev/null"), KEY_ONCE);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(key_repeat("fifo"), KEY_ONCE);
	assert_int_equal(unlink("fifo"), 0);
}

/* Before the C library's: a file system in the network that does not answer. */
int access(const char *path, int mode)
{
	if (strcmp(path, "/away/key") != 0)
		return faccessat(AT_FDCWD, path, mode, 0);
	errno = ETIMEDOUT;
	return -1;
}

static void expect_checked(const char *source, int error, const char *words)
{
	const struct key_options o = { .timeout_s = 0 };
	struct fault f = { 0 };

	assert_int_equal(key_check(source, &o, &f), error);
	assert_int_equal(f.status, error ? EXIT_PASSPHRASE : EXIT_OK);
	if (!strstr(f.message, words))
		fail_msg("%s: %s", source, f.message);
}

static void what_leads_nowhere_is_seen_without_reading(void **state)
{
	static const char *const fine[] = { "/dev/null", "exec:/bin/false", "-",	   "fd:99",
					    "ask:",	 "cred:none",	    "keyring:none" };

	expect_checked("/none/such", -ENOENT, "passphrase file /none/such: No such file");
	expect_checked("unix:/none/such", -ENOENT, "source unix:/none/such: No such file");
	expect_checked("exec:/none/such %p", -ENOENT, "cannot run /none/such: No such file");
	expect_checked("exec:/etc/passwd", -EACCES, "cannot run /etc/passwd: Permission denied");
	expect_checked("/etc", -EISDIR, "cannot read passphrase file /etc: Is a directory");
	expect_checked("/etc/passwd", -EPERM, "/etc/passwd has mode 0644: others can read it");
	expect_checked("/away/key", -ETIMEDOUT,
		       "cannot read passphrase file /away/key: Connection timed out");
	/* Nothing is said of what only reading can tell. */
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		expect_checked(fine[i], 0, "");
}

/* ---- reading ---- */

static int read_within(const char *source, unsigned int timeout_s, struct secret **ret,
		       struct fault *f)
{
	const struct key_place p = place();
	const struct key_options o = { .timeout_s = timeout_s };

	return key_read(source, &p, &o, ret, f);
}

static void expect_key(const char *source, const char *expected)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	if (read_within(source, 10, &s, &f) < 0)
		fail_msg("%s: %s", source, f.message);
	assert_int_equal(secret_len(s), strlen(expected));
	assert_memory_equal(secret_bytes(s), expected, strlen(expected));
	secret_free(s);
}

static void expect_no_key(const char *source, int error, enum exit_status status, const char *words)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	assert_int_equal(read_within(source, error == -ETIMEDOUT ? 2 : 30, &s, &f), error);
	assert_null(s);
	assert_int_equal(f.status, status);
	if (!strstr(f.message, words))
		fail_msg("%s: %s", source, f.message);
}

/* The program "get" in the folder of the test; from there it could not be found by a short path. */
static const char *get_source(void)
{
	static char source[128];

	(void)snprintf(source, sizeof(source), "exec:%s/get", folder);
	return source;
}

static void a_program_is_run_without_a_shell(void **state)
{
	expect_key("exec:/bin/echo -n $HOME '*' \"a  b\"", "$HOME * a  b");
	write_text("get", "#!/bin/sh\nls /proc/self/fd | wc -l; cat; echo warned >&2\n", 0700);
	/* Its three, and the folder that ls reads: nothing of ours, and no input. */
	expect_key(get_source(), "4\n");
	/* Where the daemon will be when it asks again. */
	write_text("get", "#!/bin/sh\npwd\n", 0700);
	expect_key(get_source(), "/\n");
	assert_int_equal(unlink("get"), 0);
}

static void a_program_that_fails_is_quoted(void **state)
{
	write_text("get", "#!/bin/sh\nprintf key\necho 'vault is\nsealed' >&2\nexit 3\n", 0700);
	expect_no_key(get_source(), -EREMOTEIO, EXIT_PASSPHRASE,
		      "get ended with exit status 3: vault is sealed");
	write_text("get", "#!/bin/sh\nkill -9 $$\n", 0700);
	expect_no_key(get_source(), -EREMOTEIO, EXIT_PASSPHRASE, "died of signal 9");
	assert_int_equal(unlink("get"), 0);
	expect_no_key("exec:/none/such", -ENOENT, EXIT_PASSPHRASE,
		      "cannot run /none/such: No such file");
	expect_no_key("exec:/bin/true", -ENODATA, EXIT_PASSPHRASE, "exec:/bin/true is empty");
	expect_no_key("exec:/bin/cat /dev/zero", -EFBIG, EXIT_PASSPHRASE, "larger than 8 MiB");
	expect_no_key("exec:'", -EINVAL, EXIT_USAGE, "a quote is not closed");
}

static void a_program_that_hangs_is_ended_with_its_children(void **state)
{
	char pid[32] = "";
	FILE *file;

	write_text("get", "#!/bin/sh\nsleep 600 &\necho $! >\"${0%/*}/child\"\nwait\n", 0700);
	expect_no_key(get_source(), -ETIMEDOUT, EXIT_TIMED_OUT, "gave nothing in 2 seconds");
	file = fopen("child", "re");
	assert_non_null(file);
	assert_non_null(fgets(pid, sizeof(pid), file));
	(void)fclose(file);
	/* Killed; whoever adopted it may still have to take note. */
	for (int i = 0; i < 500; i++) {
		char path[64], state_line[256] = "";
		const char *end;

		(void)snprintf(path, sizeof(path), "/proc/%d/stat", atoi(pid));
		file = fopen(path, "re");
		if (file) {
			(void)!fgets(state_line, sizeof(state_line), file);
			(void)fclose(file);
		}
		end = strrchr(state_line, ')');
		if (!end || end[2] == 'Z' || end[2] == 'X')
			break;
		assert_true(i < 499);
		(void)usleep(10000);
	}
	assert_int_equal(unlink("get"), 0);
	assert_int_equal(unlink("child"), 0);
}

/* Answers one client with who it says it is. */
static void *serve_once(void *arg)
{
	int fd = *(int *)arg, client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	struct sockaddr_un from = { 0 };
	socklen_t len = sizeof(from);
	const char *name;

	if (client < 0)
		return NULL;
	if (getpeername(client, (struct sockaddr *)&from, &len) == 0) {
		/* NUL, 16 digits, then what is asked for */
		name = from.sun_path + 17;
		(void)!write(client, name, len - offsetof(struct sockaddr_un, sun_path) - 17);
	}
	(void)close(client);
	return NULL;
}

static void a_socket_is_told_which_key_is_wanted(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX, .sun_path = "sock" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_t thread;
	static const char *const sources[] = { "unix:sock", "sock" };

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 1), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&thread, NULL, serve_once, &fd), 0);
		expect_key(sources[i], "/rbdcrypt-nbd/2/rbd/tenant/vol@s1");
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
	/* It accepts nobody: the kernel holds one, and then lets them wait. */
	expect_no_key("unix:sock", -ETIMEDOUT, EXIT_TIMED_OUT, "gave nothing");
	expect_no_key("unix:sock", -ETIMEDOUT, EXIT_TIMED_OUT, "gave nothing");
	expect_no_key("unix:sock", -ETIMEDOUT, EXIT_TIMED_OUT, "gave nothing");
	(void)close(fd);
	expect_no_key("unix:sock", -ECONNREFUSED, EXIT_PASSPHRASE, "Connection refused");
	assert_int_equal(unlink("sock"), 0);
	expect_no_key("unix:sock", -ENOENT, EXIT_PASSPHRASE, "No such file");
	expect_no_key("unix:", -EINVAL, EXIT_USAGE, "a socket's path has 1 to 107 bytes");
}

static void credentials_are_found_by_name(void **state)
{
	expect_no_key("cred:vol", -ENOENT, EXIT_PASSPHRASE, "systemd has passed us none");
	write_text("vol", "from systemd", 0400);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
	expect_key("cred:vol", "from systemd");
	expect_no_key("cred:other", -ENOENT, EXIT_PASSPHRASE, "there is no credential other");
	expect_no_key("cred:../vol", -EINVAL, EXIT_USAGE, "is no name of a credential");
	expect_no_key("cred:", -EINVAL, EXIT_USAGE, "is no name of a credential");
	expect_no_key("cred:..", -EINVAL, EXIT_USAGE, "is no name of a credential");
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	assert_int_equal(unlink("vol"), 0);
}

static void the_kernel_keyring_is_read(void **state)
{
	long id = syscall(SYS_add_key, "user", "rbdcrypt-test", "in the keyring", 14,
			  KEY_SPEC_PROCESS_KEYRING);

	if (id < 0)
		skip();
	expect_key("keyring:rbdcrypt-test", "in the keyring");
	expect_key("keyring:%user:rbdcrypt-test", "in the keyring");
	expect_no_key("keyring:rbdcrypt-none", -ENOKEY, EXIT_PASSPHRASE, "there is no such key");
	expect_no_key("keyring:", -EINVAL, EXIT_USAGE, "no description of a key");
	expect_no_key("keyring:%logon:x", -EINVAL, EXIT_USAGE, "no description of a key");
}

static bool yes(void *arg)
{
	return true;
}

static void waiting_ends_when_the_user_wants_it(void **state)
{
	const struct key_place p = place();
	const struct interrupt raised = { yes, NULL };
	const struct key_options o = { .interrupt = &raised };
	struct secret *s = NULL;
	struct fault f = { 0 };

	assert_int_equal(key_read("exec:/bin/sleep 600", &p, &o, &s, &f), -EINTR);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_null(s);
}

/* ---- defaults ---- */

static void expect_default(const struct key_place *p, const char *expected)
{
	char *found = NULL, path[256];
	int r = key_default(folder, p, &found);

	if (!expected) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	assert_int_equal(r, 0);
	(void)snprintf(path, sizeof(path), "%s%s", expected[0] == '/' ? folder : "", expected);
	assert_string_equal(found, path);
	free(found);
}

static void defaults_are_looked_up_in_their_order(void **state)
{
	static const char *const folders[] = { "etc",
					       "etc/rbdcrypt-keys.d",
					       "etc/rbdcrypt-keys.d/rbd",
					       "etc/rbdcrypt-keys.d/rbd/tenant",
					       "run",
					       "run/rbdcrypt-keys.d",
					       "run/rbdcrypt-keys.d/rbd" };
	const int n = sizeof(folders) / sizeof(folders[0]);
	struct key_place p = place(), plain = place(), file = place();

	plain.nspace = "";
	file.pool = file.nspace = "";
	for (int i = 0; i < n; i++)
		assert_int_equal(mkdir(folders[i], 0700), 0);
	expect_default(&p, NULL);
	write_text("run/rbdcrypt-keys.d/rbd/vol.key", "x", 0600);
	expect_default(&plain, "/run/rbdcrypt-keys.d/rbd/vol.key");
	expect_default(&p, NULL);
	write_text("etc/rbdcrypt-keys.d/rbd/vol.key", "x", 0600);
	write_text("etc/rbdcrypt-keys.d/rbd/tenant/vol.key", "x", 0600);
	expect_default(&plain, "/etc/rbdcrypt-keys.d/rbd/vol.key");
	expect_default(&p, "/etc/rbdcrypt-keys.d/rbd/tenant/vol.key");
	expect_default(&file, NULL);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
	write_text("rbdcrypt.passphrase", "x", 0600);
	expect_default(&p, "cred:rbdcrypt.passphrase");
	expect_default(&file, "cred:rbdcrypt.passphrase");
	write_text("rbdcrypt.passphrase.2", "x", 0600);
	expect_default(&p, "cred:rbdcrypt.passphrase.2");
	expect_resolved("default:", &p, "cred:rbdcrypt.passphrase.2");
	p.layer = 1;
	expect_default(&p, "cred:rbdcrypt.passphrase");
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	p.pool = "no-such-pool-anywhere";
	expect_unresolved("default:", &p, -ENOENT, EXIT_PASSPHRASE, "there is no default");
	(void)unlink("rbdcrypt.passphrase");
	(void)unlink("rbdcrypt.passphrase.2");
	(void)unlink("run/rbdcrypt-keys.d/rbd/vol.key");
	(void)unlink("etc/rbdcrypt-keys.d/rbd/vol.key");
	(void)unlink("etc/rbdcrypt-keys.d/rbd/tenant/vol.key");
	for (int i = n; i-- > 0;)
		assert_int_equal(rmdir(folders[i]), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_line_serves_every_volume),
		TEST(what_a_specifier_stands_for_cannot_lead_elsewhere),
		TEST(words_of_a_command_stay_apart_whatever_is_put_into_them),
		TEST(paths_become_absolute_and_nothing_else_does),
		TEST(a_percent_sign_in_the_folder_is_no_specifier),
		TEST(some_sources_can_be_read_only_once),
		TEST(what_leads_nowhere_is_seen_without_reading),
		TEST(a_program_is_run_without_a_shell),
		TEST(a_program_that_fails_is_quoted),
		TEST(a_program_that_hangs_is_ended_with_its_children),
		TEST(a_socket_is_told_which_key_is_wanted),
		TEST(credentials_are_found_by_name),
		TEST(the_kernel_keyring_is_read),
		TEST(waiting_ends_when_the_user_wants_it),
		TEST(defaults_are_looked_up_in_their_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
