# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The image ends inside the first copy."""

from luks_image import Luks2, refuse

h = Luks2()
refuse(h.build()[0:8192], "EINVAL", "the image ends inside its header")
