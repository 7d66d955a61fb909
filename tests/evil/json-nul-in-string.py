# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A NUL in a string shows one text to C and another to the rest."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["encryption"] = "aes-xts-plain64\0-really"
refuse(h.build(), "EBADMSG", "segment 0: \"encryption\" holds a NUL")
