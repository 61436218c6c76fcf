-- Where one process writes, records stand in the order in which they were written, which is about that in which they expire.
{single}DROP INDEX idempotency_expiry;
