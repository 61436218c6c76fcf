-- A restored book forgot which requests were accepted after its backup. One row at most: until when there may have been some; nothing in a
-- backup that has not been served yet.
CREATE TABLE fences (
  id BIGINT NOT NULL PRIMARY KEY,
  lost_until BIGINT
);
