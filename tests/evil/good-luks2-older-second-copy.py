# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A write that was interrupted between the copies."""

from luks_image import Luks2, accept, older_copy

def change(json):
    json["segments"]["0"]["sector_size"] = 512


accept(older_copy(Luks2(), change))
