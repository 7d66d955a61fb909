# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
#: make                build the program into $(O)/
#: make demo           see it work, on a private Ceph cluster; installs what it needs
#: make check          every test that this machine can run; installs what it needs
#: make setup          install what the program and its tests need, nothing else
#: make bench          the program beside its peers, in figures; QUICK=1 takes five minutes, else 40
#: make install        the program, its units, udev rules and manual pages, below $(DESTDIR)
#: make uninstall      take them away again
#: make format         lay the C files out as .clang-format has it
#: make clean          remove $(O)/
#
# Everything above the line "nothing to set below" can be set on the command line.

# make has a CC of its own, which "?=" would keep.
ifeq ($(origin CC),default)
CC := gcc
endif
O ?= build
V ?= 0
WERROR ?= no
SANITIZE ?=
PREFIX ?= /usr
BINDIR ?= $(PREFIX)/bin
LIBEXECDIR ?= $(PREFIX)/libexec
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/rbdcrypt-nbd
DESTDIR ?=
CFLAGS ?= -O2 -g

# Where other programs look for what is theirs, they say themselves.
pkg_dir = $(or $(shell pkg-config --variable=$(2) $(1) 2>/dev/null),$(3))
UNITDIR ?= $(call pkg_dir,systemd,systemdsystemunitdir,/usr/lib/systemd/system)
GENERATORDIR ?= $(call pkg_dir,systemd,systemdsystemgeneratordir,/usr/lib/systemd/system-generators)
SYSUSERSDIR ?= $(call pkg_dir,systemd,sysusersdir,/usr/lib/sysusers.d)
TMPFILESDIR ?= $(call pkg_dir,systemd,tmpfilesdir,/usr/lib/tmpfiles.d)
CATALOGDIR ?= $(call pkg_dir,systemd,catalogdir,/usr/lib/systemd/catalog)
UDEVDIR ?= $(call pkg_dir,udev,udevdir,/usr/lib/udev)
COMPLETIONDIR ?= $(call pkg_dir,bash-completion,completionsdir,$(PREFIX)/share/bash-completion/completions)
VERSION := $(shell sed -n 's/^\#\# \([0-9][^ ]*\).*/\1/p' NEWS.md 2>/dev/null | head -n 1)

# ---- nothing to set below ----

PKGS := libnl-3.0 libnl-genl-3.0 libcryptsetup libcrypto libudev blkid mount json-c libseccomp libsystemd
FOLDERS := daemon crypto nbd rbd
PROGRAM := $(O)/rbdcrypt-nbd
# Small programs for systemd and udev, which link no Ceph, and what they share.
GENERATOR := $(O)/rbdcrypt-generator
UDEV_HELPER := $(O)/rbdcrypt-udev
# A script.
STOP := $(O)/systemd/stop

# These install the libraries first and then call make again, or need none.
GOALS_WITHOUT_LIBRARIES := bench check check-% clean demo format fuzz help lint setup uninstall
ifneq ($(filter-out $(GOALS_WITHOUT_LIBRARIES),$(or $(MAKECMDGOALS),all)),)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
ifeq ($(PKG_LIBS),)
$(error Libraries are missing: "pkg-config --exists --print-errors $(PKGS)" says which. \
	"make setup" installs them on Debian)
endif
endif

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wpointer-arith -Wwrite-strings -Wcast-qual -Wundef -Wformat=2 -Wvla -Winit-self \
	-Wredundant-decls -Wnested-externs -Wunused -Wno-unused-parameter -Wno-missing-field-initializers
IS_CLANG := $(shell $(CC) --version 2>/dev/null | grep -c clang)
ifeq ($(IS_CLANG),0)
WARN += -Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wjump-misses-init -Wimplicit-fallthrough=5
else
WARN += -Wimplicit-fallthrough -Wthread-safety
endif
ifeq ($(WERROR),yes)
WARN += -Werror
endif

ARCH := $(shell $(CC) -dumpmachine 2>/dev/null)
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection -fno-strict-overflow
ifneq ($(filter x86_64%,$(ARCH)),)
HARDEN += -fcf-protection
endif
HARDEN_LD := -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed
ifeq ($(SANITIZE),)
# _FORTIFY_SOURCE and the sanitizers' interceptors disturb each other.
HARDEN += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
else
HARDEN += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
HARDEN_LD += -fsanitize=$(SANITIZE)
endif

ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Iinclude $(WARN) $(HARDEN) \
	-ffile-prefix-map=$(CURDIR)/= -pthread $(PKG_CFLAGS) $(CFLAGS) $(CPPFLAGS)
ALL_LDFLAGS = $(HARDEN_LD) -pthread $(LDFLAGS)
LIBS = -lrbd -lrados $(PKG_LIBS)

SRC := $(sort $(foreach d,$(FOLDERS),$(wildcard $(d)/*.c)))
OBJ := $(SRC:%.c=$(O)/%.o)
SYSTEMDSRC := $(sort $(wildcard systemd/*.c))
SYSTEMDOBJ := $(SYSTEMDSRC:%.c=$(O)/%.o)
SYSTEMDMAIN := $(O)/systemd/generator.o $(O)/systemd/udev_names.o
LIBOBJ := $(filter-out $(O)/daemon/main.o,$(OBJ)) $(filter-out $(SYSTEMDMAIN),$(SYSTEMDOBJ))
# Test support that is linked into every unit and component test: tests/support/*.c
SUPPORT := $(sort $(wildcard tests/support/*.c))
SUPPORTOBJ := $(SUPPORT:%.c=$(O)/%.o)
TESTSRC := $(sort $(wildcard tests/unit/*.c tests/component/*.c))
TESTBIN := $(TESTSRC:%.c=$(O)/%)
# Programs that measure.
BENCHSRC := $(sort $(wildcard bench/*.c))
BENCHBIN := $(BENCHSRC:%.c=$(O)/%)

CFILES := $(sort $(wildcard $(FOLDERS:%=%/*.[ch]) systemd/*.[ch] include/*.h bench/*.[ch] tests/*/*.[ch]))
MANPAGES := $(sort $(wildcard man/*.[578]))
DOCS := README.md NEWS.md LICENSE
EXAMPLES := $(sort $(wildcard systemd/examples/*))

# Units: as they are, or with our paths and what all services have in common put in.
UNITS_IN := $(sort $(wildcard systemd/*.service.in))
UNITS := $(sort $(wildcard systemd/*.service systemd/*.target systemd/*.path systemd/*.socket)) \
	$(UNITS_IN:%.in=$(O)/%)
# What the units and the generator give to "map".
MAP_OPTIONS := --foreground --resume --reattach-timeout 300
COMPLETION := $(O)/rbdcrypt-nbd.bash
# What make install puts where: FILE:TARGET:MODE
INSTALLED = $(PROGRAM):$(BINDIR)/rbdcrypt-nbd:755 \
	$(foreach f,$(MANPAGES),$(f):$(MANDIR)/man$(subst .,,$(suffix $(f)))/$(notdir $(f)):644) \
	$(foreach f,$(DOCS),$(f):$(DOCDIR)/$(f):644) \
	$(foreach f,$(EXAMPLES),$(f):$(DOCDIR)/examples/$(notdir $(f)):644) \
	$(foreach f,$(UNITS),$(f):$(UNITDIR)/$(notdir $(f)):644) \
	$(STOP):$(LIBEXECDIR)/rbdcrypt-stop:755 \
	$(GENERATOR):$(GENERATORDIR)/rbdcrypt-generator:755 \
	$(UDEV_HELPER):$(UDEVDIR)/rbdcrypt-udev:755 \
	systemd/65-rbdcrypt.rules:$(UDEVDIR)/rules.d/65-rbdcrypt.rules:644 \
	systemd/sysusers.conf:$(SYSUSERSDIR)/rbdcrypt-nbd.conf:644 \
	systemd/tmpfiles.conf:$(TMPFILESDIR)/rbdcrypt-nbd.conf:644 \
	systemd/rbdcrypt-nbd.catalog:$(CATALOGDIR)/rbdcrypt-nbd.catalog:644 \
	$(COMPLETION):$(COMPLETIONDIR)/rbdcrypt-nbd:644

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s%s\n'
endif

.PHONY: all clean install uninstall help format tests setup
all: $(PROGRAM) $(GENERATOR) $(UDEV_HELPER) $(STOP) $(UNITS) $(COMPLETION)

$(PROGRAM): $(OBJ)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(O)/librbdcrypt.a: $(LIBOBJ)
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(GENERATOR): $(O)/systemd/generator.o $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^

$(UDEV_HELPER): $(O)/systemd/udev_names.o $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -ljson-c

$(O)/systemd/generator.o: $(O)/paths
# Private: what it depends on, the flags of all objects, is made without it.
$(O)/systemd/generator.o: private ALL_CFLAGS += -DUNITDIR='"$(UNITDIR)"' -DBINDIR='"$(BINDIR)"' \
	-DMAP_OPTIONS='"$(MAP_OPTIONS)"'

$(STOP) $(UNITS_IN:%.in=$(O)/%): $(O)/%: %.in systemd/hardening.conf $(O)/paths
	$(say) GEN $@
	$(Q)mkdir -p $(@D)
	$(Q)sed -e '/@HARDENING@/{r systemd/hardening.conf' -e 'd}' -e 's|@BINDIR@|$(BINDIR)|g' \
		-e 's|@LIBEXECDIR@|$(LIBEXECDIR)|g' -e 's|@MAP_OPTIONS@|$(MAP_OPTIONS)|g' $< >$@

$(COMPLETION): $(PROGRAM)
	$(say) GEN $@
	$(Q)$(PROGRAM) --dump-completion >$@.new && mv $@.new $@

$(O)/%.o: %.c $(O)/flags
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(if $(filter tests/%,$<),-Itests/support) -MMD -MP -c -o $@ $<

# A file that is newer than what was made with other words.
define remember
	$(Q)mkdir -p $(@D)
	$(Q)printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' >$@
endef
# Objects are rebuilt when the compiler or its flags change, units when they are to go elsewhere.
$(O)/flags: FORCE
	$(call remember,$(CC) $(ALL_CFLAGS))
$(O)/paths: FORCE
	$(call remember,$(BINDIR) $(LIBEXECDIR) $(UNITDIR) $(MAP_OPTIONS))
.PHONY: FORCE
FORCE:

$(TESTBIN): $(O)/%: $(O)/%.o $(SUPPORTOBJ) $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(SUPPORTOBJ) $(O)/librbdcrypt.a $(LIBS) -lcmocka

$(BENCHBIN): $(O)/%: $(O)/%.o $(O)/librbdcrypt.a
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(O)/librbdcrypt.a $(LIBS)

tests: $(TESTBIN)

install: all
	$(say) INSTALL '$(DESTDIR)$(BINDIR)/rbdcrypt-nbd'
	$(Q)set -e; for file in $(INSTALLED); do \
		to=$${file#*:}; mode=$${to##*:}; \
		install -D -m $$mode "$${file%%:*}" "$(DESTDIR)$${to%:*}"; \
	done
	$(Q)install -d '$(DESTDIR)/etc/rbdcrypt/rbdcrypttab.d'

uninstall:
	$(say) REMOVE '$(DESTDIR)$(BINDIR)/rbdcrypt-nbd'
	$(Q)for file in $(INSTALLED); do to=$${file#*:}; rm -f "$(DESTDIR)$${to%:*}"; done
	$(Q)rmdir '$(DESTDIR)$(DOCDIR)/examples' '$(DESTDIR)$(DOCDIR)' 2>/dev/null || true
	$(Q)rmdir '$(DESTDIR)/etc/rbdcrypt/rbdcrypttab.d' '$(DESTDIR)/etc/rbdcrypt' 2>/dev/null || true

format:
	$(Q)clang-format-14 -i $(CFILES)

help:
	$(Q)sed -n 's/^#: //p' Makefile tests/tests.mk

clean:
	$(Q)rm -rf $(O)

-include $(OBJ:.o=.d) $(SYSTEMDOBJ:.o=.d) $(SUPPORTOBJ:.o=.d) $(TESTSRC:%.c=$(O)/%.d) \
	$(BENCHSRC:%.c=$(O)/%.d)

include tests/tests.mk
