-- What is to be told to resellers: webhooks and mail, written in the transaction of what they tell of.

-- One per key. An empty list of events is all of them; the previous secret signs too until its time is over. Failing since: the
-- first failure after the last success.
CREATE TABLE webhooks (
  key_id BIGINT NOT NULL PRIMARY KEY REFERENCES api_keys (id),
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  url TEXT NOT NULL,
  events TEXT NOT NULL,
  sealed_secret {bytes} NOT NULL,
  sealed_previous_secret {bytes},
  previous_until BIGINT,
  created_at BIGINT NOT NULL,
  last_delivery_id BIGINT,
  failing_since BIGINT,
  disabled_at BIGINT
);
CREATE INDEX webhooks_account ON webhooks (account_id);

-- One row per event and webhook. It is due at next_at until it was delivered or is dead; a courier that takes it raises fence, and
-- holds it until leased_until, which is its next_at meanwhile.
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
  leased_until BIGINT,
  fence BIGINT NOT NULL,
  delivered_at BIGINT,
  dead_at BIGINT,
  last_attempt_at BIGINT,
  last_status BIGINT,
  last_error TEXT
);
CREATE INDEX deliveries_due ON deliveries (key_id, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_leased ON deliveries (key_id, leased_until) WHERE leased_until IS NOT NULL;
CREATE INDEX deliveries_key ON deliveries (key_id, id);
CREATE INDEX deliveries_delivered ON deliveries (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (dead_at) WHERE dead_at IS NOT NULL;

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
CREATE INDEX mails_sent ON mails (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX mails_dead ON mails (dead_at) WHERE dead_at IS NOT NULL;
