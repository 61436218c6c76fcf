-- When a key was last used stands beside its meter, which the same requests write.
ALTER TABLE meters ADD COLUMN last_used_at BIGINT;
UPDATE meters SET last_used_at = (SELECT k.last_used_at FROM api_keys k WHERE k.id = meters.key_id);
ALTER TABLE api_keys DROP COLUMN last_used_at;
