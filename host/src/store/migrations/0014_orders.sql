-- Every order and every movement of credit paid for these; nothing on a request's way asked them.
DROP INDEX orders_account;
DROP INDEX ledger_account;
