# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""32 keyslots, and two of them hold another key."""

from luks_image import KIB, Luks2, MIB, accept

h = Luks2()
h.config["keyslots_size"] = str(8 * MIB + 256 * KIB)
h.segment["offset"] = str(9 * MIB)
h.image_size = 10 * MIB
h.size = 64 * KIB
h.area_offset = 2 * h.size
h.config["json_size"] = str(h.size - 4096)
h.slot["area"]["offset"] = str(h.area_offset)
for n in range(1, 32):
    h.add_keyslot(n, is_bound=n < 30)
accept(h.build())
