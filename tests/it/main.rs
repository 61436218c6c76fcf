//! The whole house under test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so and ends")]
#![expect(clippy::duplicate_mod, reason = "one suite, two engines: the module's name says which")]

mod answers;
#[path = "answers.rs"]
mod answers_on_postgres;
mod architecture;
mod audit_cells;
mod audit_log;
#[path = "audit_log.rs"]
mod audit_log_on_postgres;
mod conformance;
mod crash;
#[path = "crash.rs"]
mod crash_on_postgres;
mod failover;
mod foreign_clients;
mod gateway;
mod gateway_adapters;
#[path = "gateway.rs"]
mod gateway_on_postgres;
mod gateway_openapi;
mod gateway_owners;
#[path = "gateway_owners.rs"]
mod gateway_owners_on_postgres;
mod gateway_scripts;
#[path = "gateway_scripts.rs"]
mod gateway_scripts_on_postgres;
mod gateway_surface;
mod gp_attacks;
mod gp_books;
#[path = "gp_books.rs"]
mod gp_books_on_postgres;
mod gp_crash;
#[path = "gp_crash.rs"]
mod gp_crash_on_postgres;
mod gp_operator;
mod house;
mod kernelhost_billing;
#[path = "kernelhost_billing.rs"]
mod kernelhost_billing_on_postgres;
mod kernelhost_books;
#[path = "kernelhost_books.rs"]
mod kernelhost_books_on_postgres;
mod kernelhost_orders;
mod kernelhost_refusals;
#[path = "kernelhost_refusals.rs"]
mod kernelhost_refusals_on_postgres;
mod keys;
#[path = "keys.rs"]
mod keys_on_postgres;
mod mail;
#[path = "mail.rs"]
mod mail_on_postgres;
mod monitoring;
#[path = "monitoring.rs"]
mod monitoring_on_postgres;
mod moving;
mod nginx;
mod openapi;
#[path = "openapi.rs"]
mod openapi_on_postgres;
mod operator;
#[path = "operator.rs"]
mod operator_on_postgres;
mod outboxes;
#[path = "outboxes.rs"]
mod outboxes_on_postgres;
mod postgres_tls;
mod power;
mod primitives;
mod process;
mod properties;
mod redaction;
#[path = "redaction.rs"]
mod redaction_on_postgres;
mod several_hosts;
mod simulation;
#[path = "simulation/mod.rs"]
mod simulation_on_postgres;
mod store;
#[path = "store.rs"]
mod store_on_postgres;
mod stripe_receivers;
mod upkeep;
#[path = "upkeep.rs"]
mod upkeep_on_postgres;
mod vault;
#[path = "vault.rs"]
mod vault_on_postgres;
mod vectors;
mod webhooks;
#[path = "webhooks.rs"]
mod webhooks_on_postgres;
