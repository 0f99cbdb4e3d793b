//! Types, defaults, validation and field sets, by recorded behaviour and by tables.

mod corpus;
mod recorded_definitions;
mod recorded_fields;
mod recorded_messages;
mod validation;
