//! What both databases have in common: the statements, which differ in nothing but how the tables are made.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::{
    query::{Cursor, Found, Page},
    record::Record,
    store::Error,
};

/// Makes a migrator of numbered migrations. Those that have been released are never changed.
pub fn migrator(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = files.iter().map(|(number, name, sql)| {
        let sql = (*sql).into_sql_str();
        let name = Cow::Borrowed(*name);
        Migration::new(*number, name, MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// One row: number, time in milliseconds, the record as JSON.
pub type Row = (i64, i64, String);

/// The records of rows of which one more than a page has was asked for.
pub fn found(mut rows: Vec<Row>, page: &Page) -> Result<Found, Error> {
    let limit = limit(page);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next = last.map(|(seq, at_ms, _)| {
        let (seq, at_ms) = (*seq, *at_ms);
        Cursor { at_ms, seq }.text()
    });
    let read = |(_, _, text): &Row| {
        serde_json::from_str::<Record>(text).map_err(|e| Error::Unreadable(e.to_string()))
    };
    Ok(Found {
        records: rows.iter().map(read).collect::<Result<_, _>>()?,
        next,
    })
}

/// How many records a page may have.
pub fn limit(page: &Page) -> usize {
    page.limit.clamp(1, Page::MOST) as usize
}

/// The place that a page begins at.
pub fn cursor(page: &Page) -> Result<Option<Cursor>, Error> {
    page.after
        .as_ref()
        .map(|text| Cursor::parse(text).ok_or_else(|| Error::Cursor(text.clone())))
        .transpose()
}

/// A value as the text that a column holds.
pub fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|e| Error::Unreadable(e.to_string()))?;
    // PostgreSQL takes no NUL in a text; as JSON it is this escape, which no other text holds.
    Ok(if text.contains("\\u0000") {
        text.replace("\\u0000", "\\ufffd")
    } else {
        text
    })
}

/// Text without what PostgreSQL refuses.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// A store on a pool of connections. The statements are text that both databases read; a macro, since the types
/// of sqlx that go with a database are many.
macro_rules! store {
    ($store:ident, $database:ty) => {
        impl $store {
            async fn put(&self, entries: &[crate::Entry]) -> Result<(), crate::Error> {
                use crate::{query::searched, sql};
                let what = "write records";
                let pool = self.pool().await?;
                let mut tx = pool.begin().await.map_err(|e| crate::Error::of(what, e))?;
                for record in entries.iter().flat_map(|e| &e.records) {
                    let object = &record.object;
                    let query = sqlx::query(
                        "INSERT INTO operations (id, at_ms, namespace, kind, name, about, who, via, verb, outcome, \
                         duration_ms, searched, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                         ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, duration_ms = excluded.duration_ms, \
                         searched = excluded.searched, record = excluded.record \
                         WHERE operations.outcome = 'running' AND excluded.outcome <> 'running'",
                    )
                    .bind(sql::clean(&record.id).into_owned())
                    .bind(record.at.as_millisecond())
                    .bind(sql::clean(&object.namespace).into_owned())
                    .bind(sql::clean(&object.kind).into_owned())
                    .bind(sql::clean(&object.name).into_owned())
                    .bind(sql::clean(&object.group).into_owned())
                    .bind(sql::clean(&record.who.user).into_owned())
                    .bind(record.who.via.as_str())
                    .bind(record.verb.as_str())
                    .bind(record.outcome.as_str())
                    .bind(record.duration_ms())
                    .bind(sql::clean(&searched(record)).into_owned())
                    .bind(sql::json(record)?);
                    query
                        .execute(&mut *tx)
                        .await
                        .map_err(|e| crate::Error::of(what, e))?;
                }
                for seen in entries.iter().filter_map(|e| e.seen.as_ref()) {
                    let query = match seen {
                        crate::SeenChange::Is(seen) => sqlx::query(
                            "INSERT INTO objects_seen (uid, generation, seen) VALUES ($1, $2, $3) ON CONFLICT (uid) \
                             DO UPDATE SET generation = excluded.generation, seen = excluded.seen",
                        )
                        .bind(seen.object.uid.clone())
                        .bind(seen.generation)
                        .bind(sql::json(seen)?),
                        crate::SeenChange::Gone(uid) => {
                            sqlx::query("DELETE FROM objects_seen WHERE uid = $1").bind(uid.clone())
                        }
                    };
                    query
                        .execute(&mut *tx)
                        .await
                        .map_err(|e| crate::Error::of(what, e))?;
                }
                tx.commit().await.map_err(|e| crate::Error::of(what, e))
            }

            async fn find(
                &self,
                filter: &crate::Filter,
                page: &crate::Page,
            ) -> Result<crate::Found, crate::Error> {
                use crate::{query, sql};
                let mut query =
                    sqlx::QueryBuilder::<$database>::new("SELECT seq, at_ms, record FROM operations WHERE 1 = 1");
                let mut among = |column: &str, words: &[String]| {
                    query.push(" AND ").push(column).push(" IN (");
                    let mut list = query.separated(", ");
                    for word in words {
                        list.push_bind(word.clone());
                    }
                    query.push(")");
                };
                fn words<T: ToString>(of: &[T]) -> Vec<String> {
                    of.iter().map(T::to_string).collect()
                }
                if let Some(tenants) = &filter.tenants {
                    if tenants.is_empty() {
                        return Ok(crate::Found::default());
                    }
                    among("namespace", tenants);
                }
                for (column, list) in [
                    ("verb", words(&filter.verbs)),
                    ("outcome", words(&filter.outcomes)),
                    ("via", words(&filter.via)),
                ] {
                    if !list.is_empty() {
                        among(column, &list);
                    }
                }
                if let Some(kind) = &filter.kind {
                    query.push(" AND kind = ").push_bind(kind.clone());
                }
                if let Some(name) = &filter.name {
                    query.push(" AND (name = ").push_bind(name.clone());
                    query.push(" OR about = ").push_bind(name.clone()).push(")");
                }
                if let Some(who) = &filter.who {
                    query.push(" AND who = ").push_bind(who.clone());
                }
                if let Some(since) = &filter.since {
                    query.push(" AND at_ms >= ").push_bind(since.as_millisecond());
                }
                if let Some(until) = &filter.until {
                    query.push(" AND at_ms < ").push_bind(until.as_millisecond());
                }
                if let Some(text) = filter.text.as_ref().filter(|t| !t.is_empty()) {
                    let pattern = query::pattern(&sql::clean(text));
                    query.push(" AND searched LIKE ").push_bind(pattern).push(" ESCAPE '\\'");
                }
                if let Some(after) = sql::cursor(page)? {
                    query.push(" AND (at_ms, seq) < (").push_bind(after.at_ms);
                    query.push(", ").push_bind(after.seq).push(")");
                }
                query.push(" ORDER BY at_ms DESC, seq DESC LIMIT ");
                query.push_bind(sql::limit(page) as i64 + 1);
                let pool = self.pool().await?;
                let rows: Vec<sql::Row> = query
                    .build_query_as()
                    .fetch_all(pool)
                    .await
                    .map_err(|e| crate::Error::of("find records", e))?;
                sql::found(rows, page)
            }

            async fn all_seen(&self) -> Result<Vec<crate::Seen>, crate::Error> {
                let pool = self.pool().await?;
                let rows: Vec<(String,)> = sqlx::query_as("SELECT seen FROM objects_seen")
                    .fetch_all(pool)
                    .await
                    .map_err(|e| crate::Error::of("read what was seen", e))?;
                rows.iter()
                    .map(|(text,)| {
                        serde_json::from_str(text)
                            .map_err(|e| crate::Error::Unreadable(e.to_string()))
                    })
                    .collect()
            }

            /// The pool, once its tables are up to date.
            async fn pool(&self) -> Result<&sqlx::Pool<$database>, crate::Error> {
                let migrate = || async {
                    let migrator = crate::sql::migrator(MIGRATIONS);
                    migrator.run(&self.pool).await.map_err(|e| match e {
                        sqlx::migrate::MigrateError::Execute(e) => {
                            crate::Error::of("bring the tables up to date", e)
                        }
                        e => crate::Error::Migrate(Box::new(e)),
                    })
                };
                self.ready.get_or_try_init(migrate).await?;
                Ok(&self.pool)
            }
        }

        impl crate::Records for $store {
            fn write<'a>(
                &'a self,
                entries: &'a [crate::Entry],
            ) -> futures::future::BoxFuture<'a, Result<(), crate::Error>> {
                Box::pin(crate::sql::in_time("write records", self.put(entries)))
            }

            fn query<'a>(
                &'a self,
                filter: &'a crate::Filter,
                page: &'a crate::Page,
            ) -> futures::future::BoxFuture<'a, Result<crate::Found, crate::Error>> {
                Box::pin(crate::sql::in_time("find records", self.find(filter, page)))
            }

            fn seen(&self) -> futures::future::BoxFuture<'_, Result<Vec<crate::Seen>, crate::Error>> {
                Box::pin(crate::sql::in_time("read what was seen", self.all_seen()))
            }

            fn close(&self) -> futures::future::BoxFuture<'_, ()> {
                Box::pin(self.pool.close())
            }
        }
    };
}
pub(crate) use store;

/// A call that may take only so long: a connection to a dead host does not end by itself.
pub async fn in_time<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(crate::store::PATIENCE, call)
        .await
        .unwrap_or(Err(Error::Silent { what }))
}
