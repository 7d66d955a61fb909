# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A segment that takes part in a reencryption."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["flags"] = ["in-reencryption"]
refuse(h.build(), "ENOTSUP", "segment 0 has flags")
