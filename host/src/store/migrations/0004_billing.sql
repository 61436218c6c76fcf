-- Invoices with lines and tax, payments by card, renewal billing.

-- A closed reseller is sold nothing any more. The card is a gateway's token, sealed; the label is what people know it by.
ALTER TABLE accounts ADD COLUMN closed_at BIGINT;
ALTER TABLE accounts ADD COLUMN sealed_card {bytes};
ALTER TABLE accounts ADD COLUMN card_label TEXT;

-- Lines are a JSON array of [text, quantity, price of each]. The total is what is paid, tax included.
ALTER TABLE invoices ADD COLUMN order_id BIGINT;
ALTER TABLE invoices ADD COLUMN lines TEXT NOT NULL DEFAULT '[]';
ALTER TABLE invoices ADD COLUMN tax BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoices ADD COLUMN tax_basis_points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoices ADD COLUMN seller TEXT NOT NULL DEFAULT '';
CREATE INDEX invoices_unpaid_renewals ON invoices (account_id, due_at) WHERE renews_service IS NOT NULL AND status = 'unpaid';

CREATE INDEX orders_pending ON orders (account_id, id) WHERE status = 'pending_payment';
CREATE INDEX orders_invoice ON orders (invoice_id);
UPDATE invoices SET order_id = (SELECT orders.id FROM orders WHERE orders.invoice_id = invoices.id);
DROP INDEX orders_invoice;

-- Billing has something to do at bill_at; unpaid_since says that it suspended the service.
ALTER TABLE services ADD COLUMN bill_at BIGINT;
ALTER TABLE services ADD COLUMN unpaid_since BIGINT;
UPDATE services SET bill_at = next_due_at - 604800000 WHERE status IN ('active', 'suspended');
CREATE INDEX services_bill ON services (bill_at) WHERE bill_at IS NOT NULL;
UPDATE invoices SET order_id = (SELECT services.order_id FROM services WHERE services.id = invoices.renews_service)
 WHERE renews_service IS NOT NULL;

-- One row per try at charging a card for an invoice. Whoever works on it holds a lease; fence counts who took it.
CREATE TABLE payments (
  id {id},
  account_id BIGINT NOT NULL REFERENCES accounts (id),
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  attempt BIGINT NOT NULL,
  gateway_key TEXT NOT NULL UNIQUE,
  amount BIGINT NOT NULL CHECK (amount > 0),
  held BIGINT NOT NULL CHECK (held >= 0),
  currency TEXT NOT NULL,
  status TEXT NOT NULL,
  fence BIGINT NOT NULL,
  lease_until BIGINT,
  reason TEXT,
  created_at BIGINT NOT NULL,
  finished_at BIGINT
);
CREATE UNIQUE INDEX payments_attempt ON payments (invoice_id, attempt);
CREATE UNIQUE INDEX payments_open ON payments (invoice_id) WHERE status = 'charging';
CREATE INDEX payments_lease ON payments (lease_until) WHERE lease_until IS NOT NULL;

-- What the simulated gateway was asked and answered: it stands for a bank, which remembers by itself.
CREATE TABLE simulated_charges (
  gateway_key TEXT NOT NULL PRIMARY KEY,
  amount BIGINT NOT NULL,
  currency TEXT NOT NULL,
  outcome TEXT NOT NULL,
  at BIGINT NOT NULL
);
