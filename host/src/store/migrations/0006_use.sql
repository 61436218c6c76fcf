-- What every request reads and writes, in as few pages as can be.

-- When a key was last used stands beside its meter.
CREATE TABLE meters_6 (
  key_id BIGINT NOT NULL PRIMARY KEY,
  level BIGINT NOT NULL,
  at BIGINT NOT NULL,
  day BIGINT NOT NULL,
  day_count BIGINT NOT NULL,
  last_used_at BIGINT
){clustered};
INSERT INTO meters_6 (key_id, level, at, day, day_count, last_used_at)
  SELECT m.key_id, m.level, m.at, m.day, m.day_count, (SELECT k.last_used_at FROM api_keys k WHERE k.id = m.key_id) FROM meters m;
DROP TABLE meters;
ALTER TABLE meters_6 RENAME TO meters;
ALTER TABLE api_keys DROP COLUMN last_used_at;

CREATE TABLE nonces_6 (
  key_id BIGINT NOT NULL,
  nonce TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (key_id, nonce)
){clustered};
INSERT INTO nonces_6 (key_id, nonce, expires_at) SELECT key_id, nonce, expires_at FROM nonces;
DROP TABLE nonces;
ALTER TABLE nonces_6 RENAME TO nonces;
CREATE INDEX nonces_expiry ON nonces (expires_at);

CREATE TABLE chain_heads_6 (
  stream BIGINT NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL,
  chain_hash {bytes} NOT NULL
){clustered};
INSERT INTO chain_heads_6 (stream, seq, chain_hash) SELECT stream, seq, chain_hash FROM chain_heads;
DROP TABLE chain_heads;
ALTER TABLE chain_heads_6 RENAME TO chain_heads;
