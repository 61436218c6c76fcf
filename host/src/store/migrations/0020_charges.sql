-- The card that a charge was begun with, until it has ended: whoever takes the charge up again asks with the same one.
ALTER TABLE payments ADD COLUMN sealed_card {bytes};
