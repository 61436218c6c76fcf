-- What a request writes goes to the ends of its tables. An index by account or by key is written to at a place of its own for each request;
-- where one process writes, its memory or smaller pieces stand in for such an index.

CREATE TABLE idempotency_16 (
  id {id},
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
  expires_at BIGINT NOT NULL
);
INSERT INTO idempotency_16
    (key_id, method, path, idempotency_key, body_sha256, status, headers, body, unfinished_order, at, expires_at)
  SELECT key_id, method, path, idempotency_key, body_sha256, status, headers, body, unfinished_order, at, expires_at
  FROM idempotency ORDER BY expires_at;
DROP TABLE idempotency;
ALTER TABLE idempotency_16 RENAME TO idempotency;
{shared}CREATE UNIQUE INDEX idempotency_keys ON idempotency (key_id, method, path, idempotency_key);
{shared}CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Each invoice leads to the one before it of its reseller, whose row knows the last and how many there are; every 64th can be looked up.
ALTER TABLE invoices ADD COLUMN previous BIGINT;
ALTER TABLE invoices ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN last_invoice BIGINT;
ALTER TABLE accounts ADD COLUMN invoices BIGINT NOT NULL DEFAULT 0;
UPDATE accounts SET
  last_invoice = (SELECT MAX(invoices.id) FROM invoices WHERE account_id = accounts.id),
  invoices = (SELECT COUNT(*) FROM invoices WHERE account_id = accounts.id);
UPDATE invoices SET previous = listed.before, number = listed.place
  FROM (SELECT id AS invoice, LAG(id) OVER listing AS before, ROW_NUMBER() OVER listing AS place FROM invoices
        WINDOW listing AS (PARTITION BY account_id ORDER BY id)) listed
  WHERE invoices.id = listed.invoice;
DROP INDEX invoices_account;
CREATE INDEX invoices_steps ON invoices (account_id, number) WHERE number % 64 = 0;

-- Each 1,024 rows of the log have a part of an index for themselves, and every 64th row of a stream says in which to begin.
CREATE TABLE audit_16 (
  id {id},
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
  chain_hash {bytes} NOT NULL
);
INSERT INTO audit_16 (stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash)
  SELECT stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash FROM audit
{single}  ORDER BY rowid
{shared}  ORDER BY MAX(at) OVER (PARTITION BY stream ORDER BY seq), stream, seq
;
DROP TABLE audit;
ALTER TABLE audit_16 RENAME TO audit;
{shared}CREATE UNIQUE INDEX audit_rows ON audit (stream, seq);
{single}CREATE INDEX audit_blocks ON audit (id / 1024, stream);
{single}CREATE INDEX audit_steps ON audit (stream, seq) WHERE seq % 64 = 0;
