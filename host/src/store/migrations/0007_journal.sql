-- The asking wing: panels, the services they were promised, and the journal of what was asked for them.

-- The token is random and long: its SHA-256 is enough to know it by. Profiles are a JSON array of names; an empty one means all.
CREATE TABLE panels (
  id {id},
  name TEXT NOT NULL UNIQUE,
  token_sha256 {bytes} NOT NULL UNIQUE,
  profiles TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  revoked_at BIGINT
);

-- A service as a panel names it. is_live says that something may stand at the provider for it: until then, and from then on, its
-- remote id and domain are free for others. Addresses and properties are JSON.
CREATE TABLE managed_services (
  id {id},
  panel_id BIGINT NOT NULL REFERENCES panels (id),
  service_key TEXT NOT NULL,
  generation BIGINT NOT NULL,
  profile TEXT NOT NULL,
  state TEXT NOT NULL,
  wanted TEXT NOT NULL,
  is_live BIGINT NOT NULL,
  remote_id TEXT,
  domain TEXT,
  username TEXT,
  plan TEXT,
  addresses TEXT NOT NULL,
  properties TEXT NOT NULL,
  due_at TEXT,
  drift TEXT,
  drift_since BIGINT,
  check_at BIGINT,
  checked_at BIGINT,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (panel_id, service_key)
);
CREATE UNIQUE INDEX managed_services_remote ON managed_services (profile, remote_id) WHERE is_live = 1 AND remote_id IS NOT NULL;
CREATE UNIQUE INDEX managed_services_domain ON managed_services (profile, domain) WHERE is_live = 1 AND domain IS NOT NULL;
CREATE INDEX managed_services_check ON managed_services (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX managed_services_drift ON managed_services (drift_since) WHERE drift IS NOT NULL;

-- One row per change that was asked for. sameness says which requests are the same change; change_mac covers the whole request, its
-- password included, under a key of the vault, so that nobody can try passwords on the book. doubts counts the attempts that may have
-- had an effect nobody saw; is_accepted that the provider took it on, so that its status is asked and nothing sent again. is_alone:
-- nothing else of the profile that is_alone may be under way. Something is to be done at next_at; held_until keeps others off. A
-- panel that was told "under way" (was_awaited) is told of the end at tell_at.
CREATE TABLE operations (
  id {id},
  ulid TEXT NOT NULL UNIQUE,
  service_id BIGINT NOT NULL REFERENCES managed_services (id),
  generation BIGINT NOT NULL,
  kind TEXT NOT NULL,
  sameness TEXT NOT NULL,
  profile TEXT NOT NULL,
  change TEXT NOT NULL,
  change_mac {bytes} NOT NULL,
  sealed_password {bytes},
  is_alone BIGINT NOT NULL,
  state TEXT NOT NULL,
  attempts BIGINT NOT NULL,
  doubts BIGINT NOT NULL,
  is_accepted BIGINT NOT NULL,
  notes TEXT NOT NULL,
  fence BIGINT NOT NULL,
  holder TEXT,
  held_until BIGINT,
  next_at BIGINT,
  sent_at BIGINT,
  accepted_at BIGINT,
  problem TEXT,
  request_id TEXT NOT NULL,
  was_awaited BIGINT NOT NULL,
  tell_at BIGINT,
  tell_attempts BIGINT NOT NULL DEFAULT 0,
  tell_error TEXT,
  created_at BIGINT NOT NULL,
  ended_at BIGINT
);
CREATE INDEX operations_due ON operations (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX operations_open ON operations (service_id, id) WHERE ended_at IS NULL;
CREATE INDEX operations_age ON operations (created_at) WHERE ended_at IS NULL;
CREATE INDEX operations_same ON operations (service_id, sameness, id);
CREATE INDEX operations_alone ON operations (profile) WHERE is_alone = 1 AND ended_at IS NULL;
CREATE INDEX operations_untold ON operations (tell_at) WHERE tell_at IS NOT NULL;
CREATE INDEX operations_state ON operations (state, id);

CREATE TABLE operation_attempts (
  operation_id BIGINT NOT NULL REFERENCES operations (id),
  number BIGINT NOT NULL,
  began_at BIGINT NOT NULL,
  ended_at BIGINT,
  outcome TEXT NOT NULL,
  problem TEXT,
  PRIMARY KEY (operation_id, number)
);

-- Events that providers told, so that a second telling is dropped.
CREATE TABLE provider_events (
  profile TEXT NOT NULL,
  event_id TEXT NOT NULL,
  received_at BIGINT NOT NULL,
  PRIMARY KEY (profile, event_id)
){clustered};
CREATE INDEX provider_events_age ON provider_events (received_at);
