-- Operations that ended long ago go.
CREATE INDEX operations_ended ON operations (ended_at) WHERE ended_at IS NOT NULL;
