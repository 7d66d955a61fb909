# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Names that are not strings name nothing."""

from luks_image import Luks2, refuse

h = Luks2()
h.digest["segments"] = [0]
refuse(h.build(), "EBADMSG", "no digest for segment 0")
