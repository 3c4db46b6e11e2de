// Values by key, bounded in number and sharded.
