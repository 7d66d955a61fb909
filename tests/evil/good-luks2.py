# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The header that the others spoil."""

from luks_image import Luks2, accept

accept(Luks2().build())
