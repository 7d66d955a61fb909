# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Less than one header."""

from luks_image import Luks1, refuse

h = Luks1()
refuse(h.build()[0:592], "EINVAL", "the image ends inside its header")
