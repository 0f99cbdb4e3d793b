//! Revisioned object store: MVCC reads, watch, group-committed durability
