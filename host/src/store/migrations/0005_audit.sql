-- The last archived row of a stream: its chain goes on from there.
CREATE TABLE chain_bases (
  stream BIGINT NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL,
  chain_hash {bytes} NOT NULL,
  archived_at BIGINT NOT NULL
);

-- Since when the owner wants a mail each time credentials are read; NULL for never.
ALTER TABLE accounts ADD COLUMN notify_credentials_at BIGINT;
