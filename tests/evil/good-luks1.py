# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The LUKS1 header that the others spoil."""

from luks_image import Luks1, accept

accept(Luks1().build())
