-- What stands at providers that no key of a panel owns.

-- When a profile's provider is asked for all its services, and when it was last.
CREATE TABLE inventories (
  profile TEXT NOT NULL PRIMARY KEY,
  due_at BIGINT NOT NULL,
  taken_at BIGINT
);

-- seen_at is the beginning of the inventory that saw it last. is_certain: it is not the service of an order under way.
CREATE TABLE unowned_services (
  profile TEXT NOT NULL,
  remote_id TEXT NOT NULL,
  domain TEXT,
  state TEXT NOT NULL,
  plan TEXT,
  since BIGINT NOT NULL,
  seen_at BIGINT NOT NULL,
  is_certain BIGINT NOT NULL,
  PRIMARY KEY (profile, remote_id)
){clustered};
