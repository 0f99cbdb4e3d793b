-- What is asked by stands in columns; `record` is the whole record as JSON.
CREATE TABLE operations (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at_ms BIGINT NOT NULL,
    namespace TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    about TEXT NOT NULL,
    who TEXT NOT NULL,
    via TEXT NOT NULL,
    verb TEXT NOT NULL,
    outcome TEXT NOT NULL,
    duration_ms BIGINT,
    searched TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX operations_time ON operations (at_ms, seq);
CREATE INDEX operations_namespace ON operations (namespace, at_ms, seq);
CREATE INDEX operations_name ON operations (name, at_ms, seq);
CREATE INDEX operations_about ON operations (about, at_ms, seq);
CREATE INDEX operations_who ON operations (who, at_ms, seq);
CREATE TABLE objects_seen (
    uid TEXT PRIMARY KEY,
    generation BIGINT NOT NULL,
    seen TEXT NOT NULL
);
