# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The JSON area says another size than the header."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["json_size"] = "4096"
refuse(h.build(), "EBADMSG", "\"json_size\" does not match the header")
