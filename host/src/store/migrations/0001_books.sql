-- One text for SQLite and PostgreSQL: {id} is a generated primary key, {bytes} a byte string.
-- Times are Unix milliseconds, money is minor units, sealed columns hold the vault's ciphertext.

CREATE TABLE accounts (
  id {id},
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  currency TEXT NOT NULL,
  balance BIGINT NOT NULL CHECK (balance >= 0),
  created_at BIGINT NOT NULL
);

-- Every movement of credit: the sum per account is its balance.
CREATE TABLE ledger (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  at BIGINT NOT NULL,
  amount BIGINT NOT NULL,
  kind TEXT NOT NULL,
  reference TEXT NOT NULL
);
CREATE INDEX ledger_account ON ledger (account_id);

CREATE TABLE api_keys (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  provider TEXT NOT NULL,
  public_id TEXT NOT NULL,
  label TEXT NOT NULL,
  sealed_secret {bytes} NOT NULL,
  scopes TEXT NOT NULL,
  allowed TEXT NOT NULL,
  per_minute BIGINT NOT NULL,
  burst BIGINT NOT NULL,
  per_day BIGINT NOT NULL,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  last_used_at BIGINT,
  UNIQUE (provider, public_id)
);

-- Keys that are found by the caller's address, because their API names none.
CREATE TABLE key_addresses (
  provider TEXT NOT NULL,
  address TEXT NOT NULL,
  key_id BIGINT NOT NULL REFERENCES api_keys (id),
  PRIMARY KEY (provider, address, key_id)
);

CREATE TABLE nonces (
  key_id BIGINT NOT NULL,
  nonce TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (key_id, nonce)
);
CREATE INDEX nonces_expiry ON nonces (expires_at);

CREATE TABLE meters (
  key_id BIGINT NOT NULL PRIMARY KEY,
  level BIGINT NOT NULL,
  at BIGINT NOT NULL,
  day BIGINT NOT NULL,
  day_count BIGINT NOT NULL
);

CREATE TABLE failures (
  id {id},
  key_id BIGINT NOT NULL,
  network TEXT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX failures_key ON failures (key_id, at);

-- An empty network locks everybody out.
CREATE TABLE locks (
  key_id BIGINT NOT NULL,
  network TEXT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (key_id, network)
);

CREATE TABLE idempotency (
  key_id BIGINT NOT NULL,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  body_sha256 {bytes} NOT NULL,
  status BIGINT NOT NULL,
  headers TEXT NOT NULL,
  body {bytes} NOT NULL,
  unfinished_order BIGINT,
  at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (key_id, method, path, idempotency_key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE products (
  id {id},
  name TEXT NOT NULL,
  family TEXT NOT NULL,
  description TEXT NOT NULL,
  config_options TEXT NOT NULL,
  stock BIGINT CHECK (stock >= 0),
  retired_at BIGINT
);

CREATE TABLE product_prices (
  product_id BIGINT NOT NULL REFERENCES products (id),
  currency TEXT NOT NULL,
  cycle TEXT NOT NULL,
  price BIGINT NOT NULL CHECK (price >= 0),
  setup_fee BIGINT NOT NULL CHECK (setup_fee >= 0),
  PRIMARY KEY (product_id, currency, cycle)
);

CREATE TABLE invoices (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  status TEXT NOT NULL,
  total BIGINT NOT NULL,
  currency TEXT NOT NULL,
  renews_service BIGINT,
  renews_from BIGINT,
  issued_at BIGINT NOT NULL,
  due_at BIGINT NOT NULL,
  paid_at BIGINT
);
CREATE INDEX invoices_account ON invoices (account_id);
CREATE UNIQUE INDEX invoices_renewal ON invoices (renews_service, renews_from) WHERE renews_service IS NOT NULL AND status <> 'cancelled';

CREATE TABLE orders (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  product_id BIGINT NOT NULL,
  cycle TEXT NOT NULL,
  quantity BIGINT NOT NULL,
  config_options TEXT NOT NULL,
  hostname TEXT,
  note TEXT,
  total BIGINT NOT NULL,
  recurring BIGINT NOT NULL,
  currency TEXT NOT NULL,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  status TEXT NOT NULL,
  service_id BIGINT,
  paid_at BIGINT,
  due_at BIGINT
);
CREATE INDEX orders_account ON orders (account_id);
CREATE INDEX orders_due ON orders (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE services (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  order_id BIGINT NOT NULL REFERENCES orders (id),
  product_id BIGINT NOT NULL,
  status TEXT NOT NULL,
  power TEXT,
  hostname TEXT NOT NULL,
  addresses TEXT NOT NULL,
  cycle TEXT NOT NULL,
  recurring BIGINT NOT NULL,
  currency TEXT NOT NULL,
  next_due_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  username TEXT NOT NULL,
  sealed_password {bytes} NOT NULL,
  port BIGINT NOT NULL
);
CREATE INDEX services_account ON services (account_id, id);

CREATE TABLE used_hashes (
  key_id BIGINT NOT NULL,
  hash TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  parameters_sha256 {bytes} NOT NULL,
  peer TEXT NOT NULL,
  at BIGINT NOT NULL,
  answer TEXT NOT NULL,
  PRIMARY KEY (key_id, hash)
);

CREATE TABLE envelopes (
  key_id BIGINT NOT NULL,
  ciphertext_sha256 {bytes} NOT NULL,
  iv {bytes} NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (key_id, ciphertext_sha256)
);

CREATE TABLE packages (
  name TEXT NOT NULL PRIMARY KEY,
  rank BIGINT NOT NULL
);

CREATE TABLE package_prices (
  package TEXT NOT NULL REFERENCES packages (name),
  currency TEXT NOT NULL,
  price BIGINT NOT NULL CHECK (price >= 0),
  PRIMARY KEY (package, currency)
);

CREATE TABLE licenses (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  domain TEXT NOT NULL,
  package TEXT NOT NULL,
  token TEXT NOT NULL,
  state TEXT NOT NULL,
  email TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  due_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  renewed_at BIGINT
);
CREATE UNIQUE INDEX licenses_live ON licenses (domain) WHERE state <> 'cancelled';
CREATE INDEX licenses_account ON licenses (account_id);

-- One chain per stream: an account's id, or 0 for requests that belong to nobody.
CREATE TABLE audit (
  stream BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  account_id BIGINT,
  key_id TEXT,
  peer TEXT NOT NULL,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  status BIGINT NOT NULL,
  reason TEXT,
  request_id TEXT NOT NULL,
  event TEXT NOT NULL,
  detail TEXT,
  chain_hash {bytes} NOT NULL,
  UNIQUE (stream, seq)
);

CREATE TABLE chain_heads (
  stream BIGINT NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL,
  chain_hash {bytes} NOT NULL
);

-- Which master keys this book was sealed with, by fingerprint; the keys themselves never come here.
CREATE TABLE master_keys (
  version BIGINT NOT NULL PRIMARY KEY,
  fingerprint TEXT NOT NULL
);
