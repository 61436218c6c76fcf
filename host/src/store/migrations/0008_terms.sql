-- Terms of firewall packages that end unpaid.

-- The scheduler has something to do at look_at; unpaid_since says that it suspended the package.
ALTER TABLE licenses ADD COLUMN look_at BIGINT;
ALTER TABLE licenses ADD COLUMN unpaid_since BIGINT;
UPDATE licenses SET look_at = due_at WHERE state = 'active';
CREATE INDEX licenses_look_at ON licenses (look_at) WHERE look_at IS NOT NULL;
