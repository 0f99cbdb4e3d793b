//! The trait of a store, and how one is opened.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use sqlx::error::DatabaseError;

use crate::{
    postgres::Postgres,
    query::{Filter, Found, Page},
    record::{Entry, Seen},
    sqlite::Sqlite,
};

/// How long a store may take for one call.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A store of records.
pub trait Records: Debug + Send + Sync {
    /// Writes entries, all or none. A record that is there already is not written again; one that was
    /// [`Running`](crate::Outcome::Running) is given the outcome that has come.
    fn write<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), Error>>;

    /// One page of what a filter finds, newest first.
    fn query<'a>(
        &'a self,
        filter: &'a Filter,
        page: &'a Page,
    ) -> BoxFuture<'a, Result<Found, Error>>;

    /// What was last seen of every object.
    fn seen(&self) -> BoxFuture<'_, Result<Vec<Seen>, Error>>;

    /// Closes its connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Why a store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, is starting, full or busy: another try may go well.
    #[error("{what}: {source}")]
    Away {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// It refuses what was asked, and will again.
    #[error("{what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// Its tables are not as they should be.
    #[error("bring the tables up to date: {0}")]
    Migrate(#[source] Box<sqlx::migrate::MigrateError>),
    /// It does not answer in time.
    #[error("{what}: no answer in {} s", PATIENCE.as_secs())]
    Silent {
        /// What was tried.
        what: &'static str,
    },
    /// The URL names no store.
    #[error("{url:?}: {why}; give postgres://USER@HOST/DATABASE, or the path of an SQLite file")]
    Url {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cursor of a page is none of this store's.
    #[error("the page {0:?} was not given by an earlier one")]
    Cursor(String),
    /// The file of a store or a spool cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A row cannot be read.
    #[error("read a record: {0}")]
    Unreadable(String),
}

impl Error {
    /// Of a failed call.
    pub(crate) fn of(what: &'static str, source: sqlx::Error) -> Self {
        let refused = match &source {
            sqlx::Error::Database(error) => hopeless(error.as_ref()),
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => true,
            _ => false,
        };
        if refused {
            Self::Refused { what, source }
        } else {
            Self::Away { what, source }
        }
    }

    /// Whether the same call would be refused again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Whether a database says that the data is wrong (SQLSTATE classes 22 and 23), and not that it is unwell.
fn hopeless(error: &dyn DatabaseError) -> bool {
    let sqlite = error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some();
    let code = error.code().unwrap_or_default();
    if sqlite {
        // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH; extended codes have them in the low byte.
        code.parse::<i32>()
            .is_ok_and(|c| matches!(c & 0xff, 18..=20))
    } else {
        code.len() == 5 && (code.starts_with("22") || code.starts_with("23"))
    }
}

/// Opens the store that `url` names: `postgres://…`, or the path of an SQLite file (with `sqlite:` before it or
/// not), which is made where it is missing, for its owner alone. Tables are brought up to date with the first
/// call: a database that is away now may come later.
///
/// # Errors
/// Where the URL cannot be read, or the file not be made.
pub fn open(url: &str) -> Result<Arc<dyn Records>, Error> {
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Ok(Arc::new(Postgres::open(url)?));
    }
    let path = url
        .strip_prefix("sqlite://")
        .or_else(|| url.strip_prefix("sqlite:"))
        .unwrap_or(url);
    if path.is_empty() || path.contains("://") {
        return Err(Error::Url {
            url: without_password(url),
            why: "no store is of that kind".to_owned(),
        });
    }
    Ok(Arc::new(Sqlite::open(path.as_ref())?))
}

/// The URL for people's eyes and logs.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Parameters may hold a password too.
    let path = path.split('?').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://u:secret@h:5432/db", "postgres://u@h:5432/db"),
            (
                "postgres://u:se@cret@h/db?sslmode=require&password=x",
                "postgres://u@h/db",
            ),
            ("postgres://h/db", "postgres://h/db"),
            ("/var/lib/records.db", "/var/lib/records.db"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let wrong = open("mysql://root:secret@h/db").unwrap_err().to_string();
        assert!(
            wrong.starts_with("\"mysql://root@h/db\": no store is of that kind"),
            "{wrong}"
        );
    }
}
