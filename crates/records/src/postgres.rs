//! Records in a PostgreSQL database, for hubs that share one or have no disk of their own.

use std::{str::FromStr, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::OnceCell;

use crate::{
    sql,
    store::{Error, without_password},
};

const MIGRATIONS: &[(i64, &str, &str)] = &[(
    1,
    "operations",
    include_str!("../migrations/postgres/0001_operations.sql"),
)];

/// A PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    ready: OnceCell<()>,
}

impl Postgres {
    /// A store at `url`; nothing is connected yet.
    pub fn open(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| Error::Url {
                url: without_password(url),
                why: e.to_string(),
            })?
            .application_name("gantry");
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            ready: OnceCell::new(),
        })
    }
}

sql::store!(Postgres, sqlx::Postgres);
