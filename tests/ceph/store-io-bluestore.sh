#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-io-bluestore.sh: those claims of store-io.sh in which the OSD's store takes part.

STORE=bluestore exec "${BASH_SOURCE[0]%/*}/store-io.sh" default_layout_agrees_with_the_model \
	striped_image_agrees_with_the_model inheriting_clone_agrees_with_the_model \
	trimmed_objects_are_gone zeros_of_four_gibibytes_are_one_request
