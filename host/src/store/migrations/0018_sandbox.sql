-- A book for trying things out. One row at most.
CREATE TABLE sandboxes (
  id BIGINT NOT NULL PRIMARY KEY
);
