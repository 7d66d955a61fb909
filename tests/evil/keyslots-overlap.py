# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Two keyslots in one place."""

from luks_image import Luks2, refuse

h = Luks2()
h.add_keyslot(1)["area"]["offset"] = h.slot["area"]["offset"]
refuse(h.build(), "EBADMSG", "keyslots 0 and 1 overlap")
