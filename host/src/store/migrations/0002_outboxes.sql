-- What is to be told to resellers: webhooks and mail, written in the transaction of what they tell of.

-- One per key. An empty list of events is all of them; the previous secret signs too until its time is over.
CREATE TABLE webhooks (
  key_id BIGINT NOT NULL PRIMARY KEY REFERENCES api_keys (id),
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  url TEXT NOT NULL,
  events TEXT NOT NULL,
  sealed_secret {bytes} NOT NULL,
  sealed_previous_secret {bytes},
  previous_until BIGINT,
  created_at BIGINT NOT NULL,
  disabled_at BIGINT
);
CREATE INDEX webhooks_account ON webhooks (account_id);

-- One row per event and webhook. It is due at next_at until it was delivered or is dead; fence counts the couriers that took it.
CREATE TABLE deliveries (
  id {id},
  key_id BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  event_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  body TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  next_at BIGINT,
  fence BIGINT NOT NULL,
  delivered_at BIGINT,
  dead_at BIGINT,
  last_attempt_at BIGINT,
  last_status BIGINT,
  last_error TEXT
);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_key ON deliveries (key_id, id);

-- Mail is due at next_at until it was sent or is dead.
CREATE TABLE mails (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  body TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  next_at BIGINT,
  fence BIGINT NOT NULL,
  sent_at BIGINT,
  dead_at BIGINT,
  last_error TEXT
);
CREATE INDEX mails_due ON mails (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX mails_account ON mails (account_id, kind, created_at);
