# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The targets that prove something. Included by the Makefile. See tests/README.md.
#
# A test is a C file in tests/unit or tests/component, or an executable shell script in one of
# the folders below. A C file in those is a program that the scripts there use.
#
#: make check-fast     unit and component tests: no root, no Ceph, no kernel; seconds
#: make check-asan     the same and those on the socket, under ASan and UBSan
#: make check-tsan     the same under TSan
#: make check-ceph     those that need the private Ceph cluster
#: make check-interop  those that compare with cryptsetup, QEMU and librbd
#: make check-kernel   those on a real nbd driver, in a kernel that is a process
#: make lint           what can be said about the files and the program without running it
#: make fuzz RUN=20    each fuzzer for that many seconds
#: make help           this list
#:
#: Variables: O=build CC=gcc V=1 WERROR=yes SANITIZE=address,undefined DESTDIR= PREFIX=/usr

# Seconds that each fuzzer runs.
RUN ?= 20
# A file that collects the results of several targets, for tests/run --summary.
RESULTS ?= $(O)/results

SCRIPT_FOLDERS := lint man io bad interop ceph kernel
TOOLSRC := $(sort $(wildcard $(SCRIPT_FOLDERS:%=tests/%/*.c)))
TOOLBIN := $(TOOLSRC:%.c=$(O)/%)
FUZZSRC := $(sort $(wildcard tests/fuzz/*.c))
FUZZBIN := $(FUZZSRC:%.c=$(O)/%)
-include $(TOOLSRC:%.c=$(O)/%.d) $(FUZZSRC:%.c=$(O)/%.d)

scripts = $(sort $(shell find $(1:%=tests/%) -maxdepth 1 -type f -perm -u+x \
	-exec grep -lE '^.!.*sh$$' {} + 2>/dev/null))
programs = $(filter $(1:%=$(O)/tests/%/%),$(TESTBIN))
run = O='$(abspath $(O))' RBDCRYPT_NBD='$(abspath $(PROGRAM))' CC='$(CC)' SANITIZE='$(SANITIZE)' \
	tests/run --logs '$(O)/logs' --results '$(RESULTS)'
# Each asks for what it needs and goes on without what it cannot have, except a compiler.
setup = tests/lib/packages.sh build && tests/lib/packages.sh $(1) || tests/lib/packages.sh build
again = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: bench .bench objects
.PHONY: check check-fast check-asan check-tsan check-kernel check-ceph check-interop lint fuzz demo
.PHONY: .demo .check .check-fast .check-kernel .check-ceph .check-interop .lint .fuzz .fuzzers .sanitized

# To see what the compiler says.
objects: $(OBJ) $(SYSTEMDOBJ) $(SUPPORTOBJ) $(TESTSRC:%.c=$(O)/%.o) $(TOOLSRC:%.c=$(O)/%.o) \
	$(FUZZSRC:%.c=$(O)/%.o) $(BENCHSRC:%.c=$(O)/%.o)

setup:
	$(Q)tests/lib/packages.sh build test kernel lint

demo:
	$(Q)$(call setup,build test kernel)
	$(Q)$(again) .demo
.demo: $(PROGRAM)
	$(Q)RBDCRYPT_NBD='$(abspath $(PROGRAM))' tests/demo.sh

# QUICK=1: less of everything. BENCH: options of bench/bench.py.
bench:
	$(Q)$(call setup,build test kernel bench)
	$(Q)$(again) .bench
.bench: $(PROGRAM) $(BENCHBIN)
	$(Q)bench/run --program '$(PROGRAM)' --xts '$(O)/bench/xts' \
		--workers '$(O)/bench/workers' --output '$(O)/bench-results' \
		$(if $(QUICK),--quick) $(BENCH)

check:
	$(Q)$(call setup,build test kernel lint)
	$(Q)$(again) .check
check-fast:
	$(Q)$(call setup,build test)
	$(Q)$(again) .check-fast
check-kernel check-ceph check-interop:
	$(Q)$(call setup,build test kernel)
	$(Q)$(again) .$@
lint:
	$(Q)$(call setup,build test lint)
	$(Q)$(again) .lint
check-asan:
	$(Q)$(call setup,build test)
	$(Q)ASAN_OPTIONS=$(ASAN) UBSAN_OPTIONS=$(UBSAN) $(again) .sanitized LABEL=asan \
		SANITIZE=address,undefined O='$(O)/asan' RESULTS='$(abspath $(RESULTS))'
check-tsan:
	$(Q)$(call setup,build test lint)
	$(Q)TSAN_OPTIONS=$(TSAN) $(again) .sanitized LABEL=tsan \
		SANITIZE=thread CC=clang O='$(O)/tsan' RESULTS='$(abspath $(RESULTS))'
fuzz:
	$(Q)$(call setup,build test lint)
	$(Q)$(again) .fuzz CC=clang O='$(O)/fuzz' RESULTS='$(abspath $(RESULTS))'

ASAN := abort_on_error=0:exitcode=99:detect_leaks=1
UBSAN := print_stacktrace=1
# The slowest of those that have one thread only: nothing for TSan to find.
WITHOUT_THREADS := $(addprefix $(O)/tests/unit/,luks luks_evil rados_write)
TSAN := exitcode=99:halt_on_error=1:second_deadlock_stack=1

.check: all $(TESTBIN) $(TOOLBIN)
	$(Q)$(run) $(TESTBIN) $(call scripts,$(SCRIPT_FOLDERS))
.check-fast: all $(TESTBIN)
	$(Q)$(run) $(TESTBIN)
.check-kernel .check-ceph .check-interop: all $(TESTBIN) $(TOOLBIN)
	$(Q)$(run) $(call scripts,$(@:.check-%=%))
.lint: all
	$(Q)$(run) $(call scripts,lint)
# Where everything is slower, and what only looks at files has nothing to see.
.sanitized: all $(TESTBIN) $(TOOLBIN)
	$(Q)$(run) --label $(LABEL) --slower 3 \
		$(filter-out $(if $(filter thread,$(SANITIZE)),$(WITHOUT_THREADS)),$(TESTBIN)) \
		$(call scripts,io bad)

.fuzz:
	$(Q)$(again) .fuzzers SANITIZE=fuzzer-no-link,address,undefined
.fuzzers: $(FUZZBIN)
	$(Q)RUN=$(RUN) $(run) --label smoke --with tests/fuzz/smoke $(FUZZBIN)

$(FUZZBIN): $(O)/%: $(O)/%.o $(SUPPORTOBJ) $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(SUPPORTOBJ) \
		$(O)/librbdcrypt.a $(LIBS) -lcmocka

$(TOOLBIN): $(O)/%: $(O)/%.o $(SUPPORTOBJ) $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(SUPPORTOBJ) $(O)/librbdcrypt.a $(LIBS) -lcmocka
