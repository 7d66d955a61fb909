# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A copy that would end behind the image."""

from luks_image import Luks2, MIB, refuse

h = Luks2()
h.sizes = [4 * MIB, 4 * MIB]
refuse(h.build(), "EINVAL", "the image ends inside its header")
