//! What the server counts of itself, under the names that kube-apiserver gives its metrics.
//!
//! Requests are counted by what they are about, not by who asks or what they name: the number of
//! series is bounded by the number of resources served.

pub mod admission;
pub mod authorization;
mod labels;
mod process;
pub mod reload;
mod text;

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_machinery::resource::Resource;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

pub use labels::labels;
pub use text::serve;

/// Upper bounds in seconds, as kube-apiserver has them.
const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const BYTES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// What a request is about, in the words of the metrics.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pub verb: &'static str,
    pub resource: Option<Arc<Resource>>,
    /// Index of one of the resource's subresources.
    pub subresource: Option<usize>,
    /// Of a request that is about no resource: the first part of a path that is known.
    pub path: &'static str,
    pub scope: &'static str,
    pub dry_run: &'static str,
}

impl Labels {
    /// What tells the labels apart. (A resource is made anew when the definitions change.)
    fn key(&self) -> (&str, &str, &str, &str, &str, &str, &str, &str) {
        let (group, version, plural) = self.resource.as_ref().map_or(("", "", ""), |r| {
            (r.group.as_str(), r.version.as_str(), r.plural.as_str())
        });
        let sub = self.subresource();
        let Labels {
            verb,
            path,
            scope,
            dry_run,
            ..
        } = self;
        (group, version, plural, sub, path, verb, scope, dry_run)
    }

    fn subresource(&self) -> &str {
        let resource = self.resource.as_ref();
        let sub = resource.zip(self.subresource);
        let sub = sub.and_then(|(r, i)| r.subresources.get(i));
        sub.map_or("", |s| s.name.as_str())
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    /// Of integral units: microseconds, bytes.
    sum: AtomicU64,
    /// How many units are one of the metric's.
    scale: f64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64; N], scale: f64) -> Histogram<N> {
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            scale,
        }
    }

    fn count(&self) -> u64 {
        let all = self.counts.iter().chain([&self.beyond]);
        all.map(|n| n.load(Ordering::Relaxed)).sum()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn observe(&self, units: u64) {
        let value = units as f64 / self.scale;
        let at = self.bounds.partition_point(|b| *b < value);
        let count = self.counts.get(at).unwrap_or(&self.beyond);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(units, Ordering::Relaxed);
    }
}

/// The requests with the same labels.
pub struct Series {
    labels: Labels,
    /// How many were answered with each status.
    codes: Mutex<Vec<(u16, u64)>>,
    seconds: Histogram<23>,
    bytes: Histogram<7>,
    /// Of long-running ones: those under way, and the events sent.
    running: AtomicI64,
    events: AtomicU64,
}

#[derive(Default)]
pub struct Metrics {
    series: RwLock<FxHashMap<Labels, Arc<Series>>>,
    reading: AtomicI64,
    writing: AtomicI64,
    pub tls_errors: AtomicU64,
    pub admission: admission::Admission,
    pub reloads: reload::Reloads,
}

impl Metrics {
    /// The series of these labels.
    pub fn series(&self, labels: Labels) -> Arc<Series> {
        if let Some(series) = self.series.read().get(&labels) {
            return series.clone();
        }
        let mut all = self.series.write();
        let made = || {
            Arc::new(Series {
                labels: labels.clone(),
                codes: Mutex::default(),
                seconds: Histogram::new(&SECONDS, 1e6),
                bytes: Histogram::new(&BYTES, 1.0),
                running: AtomicI64::new(0),
                events: AtomicU64::new(0),
            })
        };
        all.entry(labels.clone()).or_insert_with(made).clone()
    }

    /// Counts a request among those under way until the guard is dropped.
    pub fn under_way(self: &Arc<Metrics>, writes: bool) -> UnderWay {
        let metrics = self.clone();
        let guard = UnderWay { metrics, writes };
        guard.count().fetch_add(1, Ordering::Relaxed);
        guard
    }

    /// All series, in an order that stays the same.
    fn sorted(&self) -> Vec<Arc<Series>> {
        let mut all: Vec<_> = self.series.read().values().cloned().collect();
        all.sort_by(|a, b| a.labels.key().cmp(&b.labels.key()));
        all
    }
}

pub struct UnderWay {
    metrics: Arc<Metrics>,
    writes: bool,
}

impl UnderWay {
    fn count(&self) -> &AtomicI64 {
        if self.writes {
            &self.metrics.writing
        } else {
            &self.metrics.reading
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Series {
    /// A request was answered.
    pub fn answered(&self, code: u16, time: Duration, bytes: Option<u64>) {
        {
            let mut codes = self.codes.lock();
            match codes.iter_mut().find(|(c, _)| *c == code) {
                Some((_, n)) => *n += 1,
                None => codes.push((code, 1)),
            }
        }
        self.seconds.observe(micros(time));
        if let Some(bytes) = bytes {
            self.bytes.observe(bytes);
        }
    }

    /// A watch began; it is answered when the guard is dropped.
    pub fn running(self: Arc<Series>, since: Instant) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running {
            series: self,
            since,
        }
    }
}

pub struct Running {
    series: Arc<Series>,
    since: Instant,
}

impl Running {
    pub fn event(&self) {
        self.series.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.series.running.fetch_sub(1, Ordering::Relaxed);
        self.series.answered(200, self.since.elapsed(), None);
    }
}
