-- Spent nonces as a log. Where one process writes, its memory is their index; where several do, one in the database is.

CREATE TABLE nonces_13 (
  id {id},
  key_id BIGINT NOT NULL,
  nonce TEXT NOT NULL,
  expires_at BIGINT NOT NULL
);
INSERT INTO nonces_13 (key_id, nonce, expires_at) SELECT key_id, nonce, expires_at FROM nonces;
DROP TABLE nonces;
ALTER TABLE nonces_13 RENAME TO nonces;
{shared}CREATE UNIQUE INDEX nonces_spent ON nonces (key_id, nonce);
{shared}CREATE INDEX nonces_expiry ON nonces (expires_at);
