-- SQLite keeps to the types of columns from here on, as PostgreSQL does. What is stored stays as it is: the tables' text alone changes.
-- INT and not INTEGER, which as a primary key would mean the row's place. Tables that are none of ours are left alone.
{single}PRAGMA writable_schema = ON;
{single}UPDATE sqlite_schema SET sql = replace(sql, 'BIGINT', 'INT') || CASE WHEN sql LIKE '%) WITHOUT ROWID' THEN ', STRICT' ELSE ' STRICT' END
{single}WHERE type = 'table' AND name IN (
{single}  'accounts', 'api_keys', 'audit', 'chain_bases', 'chain_heads', 'deliveries', 'envelopes', 'failures', 'fences',
{single}  'idempotency', 'inventories', 'invoices', 'key_addresses', 'leases', 'ledger', 'licenses', 'locks', 'mails',
{single}  'managed_services', 'master_keys', 'meters', 'migrations', 'nonces', 'operation_attempts', 'operations', 'orders',
{single}  'package_prices', 'packages', 'panels', 'payments', 'product_prices', 'products', 'provider_events', 'sandboxes',
{single}  'services', 'simulated_charges', 'summaries', 'unowned_services', 'used_hashes', 'webhooks'
{single});
{single}PRAGMA writable_schema = RESET;
-- So that other connections read the tables' text anew.
{single}CREATE TABLE strict_19 (id INT) STRICT;
{single}DROP TABLE strict_19;
