//! What containers use: profiles of CPU and memory over time, pure.
//!
//! A profile is a function of simulated time with a closed integral, so that what is used now and what
//! has been used in all (the counters that Prometheus reads) always agree, however seldom somebody
//! asks. Whose it is decides where its waves begin.

use crate::behaviour::Draw;
use std::{f64::consts::TAU, sync::Arc};

/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Periods of the three waves whose sum passes for noise: none is a multiple of another.
const NOISE: [f64; 3] = [67.0, 311.0, 1297.0];

/// Seconds between two looks for a time at which much is used.
const LOOK: f64 = 5.0;

/// An amount: in cores or bytes, or as a share of what the container asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// Cores, or bytes.
    Amount(f64),
    /// Of the request.
    Share(f64),
}

impl Level {
    fn of(self, request: f64) -> f64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(share) => share * request,
        }
    }
}

/// Usage of one resource over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it follows.
    pub shape: Shape,
    /// How far it strays, as a share of its lowest: at most 1.
    pub noise: f64,
    /// What comes on top now and then.
    pub spikes: Option<Spikes>,
}

/// What a profile follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Always the same.
    Constant(Level),
    /// Up and down once a day.
    Diurnal {
        /// At the quietest.
        low: Level,
        /// At the busiest,
        high: Level,
        /// which is at that second of the day, UTC.
        peak: f64,
    },
    /// As recorded; over again when it is through.
    Replay(Arc<Series>),
}

/// Something that comes on top at a time of its own in every period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spikes {
    /// Seconds of the period.
    pub every: f64,
    /// Seconds that it lasts; less than the period.
    pub lasts: f64,
    /// What comes on top.
    pub height: Level,
}

/// A recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Seconds from the start, rising, and the amount from then on.
    points: Vec<(f64, f64)>,
    /// What was used until each point.
    sums: Vec<f64>,
    /// Seconds in all.
    length: f64,
}

impl Series {
    /// Reads a column of a CSV text whose first line names the columns and whose first column is seconds.
    ///
    /// # Errors
    /// Names the line and what is wrong with it.
    pub fn read(text: &str, column: &str) -> Result<Self, String> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        let (_, header) = lines
            .next()
            .ok_or("it is empty: want a line of column names first")?;
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let place = names
            .iter()
            .position(|it| *it == column)
            .filter(|at| *at > 0)
            .ok_or_else(|| {
                format!(
                    "it has no column {column} after the first; its columns: {}",
                    names.join(", ")
                )
            })?;
        let mut points: Vec<(f64, f64)> = vec![];
        for (number, line) in lines {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let read = |at: usize| -> Result<f64, String> {
                let cell = cells.get(at).copied().unwrap_or_default();
                cell.parse()
                    .ok()
                    .filter(|it: &f64| it.is_finite() && *it >= 0.0)
                    .ok_or_else(|| format!("line {number}: {cell:?} is no number from 0 on"))
            };
            let point = (read(0)?, read(place)?);
            if points.last().is_some_and(|(before, _)| *before >= point.0) {
                return Err(format!(
                    "line {number}: its time is not after the line's before"
                ));
            }
            points.push(point);
        }
        let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else {
            return Err("it has no lines below the names of its columns".into());
        };
        if first.0 != 0.0 {
            points.insert(0, (0.0, first.1));
        }
        // The last value holds as long as the one before it did.
        let gap = points
            .iter()
            .rev()
            .nth(1)
            .map_or(60.0, |before| last.0 - before.0);
        let length = last.0 + gap;
        let mut sums = Vec::with_capacity(points.len());
        let mut sum = 0.0;
        for (index, (at, amount)) in points.iter().enumerate() {
            sums.push(sum);
            sum += amount * (points.get(index + 1).map_or(length, |next| next.0) - at);
        }
        Ok(Self {
            points,
            sums,
            length,
        })
    }

    fn index(&self, at: f64) -> usize {
        self.points
            .partition_point(|(from, _)| *from <= at)
            .saturating_sub(1)
    }

    fn at(&self, seconds: f64) -> f64 {
        self.points[self.index(seconds.rem_euclid(self.length))].1
    }

    fn total(&self) -> f64 {
        let (from, amount) = self.points[self.points.len() - 1];
        self.sums[self.sums.len() - 1] + amount * (self.length - from)
    }

    fn until(&self, seconds: f64) -> f64 {
        let rest = seconds.rem_euclid(self.length);
        let index = self.index(rest);
        let (from, amount) = self.points[index];
        (seconds / self.length).floor() * self.total() + self.sums[index] + amount * (rest - from)
    }
}

/// Whose usage it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// Drawn from who it is.
    pub draw: Draw,
    /// What it asks for; what is taken for that if it asks for nothing.
    pub request: f64,
    /// What it may use at most.
    pub limit: Option<f64>,
    /// When the scenario began, for recordings.
    pub start: f64,
}

impl Profile {
    /// Always the same.
    #[must_use]
    pub fn constant(level: Level) -> Self {
        Self {
            shape: Shape::Constant(level),
            noise: 0.0,
            spikes: None,
        }
    }

    /// What is used at that time, in cores or bytes. Times are seconds since the Unix epoch.
    #[must_use]
    pub fn at(&self, time: f64, whose: &Whose) -> f64 {
        let base = match &self.shape {
            Shape::Constant(level) => whose.cut(*level),
            Shape::Diurnal { low, high, peak } => {
                let (low, high) = (whose.cut(*low), whose.cut(*high));
                low + (high - low) * (1.0 + (TAU * (time - peak) / DAY).cos()) / 2.0
            }
            // A recording holds as it is, whatever the limit.
            Shape::Replay(series) => series.at(time - whose.start),
        };
        let noise: f64 = waves(whose)
            .map(|(period, phase)| (TAU * time / period + phase).sin())
            .sum();
        let spike = self.spike(whose).map_or(0.0, |it| {
            let window = (time / it.every).floor();
            let since = time - window * it.every - it.offset(window, whose);
            if (0.0..it.lasts).contains(&since) {
                it.height
            } else {
                0.0
            }
        });
        (base + self.amplitude(whose) * noise / 3.0 + spike).max(0.0)
    }

    /// An amount that is never exceeded.
    #[must_use]
    pub fn most(&self, whose: &Whose) -> f64 {
        let base = match &self.shape {
            Shape::Constant(level) => whose.cut(*level),
            Shape::Diurnal { low, high, .. } => whose.cut(*low).max(whose.cut(*high)),
            Shape::Replay(series) => series
                .points
                .iter()
                .map(|(_, amount)| *amount)
                .fold(0.0, f64::max),
        };
        base + self.amplitude(whose) + self.spike(whose).map_or(0.0, |it| it.height)
    }

    /// The first time from `from` on, looked for until `until`, at which more than that is used; to within a
    /// few seconds, and half a spike.
    #[must_use]
    pub fn above(&self, amount: f64, from: f64, until: f64, whose: &Whose) -> Option<f64> {
        let spike = self.spikes.map_or(LOOK, |it| it.lasts / 2.0);
        let step = spike.clamp(LOOK / 10.0, LOOK);
        let mut at = from;
        while at < until {
            if self.at(at, whose) > amount {
                return Some(at);
            }
            at += step;
        }
        None
    }

    /// What is used between two times, in core-seconds.
    #[must_use]
    pub fn between(&self, from: f64, to: f64, whose: &Whose) -> f64 {
        if to <= from {
            return 0.0;
        }
        self.until(to, whose) - self.until(from, whose)
    }

    fn until(&self, time: f64, whose: &Whose) -> f64 {
        let base = match &self.shape {
            Shape::Constant(level) => whose.cut(*level) * time,
            Shape::Diurnal { low, high, peak } => {
                let (low, high) = (whose.cut(*low), whose.cut(*high));
                let wave = (TAU * (time - peak) / DAY).sin() * DAY / TAU;
                low * time + (high - low) * (time + wave) / 2.0
            }
            Shape::Replay(series) => series.until(time - whose.start),
        };
        let noise: f64 = waves(whose)
            .map(|(period, phase)| -(TAU * time / period + phase).cos() * period / TAU)
            .sum();
        let spike = self.spike(whose).map_or(0.0, |it| {
            let window = (time / it.every).floor();
            let since = time - window * it.every - it.offset(window, whose);
            it.height * (window * it.lasts + since.clamp(0.0, it.lasts))
        });
        base + self.amplitude(whose) * noise / 3.0 + spike
    }

    /// The lowest that it follows, without noise and spikes.
    fn lowest(&self, whose: &Whose) -> f64 {
        match &self.shape {
            Shape::Constant(level) => whose.cut(*level),
            Shape::Diurnal { low, high, .. } => whose.cut(*low).min(whose.cut(*high)),
            Shape::Replay(series) => series
                .points
                .iter()
                .map(|(_, amount)| *amount)
                .fold(f64::MAX, f64::min),
        }
    }

    /// How far the noise goes to either side.
    fn amplitude(&self, whose: &Whose) -> f64 {
        match self.noise {
            0.0 => 0.0,
            noise => noise.clamp(0.0, 1.0) * self.lowest(whose),
        }
    }

    fn spike(&self, whose: &Whose) -> Option<Spike> {
        let it = self.spikes.as_ref()?;
        let room = whose
            .limit
            .map_or(f64::MAX, |limit| (limit - self.lowest(whose)).max(0.0));
        Some(Spike {
            every: it.every,
            lasts: it.lasts,
            height: it.height.of(whose.request).min(room),
        })
    }
}

struct Spike {
    every: f64,
    lasts: f64,
    height: f64,
}

impl Spike {
    /// Seconds from the beginning of a period to its spike.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of periods, from 0 on"
    )]
    fn offset(&self, window: f64, whose: &Whose) -> f64 {
        let draw = whose.draw.word("spike").number(window.max(0.0) as u64);
        draw.unit() * (self.every - self.lasts).max(0.0)
    }
}

impl Whose {
    /// What the level comes to, cut to the limit.
    fn cut(&self, level: Level) -> f64 {
        self.most(level.of(self.request))
    }

    fn most(&self, amount: f64) -> f64 {
        self.limit.map_or(amount, |limit| amount.min(limit))
    }
}

fn waves(whose: &Whose) -> impl Iterator<Item = (f64, f64)> {
    let draw = whose.draw.word("noise");
    (0..)
        .zip(NOISE)
        .map(move |(index, period)| (period, TAU * draw.number(index).unit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(limit: Option<f64>) -> Whose {
        Whose {
            draw: Draw::new(1).word("a"),
            request: 2.0,
            limit,
            start: 1_700_000_000.0,
        }
    }

    fn diurnal() -> Profile {
        Profile {
            shape: Shape::Diurnal {
                low: Level::Amount(0.2),
                high: Level::Share(0.5),
                peak: 14.0 * 3600.0,
            },
            noise: 0.2,
            spikes: Some(Spikes {
                every: 600.0,
                lasts: 30.0,
                height: Level::Amount(0.7),
            }),
        }
    }

    /// The counter is the integral of the gauge, and never goes back.
    #[test]
    fn what_was_used_is_the_sum_of_what_is_used() {
        let replay = Series::read("seconds,cpu\n0,0.5\n10,2\n40,0\n", "cpu").unwrap();
        let profiles = [
            Profile::constant(Level::Share(0.25)),
            diurnal(),
            Profile {
                shape: Shape::Replay(replay.into()),
                noise: 0.0,
                spikes: None,
            },
        ];
        for profile in profiles {
            let whose = whose(None);
            let (start, mut sum, mut before) = (1_700_003_456.0, 0.0, 0.0);
            for step in 0..8000 {
                let at = start + f64::from(step);
                let parts =
                    (0..10).map(|part| profile.at(at + f64::from(part) / 10.0 + 0.05, &whose));
                sum += parts.sum::<f64>() / 10.0;
                let counter = profile.between(start, at + 1.0, &whose);
                assert!(counter >= before - 1e-6, "{profile:?} goes back at {step}");
                before = counter;
            }
            assert!(
                (before / sum - 1.0).abs() < 0.01,
                "{profile:?}: {before} and {sum}"
            );
        }
    }

    #[test]
    fn a_day_has_its_peak_and_its_quiet() {
        let profile = Profile {
            noise: 0.0,
            spikes: None,
            ..diurnal()
        };
        let at = |hour: f64| profile.at(1_699_920_000.0 + hour * 3600.0, &whose(None));
        assert!((at(14.0) - 1.0).abs() < 1e-6, "{}", at(14.0));
        assert!((at(2.0) - 0.2).abs() < 1e-6, "{}", at(2.0));
        let cut = profile.at(1_699_920_000.0 + 14.0 * 3600.0, &whose(Some(0.5)));
        assert!((cut - 0.5).abs() < 1e-6, "a limit throttles: {cut}");
    }

    #[test]
    fn recordings_repeat_and_bad_ones_are_refused() {
        let series = Series::read("# a\ntime, cpu, memory\n0, 1, 5\n60, 3, 6\n", "memory").unwrap();
        assert_eq!(
            [0.0, 59.0, 60.0, 119.0, 120.0, 180.0].map(|at| series.at(at)),
            [5.0, 5.0, 6.0, 6.0, 5.0, 6.0]
        );
        for (text, told) in [
            ("", "empty"),
            ("time,memory\n0,1", "no column cpu"),
            ("time,cpu\n0,1\n0,2", "line 3"),
            ("time,cpu\n0,x", "line 2"),
            ("time,cpu\n", "no lines"),
        ] {
            let error = Series::read(text, "cpu").unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
