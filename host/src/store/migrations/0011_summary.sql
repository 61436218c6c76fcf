-- A summary of each day for the operator, and mail to him, who is no reseller: it has an address of its own.

CREATE TABLE mails_11 (
  id {id},
  account_id BIGINT REFERENCES accounts (id),
  address TEXT,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  body TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  next_at BIGINT,
  fence BIGINT NOT NULL,
  sent_at BIGINT,
  dead_at BIGINT,
  last_error TEXT,
  CHECK ((account_id IS NULL) <> (address IS NULL))
);
INSERT INTO mails_11 (account_id, kind, subject, body, created_at, attempts, next_at, fence, sent_at, dead_at, last_error)
  SELECT account_id, kind, subject, body, created_at, attempts, next_at, fence, sent_at, dead_at, last_error FROM mails ORDER BY id;
DROP TABLE mails;
ALTER TABLE mails_11 RENAME TO mails;
CREATE INDEX mails_due ON mails (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX mails_account ON mails (account_id, kind, created_at);
CREATE INDEX mails_sent ON mails (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX mails_dead ON mails (dead_at) WHERE dead_at IS NOT NULL;

-- One row per day; body is JSON. The call-back is told at tell_at.
CREATE TABLE summaries (
  day TEXT NOT NULL PRIMARY KEY,
  body TEXT NOT NULL,
  made_at BIGINT NOT NULL,
  tell_at BIGINT,
  tell_attempts BIGINT NOT NULL DEFAULT 0,
  tell_error TEXT
);
