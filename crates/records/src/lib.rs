//! What was done in the fleet: every operation with who, when, what, why and its outcome, in SQL.
